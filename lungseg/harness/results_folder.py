"""A results directory is made ours and kept for one run, or refused if it holds something else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lungseg.harness.evaluate import RECORD as ROWS_RECORD
from lungseg.harness.fit import BEGUN, find_replaced_seconds
from lungseg.harness.fit import RECORD as FIT_RECORD
from lungseg.harness.trial import Trial
from lungseg.report.figures.all import list_figure_files
from lungseg.report.markup import format_duration
from lungseg.results import FILES, FORMAT
from lungseg.spec import Spec
from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, read_json, remove
from lungseg.system.lock import HOLDER, LOCK, hold_folder
from lungseg.system.stored import DamagedError, read_record

UNFINISHED = ".*.part"  # what a kill left of a file that was being written
FIRST_SEALED = 4  # FORMAT of the first version whose run.json has its own hash
# What a run writes in folders: of each trial in PLACES, and beside these.
PLACES = ("trials", "parts", "models", "predictions/maps")  # "parts" is a former version's
OTHERS = (
    *("trials/timings.json", "parts/timings.json"),
    *("predictions/images", "predictions/truth", "predictions/features", "predictions/images.json"),
)
PARENTS = (*(f"{place}{end}" for place in PLACES for end in ("/*", "")), "predictions")


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
            for path in directory.glob(UNFINISHED):
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
    found = [(trial.label, find_replaced_seconds(trial, directory)) for trial in trials]
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
    unfinished = set(directory.glob(UNFINISHED)) if directory.is_dir() else set()
    if not directory.is_dir() or all(
        path.name in (LOCK, HOLDER) or path in unfinished for path in directory.iterdir()
    ):
        return
    found = _read_run(directory / "run.json")
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


def _read_run(path: Path) -> dict[str, Any] | None:
    """A former run.json, also of a version that didn't seal it; None if it is missing or damaged."""
    try:
        return read_record(path)
    except DamagedError:
        pass
    with suppress(InputError):
        found = read_json(path)
        if found.get("format") in range(1, FIRST_SEALED):
            return found
    return None


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
    for pattern in (*(f"{place}/*/f*-s*" for place in PLACES), *OTHERS):
        for path in directory.glob(pattern):
            remove(path)
    remove_figures(directory)
    for pattern in PARENTS:
        for path in directory.glob(pattern):
            with suppress(OSError):  # something else is in it
                path.rmdir()
    for file in reversed(FILES):
        remove(directory / file)


def remove_figures(directory: Path) -> None:
    """Remove the figures of a report, and nothing else."""
    for name in list_figure_files():
        (directory / "figures" / name).unlink(missing_ok=True)
    with suppress(OSError):
        (directory / "figures").rmdir()
