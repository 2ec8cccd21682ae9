"""How a trial gets from a worker's own folder to the results directory, where they share none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from lungseg.harness.trial import Trial
from lungseg.system.files import explain_write_error, make_folder, remove, write_atomically
from lungseg.system.stored import Description, describe_files, find_damage

PLACE = "trials/.cluster"  # in a results directory: the token, the locks, and what is on its way
TOKEN = "token"
PART_BYTES = 8 << 20  # of a file, in one message


def show(directory: Path, token: str) -> None:
    """Write into a results directory what only those who share it can read."""
    write_atomically(directory / PLACE / TOKEN, token)


def sees(directory: Path, token: str) -> bool:
    """Tell whether a folder is the one where `show` has written the token."""
    try:
        return (directory / PLACE / TOKEN).read_text("utf-8") == token
    except (OSError, ValueError):
        return False


def clear(directory: Path) -> None:
    """Remove what only the cluster needs, when no worker writes any more."""
    shutil.rmtree(directory / PLACE, ignore_errors=True)


def find_lock(trial: Trial, directory: Path) -> Path:
    """Return the folder of a trial's lock. Its own is removed when a fit begins, with all that is in it."""
    place = trial.folder(Path())
    return directory / PLACE / f"{place.parent.name}-{place.name}"


def describe_trial(trial: Trial, root: Path) -> Description:
    """Describe the files of a trial that has a folder to itself."""
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    return describe_files(root, [name for name in names if _is_of(trial, PurePosixPath(name))])


def fetch_trial(
    trial: Trial, files: Description, read: Callable[[str, int, int], bytes], directory: Path
) -> None:
    """Copy a trial from where it was made, and put it in its place when all of it is here.

    Args:
        trial: that was run elsewhere.
        files: what it consists of, by path below a results directory.
        read: returns a part of such a file, by its path, the first byte and the most bytes.
        directory: of the results.

    Raises:
        ValueError: a path isn't one of this trial's files.
        OSError: a file can't be read, or isn't what it is described to be.
        UnwritableError: the directory can't be written.
    """
    for name in files:
        _require_place(trial, name)
    incoming = make_folder(find_lock(trial, directory) / "incoming", empty=True)
    for name, described in files.items():
        parts = (read(name, start, PART_BYTES) for start in range(0, described["bytes"], PART_BYTES))
        _write(incoming / name, parts)
    damage = find_damage(incoming, files)
    if damage:
        raise OSError(damage)
    try:
        _place(trial, incoming, directory)
    except OSError as error:
        raise explain_write_error(directory, error) from error


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Writes a file part by part, since a model needn't fit into memory."""
    make_folder(path.parent)
    with path.open("xb") as file:
        for part in parts:
            try:  # around writing alone: what can't be read is another machine's
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise explain_write_error(path, error) from error


def _place(trial: Trial, incoming: Path, directory: Path) -> None:
    """Moves a whole trial to its place. After a kill in between it is undone: its own folder comes last."""
    remove(trial.folder(directory))
    for place in (*_list_pictures(trial), *_list_folders(trial)):
        if (incoming / place).exists():
            remove(directory / place)
            make_folder((directory / place).parent)
            os.replace(incoming / place, directory / place)
    shutil.rmtree(incoming, ignore_errors=True)


def _list_folders(trial: Trial) -> list[Path]:
    """Folders of a trial below a results directory; its own comes last."""
    return [trial.model(Path()), trial.maps(Path()), trial.folder(Path())]


def _list_pictures(trial: Trial) -> list[Path]:
    return [Path("predictions", kind, f"{trial.entry.name}.npz") for kind in ("features", "stages")]


def _is_of(trial: Trial, path: PurePosixPath) -> bool:
    inside = any(PurePosixPath(folder.as_posix()) in path.parents for folder in _list_folders(trial))
    return inside or path in [PurePosixPath(picture.as_posix()) for picture in _list_pictures(trial)]


def _require_place(trial: Trial, name: str) -> None:
    """Raises ValueError for a path that would lead anywhere else."""
    path = PurePosixPath(name)
    if str(path) != name or ".." in path.parts or "\\" in name or ":" in name or not _is_of(trial, path):
        raise ValueError(f"{name!r} is no file of {trial.label}")
