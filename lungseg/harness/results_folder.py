"""A results directory is made ours, or refused if it holds something else."""

from __future__ import annotations

import shutil
from pathlib import Path

from lungseg.results import FILES, FORMAT
from lungseg.spec import Spec
from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, make_folder, read_json

FOLDERS = ("trials", "models", "predictions", "figures")


def claim(directory: Path, spec: Spec, fresh: bool) -> None:
    """Make a directory the results directory of a spec.

    Args:
        directory: made if it isn't there.
        spec: whose results it will hold, or holds already.
        fresh: what a former benchmark left there is removed.

    Raises:
        InputError: it holds something else, results of another benchmark or version, or can't be written.
    """
    try:
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory} is a file: choose a folder with --out")
        if (directory / "run.json").exists():
            _require_ours(directory, spec, fresh)
            if fresh:
                _clear(directory)
        elif directory.is_dir() and any(directory.iterdir()):
            raise InputError(
                f"{directory} is not empty and holds no benchmark: choose another folder with --out"
            )
    except OSError as error:
        raise explain_write_error(directory, error) from error
    make_folder(directory)


def _require_ours(directory: Path, spec: Spec, fresh: bool) -> None:
    found = read_json(directory / "run.json")
    written_in = found.get("format")
    if written_in not in range(1, FORMAT + 1):
        raise InputError(
            f"{directory / 'run.json'} is no benchmark's of this version: choose another folder with --out"
        )
    if written_in < FORMAT and not fresh:
        raise InputError(
            f"{directory} holds results of an older version: start over in it with --fresh, or choose "
            "another folder with --out"
        )
    if found.get("name") != spec.name and not fresh:
        raise InputError(
            f"{directory} holds results of {found.get('name')!r}, not of {spec.name!r}: choose another "
            "folder with --out, or start over in it with --fresh"
        )


def _clear(directory: Path) -> None:
    """Removes what a benchmark writes, and nothing else; run.json, which makes the folder ours, last."""
    for folder in FOLDERS:
        if (directory / folder).exists():
            shutil.rmtree(directory / folder)
    for file in reversed(FILES):
        (directory / file).unlink(missing_ok=True)
