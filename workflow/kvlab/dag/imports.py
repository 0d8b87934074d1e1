"""Which files of the package a module depends on, read from its import statements without running it.

Imports inside functions count (a stage imports engines late); those under `if TYPE_CHECKING:` do not. The command
line and the configuration are never part of it: settings reach a stage as its section, which is its rule's `params`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ENTRANCE = {
    "kvlab",
    *(f"kvlab.{name}" for name in ("__main__", "arms", "cli", "commands", "config", "dag", "measuring", "predicting")),
}


def closure(package: Path, modules: Iterable[str]) -> list[Path]:
    """Files of `modules` ("measure.run" …, names within the package) and of all they import, sorted.

    Raises ValueError for a module that does not exist.
    """
    waiting, seen = [f"{package.name}.{name}" for name in modules], dict[str, Path]()
    while waiting:
        name = waiting.pop()
        if name in seen or _at_entrance(name):
            continue
        path = _file(package, name)
        if path is None:
            raise ValueError(f"no module {name} in {package}")
        seen[name] = path
        here = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [found for found in imports(path.read_text(encoding="utf-8"), here) if _file(package, found)]
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return sorted(set(seen.values()))


def digest_of(package: Path, modules: Iterable[str]) -> str:
    """sha256 of the code that `modules` depend on."""
    found = hashlib.sha256()
    for path in closure(package, modules):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def _at_entrance(name: str) -> bool:
    return name in ENTRANCE or name.startswith(("kvlab.config.", "kvlab.dag."))


def _file(package: Path, name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    base = package.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache  # Snakemake asks once for each job, mostly about the same files
def imports(source: str, here: str) -> list[str]:
    """What a module of the package `here` imports by its text, without repetition."""
    return list(dict.fromkeys(_found(ast.parse(source), here)))


def _found(tree: ast.Module, here: str) -> Iterator[str]:
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here.rsplit(".", node.level - 1)[0] if node.level > 1 else here
            source = ".".join(filter(None, [base if node.level else "", node.module or ""]))
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _statements(block: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All statements of a block, those within others too; expressions, which hold no import, are not entered."""
    for node in block:
        yield node
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            if not (typing_only and name == "body"):
                yield from _statements(getattr(node, name, ()))
