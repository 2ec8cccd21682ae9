"""A results directory is made ours and kept for one run, or refused if it holds something else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lungseg.harness.evaluate import RECORD as ROWS_RECORD
from lungseg.harness.fit import BEGUN, find_replaced_seconds
from lungseg.harness.fit import RECORD as FIT_RECORD
from lungseg.harness.trial import Trial
from lungseg.report.figures.all import list_figure_files
from lungseg.report.markup import format_duration
from lungseg.results import FILES, FORMAT, read_any_run
from lungseg.spec import Spec
from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, remove
from lungseg.system.lock import HOLDER, LOCK, hold_folder
from lungseg.system.stored import DamagedError, read_record

# What a kill left of a file that was being written.
UNFINISHED = re.compile(rf"\.({'|'.join(map(re.escape, (*FILES, LOCK, HOLDER)))})\.[0-9a-f]{{8}}\.part")
# What a run writes in folders: of each trial in PLACES, and beside these.
PLACES = ("trials", "parts", "models", "predictions/maps")  # "parts" is a former version's
OTHERS = (
    *("trials/timings.json", "trials/timings", "parts/timings.json", "trials/.cluster"),
    *("predictions/images", "predictions/truth", "predictions/features", "predictions/stages"),
    "predictions/images.json",
)
OF_A_TRIAL = re.compile(r"f\d+-s\d+")


@contextmanager
def claim(directory: Path, spec: Spec, fresh: bool) -> Iterator[None]:
    """Make a directory the results directory of a spec, and keep other runs out during the `with` block.

    Args:
        directory: made if it isn't there.
        spec: whose results it will hold, or holds already.
        fresh: what a former benchmark left there is removed.

    Raises:
        InputError: it holds something else, results of another benchmark or version, or can't be written;
            or another run is writing there.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: choose a folder with --out")
    try:
        _require_ours(directory, spec, fresh)
    except OSError as error:
        raise explain_write_error(directory, error) from error
    with hold_folder(directory):
        try:
            for path in directory.iterdir():
                if UNFINISHED.fullmatch(path.name) and path.is_file():
                    path.unlink()
            if fresh:
                _clear(directory)
        except OSError as error:
            raise explain_write_error(directory, error) from error
        yield


def require_nothing_replaced(trials: Sequence[Trial], directory: Path) -> None:
    """Require that no fit that is stored in a directory would be replaced by one of other settings or code.

    Raises:
        InputError: it names the rows, and how long each took.
    """
    fitted = [trial for trial in trials if not trial.entry.approach_class.given]
    found = [(trial.label, find_replaced_seconds(trial, directory)) for trial in fitted]
    replaced = [
        f"{label} ({'begun' if math.isnan(seconds) else format_duration(seconds)})"
        for label, seconds in found
        if seconds is not None
    ]
    if replaced:
        more = f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
        raise InputError(
            f"{directory} holds fits of other settings, data, code or versions than this run's: "
            f"{'; '.join(replaced[:5])}{more}. This run would replace them. To keep them choose another "
            "folder with --out; to lose them start over with --fresh"
        )


def _require_ours(directory: Path, spec: Spec, fresh: bool) -> None:
    if not directory.is_dir() or all(
        path.name in (LOCK, HOLDER) or UNFINISHED.fullmatch(path.name) for path in directory.iterdir()
    ):
        return
    try:
        found = read_any_run(directory / "run.json")
    except DamagedError:
        found = None
    if found is None:
        # A kill at the start, or somebody, may have damaged or removed it. The trials have their own keys.
        if not _has_trials(directory):
            raise InputError(
                f"{directory} is not empty and holds no benchmark: choose another folder with --out"
            )
    elif found.get("format") != FORMAT and not fresh:
        raise InputError(
            f"{directory} holds results of another version: start over in it with --fresh, or choose another "
            "folder with --out"
        )
    elif found.get("name") != spec.name and not fresh:
        raise InputError(
            f"{directory} holds results of {found.get('name')!r}, not of {spec.name!r}: choose another "
            "folder with --out, or start over in it with --fresh"
        )


def _has_trials(directory: Path) -> bool:
    """Whether any trial of a benchmark is stored, as its sealed records show."""
    for name in (FIT_RECORD, BEGUN, ROWS_RECORD):
        for path in directory.glob(f"trials/*/f*-s*/{name}"):
            with suppress(DamagedError):
                if read_record(path) is not None:
                    return True
    return False


def _clear(directory: Path) -> None:
    """Removes what a benchmark writes, and nothing else; run.json, which makes the folder ours, last."""
    for place in PLACES:
        for named in _list_folder(directory / place):
            for path in _list_folder(named):
                if OF_A_TRIAL.fullmatch(path.name):
                    remove(path)
            _remove_empty(named)
    for place in OTHERS:
        if _is_below(directory / place, directory):
            remove(directory / place)
    for place in (*PLACES, "predictions"):
        _remove_empty(directory / place)
    remove_figures(directory)
    for file in reversed(FILES):
        remove(directory / file)


def remove_figures(directory: Path) -> None:
    """Remove the figures of a report, and nothing else; a link in the place of their folder too."""
    folder = directory / "figures"
    if folder.is_symlink():
        folder.unlink()
    for name in list_figure_files():
        remove(folder / name)
    _remove_empty(folder)


def _list_folder(folder: Path) -> list[Path]:
    """What is in a folder. A link in its place is removed and not followed."""
    if folder.is_symlink():
        folder.unlink()
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_below(path: Path, directory: Path) -> bool:
    """Whether a path is reached without a link on the way."""
    return path.parent.resolve() == directory.resolve() / path.parent.relative_to(directory)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it isn't there, is a link, or something else is in it
        folder.rmdir()
