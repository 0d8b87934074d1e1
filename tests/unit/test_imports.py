"""The import graph that decides what an edit reruns."""

from pathlib import Path

import pytest

from kvlab.dag.imports import ENTRANCE, closure, imports

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
    hf, vllm = (names("measure.run", f"measure.engines.{engine}.driver") for engine in ("transformers", "vllm"))
    assert "measure/engines/vllm/driver.py" in vllm - hf
    assert "measure/engines/transformers/driver.py" in hf - vllm


ORDER = ["config", "dag", "allocators", "prepare", "measure", "simulate", "analyse", "publish"]


def test_wings_import_the_ground_and_what_comes_before():
    modules = [p.relative_to(PACKAGE).with_suffix("") for wing in ORDER for p in (PACKAGE / wing).rglob("*.py")]
    for module in modules:
        if module.name == "__init__":
            continue
        wings = {name.split("/")[0] for name in names(".".join(module.parts)) if "/" in name}
        later = set(ORDER[ORDER.index(module.parts[0]) + 1 :])
        assert not wings & later, f"{module} imports a wing that comes after it"
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(ORDER)


def test_no_module_imports_itself_by_a_detour():
    graph = {path: set(imported(path)) for path in PACKAGE.rglob("*.py")}

    def visit(path, above):
        assert path not in above, " -> ".join(str(p.relative_to(PACKAGE)) for p in [*above, path])
        if path in graph:
            for other in graph[path]:
                visit(other, [*above, path])
            del graph[path]  # all that it leads to is free of circles

    for path in list(graph):
        visit(path, [])


def imported(path):
    """The modules that `path` imports itself, `__init__` files apart: they hold no code of a stage."""
    module = path.relative_to(PACKAGE.parent).with_suffix("")
    for name in imports(path.read_text(encoding="utf-8"), ".".join(module.parent.parts)):
        file = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        if file.is_file():
            yield file


def test_a_folder_holds_at_most_ten_files_and_a_file_at_most_300_lines():
    for folder in [p for p in PACKAGE.rglob("*") if p.is_dir()]:
        files = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(files) <= 10, f"{folder.relative_to(PACKAGE)}: {len(files)} files"
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 300, f"{path.relative_to(PACKAGE)}: {lines} lines"


def test_a_class_name_occurs_once():
    import ast

    seen: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                place = str(path.relative_to(PACKAGE))
                assert node.name not in seen, f"class {node.name}: in {seen[node.name]} and in {place}"
                seen[node.name] = place


def test_no_stage_imports_the_entrance():
    import ast

    for path in PACKAGE.rglob("*.py"):
        module = "kvlab." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module in ENTRANCE or module.startswith(("kvlab.config.", "kvlab.dag.")) or path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("kvlab.config", "kvlab.arms", "kvlab.cli")
            ):
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
