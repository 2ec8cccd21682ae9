"""Find a spec by its path, or by the name under which it is shipped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import lungseg
from lungseg.system.errors import InputError
from lungseg.system.plugins import suggest


def find_spec(path: Path, datasets: Iterable[str] = ()) -> Path:
    """Return the path of a spec: the file if there is one, else the one that is shipped under that name.

    Raises InputError for a name that is neither. The message lists the shipped ones, after `datasets` where a
    dataset's name could stand too.
    """
    if len(path.parts) != 1 or path.suffix == ".toml" or os.path.isfile(path):
        return path  # `read_spec` says what is wrong with it
    shipped = {file.stem: file for file in sorted(_shipped_folder().glob("*.toml"))}
    if str(path) not in shipped:
        known = [*datasets, *shipped]
        listed = suggest(str(path), known, ": give the path of a TOML file, or")
        what = "dataset or spec" if datasets else "spec"
        raise InputError(f"there is no {what} {str(path)!r}{listed} one of {', '.join(known)}")
    return shipped[str(path)]


def _shipped_folder() -> Path:
    """The folder of specs: in the package if it is installed from a wheel, else beside it."""
    package = Path(lungseg.__file__).parent
    inside = package / "benchmarks"
    return inside if inside.is_dir() else package.parent / "benchmarks"
