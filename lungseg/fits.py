"""Fits one approach on one fold with one seed and stores it, so that it can be scored as often as need be."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lungseg.approaches.approach import Approach, Run
from lungseg.environment import PeakMemory
from lungseg.ranks import ask_for_help
from lungseg.results import write_table
from lungseg.scoring.overlap import image_dice, mean_dice
from lungseg.storage import make_folder, read_json, write_json

if TYPE_CHECKING:
    from lungseg.parts import Part

Progress = Callable[[int, int, str], None]
BEGUN, RECORD = "begun.json", "fit.json"


def is_fitted(part: Part, directory: Path) -> bool:
    """Whether the part's fitted approach is stored under its fit key."""
    record = part.folder(directory) / RECORD
    return record.exists() and read_json(record)["key"] == part.fit_key and part.model(directory).is_dir()


def fit(part: Part, directory: Path, progress: Progress) -> None:
    """Fits a part and stores its model and its tables; goes on from its checkpoint.

    The tables: history.csv, training.csv and importance.csv.

    Raises whatever the approach does; what was stored of other parts stays.
    """
    folder = _prepare_folder(part, directory)
    started = datetime.now(UTC)
    approach = part.kind(part.settings, part.runtime)
    fitted, history = _fit(part, approach, folder, progress)
    approach.save(make_folder(part.model(directory), empty=True))
    write_table(folder / "history.csv", "history", history)
    write_table(folder / "training.csv", "training", [fitted])
    write_table(folder / "importance.csv", "importance", _importance(part, approach))
    record = {
        "key": part.fit_key,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(fitted["seconds"], 1),
    }
    write_json(folder / RECORD, record)  # last: it is what makes the fit done


def drop_checkpoints(part: Part, directory: Path) -> None:
    """Removes what a fit that is stored went on from."""
    shutil.rmtree(part.folder(directory) / "checkpoints", ignore_errors=True)


def goes_on(part: Part, directory: Path) -> bool:
    """Whether a former run has stored some of this fit, or all of it."""
    folder = part.folder(directory)
    stored = _is_begun(part, folder) and any(
        file.suffix != ".part" for file in (folder / "checkpoints").glob("*")
    )
    return stored or is_fitted(part, directory)


def _is_begun(part: Part, folder: Path) -> bool:
    begun = folder / BEGUN
    return begun.exists() and read_json(begun).get("key") == part.fit_key


def _prepare_folder(part: Part, directory: Path) -> Path:
    """The part's folder, emptied unless it holds checkpoints of the same fit."""
    folder = part.folder(directory)
    if not _is_begun(part, folder):
        make_folder(folder, empty=True)
        write_json(folder / BEGUN, {"key": part.fit_key})
    make_folder(folder / "checkpoints")
    (folder / RECORD).unlink(missing_ok=True)  # not done until it is written again
    return folder


def _importance(part: Part, approach: Approach) -> list[dict[str, Any]]:
    key = {"approach": part.approach.name, "fold": part.fold, "seed": part.seed}
    return [
        {**key, "stage": stage, "column": column, "share": round(share, 6)}
        for stage, column, share in approach.importance()
    ]


def help_fit(part: Part, directory: Path) -> None:
    """Fits together with the first process, which alone reports and stores; see `ranks`."""
    checkpoints = part.folder(directory) / "checkpoints"
    run = Run(part.seed, checkpoints, lambda **_: None, lambda *_: None, **_scoring(part))
    part.kind(part.settings, part.runtime).fit(part.train, part.validation, run)


class _Masks:
    """The validation masks of a fit, decoded when they are first asked for and then kept, a bit a pixel."""

    def __init__(self, part: Part) -> None:
        self._samples = part.validation
        self._packed: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def __call__(self, index: int) -> np.ndarray:
        if index not in self._packed:
            mask = self._samples[index].mask()
            self._packed[index] = mask.shape, np.packbits(mask)
        shape, bits = self._packed[index]
        return np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape)


def _scoring(part: Part) -> dict[str, Callable]:
    mask, everyone = _Masks(part), range(len(part.validation))
    return {
        "score": lambda maps: mean_dice(maps, map(mask, everyone)),
        "scores": lambda maps, chosen: image_dice(maps, map(mask, chosen)),
    }


def _fit(
    part: Part, approach: Approach, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    key = {"approach": part.approach.name, "fold": part.fold, "seed": part.seed}
    history: list[dict[str, Any]] = []
    run = Run(
        seed=part.seed,
        checkpoints=folder / "checkpoints",
        history=lambda **row: history.append({**key, **row}),
        progress=progress,
        **_scoring(part),
    )
    if part.kind.many_processes:
        ask_for_help(part.label)
    start = time.perf_counter()
    with PeakMemory(part.runtime.device) as peak:
        fitted = approach.fit(part.train, part.validation, run)
    seconds = time.perf_counter() - start + fitted.seconds_before
    row = {**key, "seconds": seconds, "items_per_s": fitted.items / seconds, "peak_memory_mib": peak.mib}
    return {**row, **asdict(fitted)}, history
