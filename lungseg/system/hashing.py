"""Hashes of values and of code: they decide whether something stored may be used again."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = __name__.partition(".")[0]
CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # "package.module:Class"


def hash_of(value: Any) -> str:
    """Hash a value's canonical JSON: sha256, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_code(*roots: str | type) -> str:
    """Hash the code that modules reach: sha256, hex.

    A module counts with its name and its syntax tree, without docstrings, comments and positions: a reworded
    comment changes nothing, a changed number does.

    Args:
        roots: names of modules, or classes, which stand for their modules.
    """
    digest = hashlib.sha256()
    for name, file in reached_modules(*roots).items():
        digest.update(f"{name}\0{_syntax(file, _stamp(file))}\0".encode())
    return digest.hexdigest()


def reached_modules(*roots: str | type) -> dict[str, Path]:
    """Find the modules that the roots import, directly or not, and the roots themselves.

    An import counts wherever it stands, also within a function, and so does a text of the form
    "package.module:Class". The packages that hold a module are imported with it. Followed is what belongs
    to this package, and for a root outside it what lies in the same package or, unless that is installed
    among others, beside it.

    Returns:
        files by name, sorted by name.

    Raises:
        ModuleNotFoundError: a root has no source file.
    """
    names = [root if isinstance(root, str) else root.__module__ for root in roots]
    folders = {folder for name in (PACKAGE, *names) for folder in _homes(name)}
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        file = _file_of(name, folders)
        if file is None and name in names:
            raise ModuleNotFoundError(f"the module {name!r} has no source file")
        if file is None or name in found:
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imports(file, _stamp(file), package)
        waiting += _packages(name)
    return dict(sorted(found.items()))


def libraries(*roots: str | type) -> list[str]:
    """List the packages of others that the reached modules import, by the name one imports, sorted."""
    reached = reached_modules(*roots)
    own = {name.partition(".")[0] for name in reached}
    tops: set[str] = set()
    for name, file in reached.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        tops |= {found.partition(".")[0] for found in _imports(file, _stamp(file), package)}
    return sorted(tops - own - set(sys.stdlib_module_names))


def _homes(name: str) -> Iterator[tuple[Path, str | None]]:
    """Folders in which modules are looked for, each with the one top-level name that counts there, if any."""
    top = name.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or getattr(sys.modules.get(name), "__file__", None)
    places = getattr(sys.modules.get(top), "__path__", None)
    folder = Path(next(iter(places))).parent if places else Path(file).parent if file else None
    if folder is not None:
        installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
        yield folder.resolve(), top if top == PACKAGE or folder.resolve() in installed else None


def _file_of(name: str, homes: set[tuple[Path, str | None]]) -> Path | None:
    for folder, only in homes:
        if only not in (None, name.partition(".")[0]):
            continue
        place = folder.joinpath(*name.split("."))
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file
    return None


def _packages(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


def _stamp(file: Path) -> int:
    """Changes when the file does: what was read of it may then not be used again."""
    return file.stat().st_mtime_ns


@functools.cache
def _imports(file: Path, _changed: int, package: str) -> tuple[str, ...]:
    """Names that may be modules: what a file imports, and the modules of its texts that name classes."""
    names: list[str] = []
    for node in _nodes_that_run(_parse(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and CLASS_NAME.fullmatch(str(node.value)):
            names.append(node.value.partition(":")[0])
    return tuple(names)


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but what stands under `if TYPE_CHECKING` is for checkers alone."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


@functools.cache
def _syntax(file: Path, _changed: int) -> str:
    tree = _parse(file)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=file.name)
