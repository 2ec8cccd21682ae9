"""Hashes of values and of code, which decide whether a stored result may be used again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lungseg.system.errors import InputError
from lungseg.system.plugins import CLASS_NAME

PACKAGE = __name__.partition(".")[0]


def hash_value(value: Any) -> str:
    """Return the hash of a value's canonical JSON: sha256, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_code(*roots: str | type) -> str:
    """Return the hash of all code that modules import, directly or not: sha256, hex.

    Roots are names of modules, or classes, which stand for their modules. A module counts with its name and
    its syntax tree, without docstrings, descriptions of fields, comments and positions. So a reworded comment
    changes nothing, and a changed number changes the hash.
    """
    digest = hashlib.sha256()
    for name, file in find_reached_modules(*roots).items():
        digest.update(f"{name}\0{_syntax(file, _stamp(file))}\0".encode())
    return digest.hexdigest()


def find_reached_modules(*roots: str | type) -> dict[str, Path]:
    """Find the files of the roots and of all modules that they import, directly or not; sorted by module.

    Counted are all imports, also those within functions, calls of `import_module` with a text, and texts of
    the form "package.module:Class". The packages that hold a module count too. Modules of this package are
    followed. If a root lies outside it, so are the modules of the root's package and, unless the root is
    installed, the modules beside it. Raises InputError if a root has no source file.
    """
    names = [root if isinstance(root, str) else root.__module__ for root in roots]
    # In a fixed order, as two folders may hold a module of the same name.
    folders = list(dict.fromkeys(folder for name in (PACKAGE, *names) for folder in _homes(name)))
    found: dict[str, Path] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _file_of(name, folders) or (_script_of(name) if name in names else None)
        if file is None and name in names:
            raise InputError(
                f"the module {name!r} has no source file, so nothing shows whether its code changed: keep "
                "its .py file beside it"
            )
        if file is None:
            continue
        found[name] = file
        waiting += _imports(file, _stamp(file), name)
        words = name.split(".")
        waiting += [".".join(words[:count]) for count in range(1, len(words))]
    return dict(sorted(found.items()))


def find_libraries(*roots: str | type) -> list[str]:
    """List the third-party packages that the reached modules import, by their import names, sorted."""
    reached = find_reached_modules(*roots)
    own = {name.partition(".")[0] for name in reached}
    imported = (found for name, file in reached.items() for found in _imports(file, _stamp(file), name))
    return sorted({name.partition(".")[0] for name in imported} - own - set(sys.stdlib_module_names))


def is_installed(module: str) -> bool:
    """Return whether a module belongs to an installed package, so that its version stands for its code."""
    folder = _folder_of(module.partition(".")[0])
    return folder is None or folder in _installed()


def _homes(name: str) -> Iterator[tuple[Path, str | None]]:
    """Folders to search for modules, each with the only top-level name that counts there, or None."""
    top = name.partition(".")[0]
    folder = _folder_of(top)
    if folder is not None:
        yield folder, top if top == PACKAGE or folder in _installed() else None


def _folder_of(top: str) -> Path | None:
    """The folder that holds a top-level module or package."""
    module = sys.modules.get(top)
    found = importlib.util.find_spec(top) if module is None else getattr(module, "__spec__", None)
    places = list(found.submodule_search_locations or ()) if found else []
    file = places[0] if places else found.origin if found else getattr(module, "__file__", None)
    return Path(file).resolve().parent if file else None


def _installed() -> set[Path]:
    """Folders of installed packages: this environment's, the user's, and the system's if it is seen."""
    named = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    named += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return {Path(path).resolve() for path in named}


def _script_of(name: str) -> Path | None:
    """The file of a module that is no module of a folder, such as `__main__`."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


def _file_of(name: str, homes: list[tuple[Path, str | None]]) -> Path | None:
    for folder, only in homes:
        if only not in (None, name.partition(".")[0]):
            continue
        place = os.path.join(folder, *name.split("."))  # thousands: pathlib would take most of the time
        for file in (os.path.join(place, "__init__.py"), f"{place}.py"):
            if os.path.isfile(file):
                return Path(file)
    return None


def _stamp(file: Path) -> int:
    """The time of a file's last change: what was cached of an older file is not used."""
    return file.stat().st_mtime_ns


@functools.cache
def _imports(file: Path, _changed: int, module_name: str) -> tuple[str, ...]:
    """Names that may be modules: what a file imports, and the modules of its texts that name classes."""
    names: list[str] = []
    # A relative import of level 1 starts at the package: a module's name without its last word.
    words = module_name.split(".") + ([""] if file.name == "__init__.py" else [])
    for node in _nodes_that_run(_parse(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = words[: max(len(words) - node.level, 0)] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names += [text.value for text in node.args if isinstance(text, ast.Constant)]
        elif isinstance(node, ast.Constant) and CLASS_NAME.fullmatch(str(node.value)):
            names.append(node.value.partition(":")[0])
    return tuple(name for name in names if isinstance(name, str))


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those under `if TYPE_CHECKING`, which only type checkers read."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


@functools.cache
def _syntax(file: Path, _changed: int) -> str:
    return ast.dump(_WithoutTexts().visit(_parse(file)))


class _WithoutTexts(ast.NodeTransformer):
    """Drops each statement that is a text alone: a docstring, or the description of a field above it."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=file.name)
