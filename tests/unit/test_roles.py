"""What compares arms or shows them asks for a role; an arm's name is written in its declaration alone."""

import ast
import io
import tokenize

import pytest

from kvlab.arms import ARMS
from kvlab.paths import NOTEBOOK, REPORT, ROOT
from kvlab.roles import ADMITTING, EAGER, RUNGS, Roles

PACKAGE = ROOT / "workflow" / "kvlab"
# What names arms: their declaration, the command line's examples, and the comparison of single arms with other tools.
NAMING = [PACKAGE / "arms.py", PACKAGE / "cli.py", ROOT / "benchmarks" / "peers.py"]
CHECKED = [
    *(path for path in [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")] if path not in NAMING),
    *(ROOT / "workflow" / "rules").glob("*.smk"),
    *(REPORT / "templates").glob("*.j2"),
    *(REPORT / "script").glob("*.js"),
    *REPORT.glob("*.css"),
    *(path for path in REPORT.glob("*.yaml") if path.name != "claims.yaml"),
    NOTEBOOK,
]


def code(path):
    """A file's text; of Python without comments and docstrings, which may name an arm as an example."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    words = [token.string for token in tokens if token.type != tokenize.COMMENT]
    docs = {ast.get_docstring(node, clean=False) for node in ast.walk(ast.parse(text)) if hasattr(node, "body")
            and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
    return "\n".join(word for word in words if word.strip('"') not in docs)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arm_is_named(path):
    text = code(path)
    assert [name for name in ARMS if name in text] == []


def test_every_rung_and_policy_is_declared_once_or_more():
    declared = [arm.role for arm in ARMS.values()]
    assert [role for role in (*RUNGS, *ADMITTING, EAGER) if role not in declared] == []
    assert [role for role in RUNGS if declared.count(role) != 1] == []


def test_an_arm_without_a_declared_label_is_shown_by_its_name_in_grey():
    none = Roles()
    assert none.first("paging", ["x"]) is None
    assert (none.label("x", "en"), none.colour("x")) == ("x", "#777777")


def test_an_arm_at_a_rate_is_that_arm():
    roles = Roles({name: arm.shown() for name, arm in ARMS.items()})
    name = next(arm.name for arm in ARMS.values() if arm.role == "paging")
    assert roles.label(f"{name}@2.5", "en") == ARMS[name].label["en"]
    assert roles.first("paging", [*ARMS]) == name


def test_arms_are_labelled_in_both_languages_and_differ():
    for language in ("en", "zh"):
        labels = [arm.label[language] for arm in ARMS.values()]
        assert len(set(labels)) == len(labels)
