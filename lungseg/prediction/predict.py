"""Predict the lungs in pictures: masks, overlays, cut-outs and a table, one batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg.data.files.dicom import find_spacing, is_dicom, read_header
from lungseg.data.files.images import read_image_and_colour, read_image_size
from lungseg.prediction.drawing import COLOURS, cut_out, draw_overlay, write_map, write_picture
from lungseg.prediction.measures import measure_mask, name_spacing
from lungseg.prediction.models import Model
from lungseg.prediction.pictures import TABLE, Picture
from lungseg.prediction.segmentation import NO_SEGMENTATION, write_segmentation
from lungseg.scoring.overlap import binarise, confusion, overlap
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.files import make_folder, write_atomically, write_grey
from lungseg.system.lock import hold_folder
from lungseg.system.machine import count_usable_cores

COLUMNS = [
    *("file", "name", "model", "width", "height", "right_px", "left_px", "lungs_px"),
    *("spacing_mm", "right_cm2", "left_cm2", "lungs_cm2", "threshold", "dice_between_models"),
    *("warnings", "picture_sha256", "model_sha256"),
]
FOLDERS = ("masks", "cutouts", "overlays", "maps", "segmentations")
BATCH, BATCH_AREA = 8, 32_000_000  # pictures and pixels that are in memory at once, but at least one picture
SHOWN = 5  # warnings

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wishes:
    """What is to be made of each picture.

    Attributes:
        out: the folder that masks, overlays and the table go to.
        maps: whether the probability maps are written too.
        spacing_mm: distance of pixels in mm, for areas in cm2; None for what DICOM files say.
        dicom_seg: whether masks of DICOM files are written as DICOM SEG, too.
    """

    out: Path
    maps: bool = False
    spacing_mm: float | None = None
    dicom_seg: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of the pictures: rows of the table, those done before, and sentences on what failed."""

    rows: list[dict[str, Any]]
    done_before: int
    failures: list[str]

    def list_sentences(self, models: Sequence[Model], out: Path) -> Iterator[str]:
        """Say what was done, with what, and what to look at, a sentence each."""
        count = len({row["name"] for row in self.rows})
        before = f", {self.done_before} of them by a former run" if self.done_before else ""
        yield f"{count} picture(s) in {out}{before}: masks, cut-outs, overlays and {TABLE}"
        for model, colour in zip(models, COLOURS, strict=False):
            shown = f", {colour} outline" if len(models) > 1 else ""
            yield f"model {model.name}{shown}: {model.describe()}"
        warned = [f"{row['file']}: {row['warnings']}" for row in self.rows if row["warnings"]]
        yield from (f"to be looked at: {text}" for text in warned[:SHOWN])
        if len(warned) > SHOWN:
            yield f"to be looked at: {len(warned) - SHOWN} more, in the column warnings"
        yield from (f"failed: {text}" for text in self.failures)


@dataclass(frozen=True)
class _Read:
    """A picture that was read, or its rows if it was done before, or the sentence that says what is wrong."""

    picture: Picture
    image: np.ndarray | None = None
    sha256: str = ""
    colourful: bool = False
    spacing: tuple[float, float] | None = None  # (vertical, horizontal), in mm
    mirrored: bool = False
    warnings: tuple[str, ...] = ()  # by its tags
    rows: list[dict[str, Any]] | None = None
    failure: str | None = None


def predict_pictures(
    models: Sequence[Model], pictures: Sequence[Picture], wishes: Wishes, progress: Progress
) -> Outcome:
    """Predict all pictures and write what `wishes` says; go on from what a former run has done.

    A picture that can't be read is a failure, and the others go on. The table has a row for each picture and
    model. It is written after each batch, and keeps its rows of other pictures.

    Args:
        models: one or two, of different names. Of two, masks are in folders of the models' names.
        pictures: as `find_pictures` lists them.
        wishes: what to make, and where.
        progress: called with (done, total, text).

    Raises:
        InputError: `out` can't be written, holds other files where masks would go, or another process writes
            there.
    """
    make_folder(wishes.out)
    _require_ours(wishes.out)
    with hold_folder(wishes.out):
        return _Run(models, wishes).predict(pictures, progress)


def _require_ours(out: Path) -> None:
    """Require that the folder holds nothing that could be overwritten but what was predicted before."""
    if _read_header(out / TABLE) == COLUMNS:
        return
    for name in (*FOLDERS, TABLE):
        if (out / name).exists():
            raise InputError(f"{out / name} is there and isn't of a former prediction: choose another --out")


def _read_header(path: Path) -> list[str]:
    with suppress(OSError, ValueError):
        return list(pd.read_csv(path, nrows=0).columns)
    return []


def list_outputs(models: Sequence[Model], picture: Picture, wishes: Wishes) -> dict[str, Path]:
    """Return the paths of all that is made of a picture, by what it is, such as "mask of starter"."""
    name = picture.name
    found = {"overlay": wishes.out / "overlays" / f"{name}.png"}
    segmented = wishes.dicom_seg and is_dicom(picture.file)
    for model in models:
        kinds = {"mask": "masks", "cutout": "cutouts", **({"map": "maps"} if wishes.maps else {})}
        for kind, folder in kinds.items():
            place = wishes.out / folder / (model.name if len(models) > 1 else "")
            found[f"{kind} of {model.name}"] = place / f"{name}.png"
        if segmented:
            place = wishes.out / "segmentations" / (model.name if len(models) > 1 else "")
            found[f"segmentation of {model.name}"] = place / f"{name}.dcm"
    return found


class _Run:
    """One call of `predict_pictures`."""

    def __init__(self, models: Sequence[Model], wishes: Wishes) -> None:
        self.models, self.wishes = models, wishes
        self.known = _read_table(wishes.out / TABLE)
        self.rows: dict[str, list[dict[str, Any]]] = {}  # of each picture, by its name
        self.failures: list[str] = []
        self.done_before = 0

    def predict(self, pictures: Sequence[Picture], progress: Progress) -> Outcome:
        # Reading and writing take the time in which the device, or the other core, predicts.
        with ThreadPoolExecutor(max(2, count_usable_cores())) as pool:
            done, writing = 0, []
            for group in self._read_ahead(pool, pictures):
                ready = [read for read in group if read.image is not None]
                made = self._predict(ready) if ready else []
                for future in writing:
                    self._keep(future.result())
                self._forget(read for read, _ in made)
                self._write_table()  # before a mask is replaced, so that no row is of another mask
                writing = [pool.submit(self._write, read, maps) for read, maps in made]
                done += len(group)
                progress(done, len(pictures), group[-1].picture.name)
            for future in writing:
                self._keep(future.result())
            self._write_table()
        rows = [row for rows in self.rows.values() for row in rows]
        return Outcome(rows, self.done_before, self.failures)

    def _read_ahead(self, pool: ThreadPoolExecutor, pictures: Sequence[Picture]) -> Iterator[list[_Read]]:
        """Groups of pictures that were read; the next one is being read while one is predicted."""
        waiting: list[Future] = []
        for group in _group(pictures):
            following = [pool.submit(self._read, picture) for picture in group]
            if waiting:
                yield self._take(waiting)
            waiting = following
        if waiting:
            yield self._take(waiting)

    def _take(self, waiting: Sequence[Future]) -> list[_Read]:
        found = [future.result() for future in waiting]
        for read in found:
            if read.failure is not None:
                self.failures.append(read.failure)
                self._forget([read])
            elif read.rows is not None:
                self.done_before += 1
                self._keep(read.rows)
        return found

    def _forget(self, reads: Iterable[_Read]) -> None:
        for read in reads:
            self.known.pop(read.picture.name, None)

    def _read(self, picture: Picture) -> _Read:
        try:
            sha256 = hashlib.sha256(picture.file.read_bytes()).hexdigest()
            tagged = self._read_tags(picture)
            if (rows := self._find_done(picture, sha256, tagged.spacing)) is not None:
                return _Read(picture, rows=rows)
            image, colourful = read_image_and_colour(picture.file)
        except InputError as error:
            return _Read(picture, failure=str(error))
        except OSError as error:
            return _Read(
                picture, failure=f"{picture.file} can't be read ({error.strerror}): check its rights"
            )
        except MemoryError:
            return _Read(picture, failure=f"{picture.file} doesn't fit into memory: shrink it first")
        return replace(tagged, image=image, sha256=sha256, colourful=colourful)

    def _read_tags(self, picture: Picture) -> _Read:
        """What is known of a picture before it is read."""
        given = self.wishes.spacing_mm
        spacing = None if given is None else (given, given)
        if not is_dicom(picture.file):
            return _Read(picture, spacing=spacing)
        header = read_header(picture.file)
        warnings = list(header.cautions)
        try:
            spacing = spacing or find_spacing(header, picture.file)
        except InputError:
            warnings.append("has a pixel spacing that can't be true, so no areas: give --spacing-mm")
        return _Read(picture, spacing=spacing, mirrored=header.mirrored, warnings=tuple(warnings))

    def _find_done(
        self, picture: Picture, sha256: str, spacing: tuple[float, float] | None
    ) -> list[dict[str, Any]] | None:
        """The rows of a former run of the same picture, models and wishes, if its files are there."""
        rows = self.known.get(picture.name, [])
        wanted = [(model.name, model.sha256) for model in self.models]
        if [(row["model"], row["model_sha256"]) for row in rows] != wanted:
            return None
        if any((row["picture_sha256"], row["spacing_mm"]) != (sha256, name_spacing(spacing)) for row in rows):
            return None
        # One that could have no segmentation has none; without the wish the row must not speak of it.
        lacking = any(NO_SEGMENTATION in row["warnings"] for row in rows)
        if lacking and not self.wishes.dicom_seg:
            return None
        paths = list_outputs(
            self.models, picture, replace(self.wishes, dicom_seg=self.wishes.dicom_seg and not lacking)
        )
        return rows if all(path.is_file() for path in paths.values()) else None

    def _predict(self, ready: Sequence[_Read]) -> list[tuple[_Read, list[np.ndarray]]]:
        """Each picture with its maps, one for each model; without one that doesn't fit into memory."""
        images = [read.image for read in ready]
        try:
            by_model = [model.predict_all(images) for model in self.models]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(ready) > 1:
                return [pair for read in ready for pair in self._predict([read])]
            self.failures.append(f"{ready[0].picture.file} doesn't fit into memory: shrink it first")
            self._forget(ready)
            return []
        return [(read, list(maps)) for read, *maps in zip(ready, *by_model, strict=True)]

    def _write(self, read: _Read, maps: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Write all that is made of a picture, and return its rows."""
        masks = {
            model.name: binarise(each, model.threshold) for model, each in zip(self.models, maps, strict=True)
        }
        paths = list_outputs(self.models, read.picture, replace(self.wishes, maps=True, dicom_seg=True))
        known = [*read.warnings, *(["a picture in colour, and no X-ray"] if read.colourful else [])]
        warnings = {name: list(known) for name in masks}
        for (name, mask), probability in zip(masks.items(), maps, strict=True):
            write_grey(paths[f"mask of {name}"], mask)
            write_picture(paths[f"cutout of {name}"], cut_out(read.image, mask))
            if self.wishes.maps:
                write_map(paths[f"map of {name}"], probability)
            else:  # one of a former model must not be taken for this one's
                paths[f"map of {name}"].unlink(missing_ok=True)
        for model in self.models:
            path = paths.get(f"segmentation of {model.name}")
            if path and self.wishes.dicom_seg:
                told = write_segmentation(path, read.picture.file, masks[model.name], model, read.sha256)
                warnings[model.name] += [told] if told else []
            elif path:
                path.unlink(missing_ok=True)
        write_picture(paths["overlay"], draw_overlay(read.image, masks))
        between = _compare(*masks.values()) if len(masks) > 1 else ""
        return [
            {
                "file": str(read.picture.file),
                "name": read.picture.name,
                "model": model.name,
                "spacing_mm": name_spacing(read.spacing),
                "threshold": model.threshold,
                "dice_between_models": between,
                "picture_sha256": read.sha256,
                "model_sha256": model.sha256,
                **measure_mask(masks[model.name], read.spacing, read.mirrored, warnings[model.name]),
            }
            for model in self.models
        ]

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        self.rows[rows[0]["name"]] = rows

    def _write_table(self) -> None:
        rows = [row for rows in (self.known | self.rows).values() for row in rows]
        frame = pd.DataFrame(rows, columns=COLUMNS)
        write_atomically(self.wishes.out / TABLE, frame.to_csv(index=False, lineterminator="\n"))


def _group(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    """Pictures in groups that fit into memory, by what their headers say."""
    group: list[Picture] = []
    area = 0
    for picture in pictures:
        height = width = 0
        with suppress(InputError):  # told when it is read
            height, width = read_image_size(picture.file)
        if group and (len(group) == BATCH or area + height * width > BATCH_AREA):
            yield group
            group, area = [], 0
        group.append(picture)
        area += height * width
    if group:
        yield group


def _compare(first: np.ndarray, second: np.ndarray) -> str:
    """The Dice of two masks with one another."""
    return f"{overlap(**confusion(first, second))['dice']:.6f}"


def _read_table(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a former run by name; {} if there is none, or it isn't such a table."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with suppress(OSError, ValueError):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(frame.columns) == COLUMNS:
            for row in frame.to_dict("records"):
                rows.setdefault(row["name"], []).append(row)
    return rows
