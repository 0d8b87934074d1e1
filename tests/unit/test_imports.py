"""The import graph that decides what an edit reruns."""

from pathlib import Path

import pytest

from kvlab.imports import ENTRANCE, closure

PACKAGE = Path(__file__).resolve().parents[2] / "workflow" / "kvlab"


def names(*modules):
    return {str(path.relative_to(PACKAGE)) for path in closure(PACKAGE, modules)}


def test_late_relative_and_typing_imports(tmp_path):
    package = tmp_path / "kvlab"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "a": "def f():\n    from kvlab import b\n",
        "b": "from . import c\n",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kvlab import d\n",
        "d": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert [path.name for path in closure(package, ["a"])] == ["a.py", "b.py", "c.py"]


def test_a_module_that_is_not_there():
    with pytest.raises(ValueError, match=r"no module kvlab\.measure\.nothing"):
        closure(PACKAGE, ["measure.nothing"])


def test_an_engine_does_not_depend_on_the_other():
    hf, vllm = (names("measure.run", f"measure.engines.{engine}") for engine in ("transformers", "vllm"))
    assert "measure/engines/vllm.py" in vllm - hf
    assert "measure/engines/transformers.py" in hf - vllm


def test_wings_import_the_ground_and_what_comes_before():
    order = ["prepare", "measure", "analyse", "publish"]
    modules = [p.relative_to(PACKAGE).with_suffix("") for wing in order for p in (PACKAGE / wing).rglob("*.py")]
    for module in modules:
        if module.name == "__init__":
            continue
        wings = {name.split("/")[0] for name in names(".".join(module.parts)) if "/" in name}
        later = set(order[order.index(module.parts[0]) + 1 :])
        assert not wings & later, f"{module} imports a wing that comes after it"


def test_no_stage_imports_the_entrance():
    import ast

    for path in PACKAGE.rglob("*.py"):
        module = "kvlab." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module in ENTRANCE or path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in {"kvlab.config", "kvlab.arms", "kvlab.cli"}:
                pytest.fail(f"{module} imports {node.module}: its rule would not rerun when that changes")


def test_engines_are_imported_only_where_they_live():
    import ast

    heavy = {"torch", "transformers", "vllm", "accelerate"}
    allowed = {"measure/engines", "prepare/model", "prepare/shapes"}
    for path in PACKAGE.rglob("*.py"):
        place = str(path.relative_to(PACKAGE))
        if any(place.startswith(prefix) for prefix in allowed):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            assert not heavy & {name.split(".")[0] for name in found}, f"{place} imports {found}"
