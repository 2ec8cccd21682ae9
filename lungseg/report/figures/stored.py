"""The pictures that a run stored for the figures: X-rays, true masks, maps of approaches, features."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from lungseg.report.contents import Contents
from lungseg.system.errors import InputError

LONGEST = 512  # pixels: more can't be seen in a tile of a figure


@dataclass(frozen=True)
class Prediction:
    """A stored map and the row of scores.csv that belongs to it.

    Attributes:
        mask: bool h x w, the map at or above its threshold.
        dice: of the full-size mask, as scored for this fold and seed.
    """

    mask: np.ndarray
    dice: float


def image_ids(contents: Contents) -> list[str]:
    """The scored images that are stored with their truth, sorted by id."""
    folder = contents.directory / "predictions"
    images = {path.stem for path in (folder / "images").glob("*.png")}
    truths = {path.stem for path in (folder / "truth").glob("*.png")}
    return sorted(images & truths & set(contents.scores["image_id"]))


def read_image(contents: Contents, image_id: str) -> np.ndarray:
    """float32 [0, 1] h x w, shrunk to at most LONGEST pixels a side."""
    return _read(_path(contents, "images", image_id))


def read_truth(contents: Contents, image_id: str, shape: tuple[int, int]) -> np.ndarray:
    """The true mask, bool h x w of the given shape."""
    return _read(_path(contents, "truth", image_id), shape) >= 0.5


def read_prediction(
    contents: Contents, name: str, image_id: str, shape: tuple[int, int]
) -> Prediction | None:
    """What the approach made of the image, in the first fold and seed stored; None if it isn't stored."""
    found = sorted(
        (contents.directory / "predictions" / "maps" / name).glob(f"f*-s*/{_escaped(image_id)}.png")
    )
    scores = contents.scores
    rows = scores[(scores["approach"] == name) & (scores["image_id"] == image_id)]
    for path in found:
        part = re.fullmatch(r"f(\d+)-s(\d+)", path.parent.name)
        scored = rows[(rows["fold"] == int(part[1])) & (rows["seed"] == int(part[2]))] if part else rows[:0]
        if not scored.empty:  # maps of a fold or seed that is no longer in the spec have no row
            row = scored.iloc[0]
            return Prediction(_read(path, shape) >= row["threshold"], float(row["dice"]))
    return None


def read_features(contents: Contents) -> tuple[str, str, np.ndarray] | None:
    """The feature maps with the most pixels: approach, image id, float32 C x h x w; None without any."""
    best = None
    for name in contents.names:
        path = contents.directory / "predictions" / "features" / f"{name}.npz"
        if not path.exists():
            continue
        try:
            with np.load(path, allow_pickle=False) as stored:
                maps, image_id = stored["maps"].astype(np.float32), str(stored["image_id"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{path} can't be read ({error}): run the benchmark again") from None
        if maps.ndim == 3 and maps.size and (best is None or maps[0].size > best[2][0].size):
            best = name, image_id, maps
    return best


def _path(contents: Contents, kind: str, image_id: str) -> Path:
    return contents.directory / "predictions" / kind / f"{image_id}.png"


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)


def _read(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except OSError as error:  # also what Pillow raises for a file that is no image, or a truncated one
        raise InputError(f"{path} can't be read ({error}): run the benchmark again") from None
    if shape is None:
        scale = min(1.0, LONGEST / max(grey.size))
        shape = (max(1, round(grey.height * scale)), max(1, round(grey.width * scale)))
    if shape != (grey.height, grey.width):
        grey = grey.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32) / 255
