"""Read the pictures that a run stored for the figures: X-rays, true masks, probability maps, features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from lungseg.report.contents import Contents
from lungseg.system.errors import InputError
from lungseg.system.stored import find_damage

LONGEST = 512  # pixels a side; more can't be seen in a tile of a figure


@dataclass(frozen=True)
class Prediction:
    """A stored probability map and its row of scores.csv."""

    mask: np.ndarray  # bool h x w, where the map is at or above its threshold
    dice: float  # of the full-size mask, as scored for this fold and seed


def find_image_ids(contents: Contents) -> list[str]:
    """Return the ids of scored images that are stored with their true masks, sorted."""
    stored = contents.pictures
    return sorted(
        name
        for name in set(contents.scores["image_id"])
        if f"images/{name}.png" in stored and f"truth/{name}.png" in stored
    )


def read_image(contents: Contents, image_id: str) -> np.ndarray:
    """Read an image: float32 [0, 1] h x w, shrunk to at most LONGEST pixels a side."""
    return _read(contents, contents.directory / "predictions" / "images" / f"{image_id}.png")


def read_truth(contents: Contents, image_id: str, shape: tuple[int, int]) -> np.ndarray:
    """Read the true mask: bool h x w of the given shape."""
    return _read(contents, contents.directory / "predictions" / "truth" / f"{image_id}.png", shape) >= 0.5


def read_prediction(
    contents: Contents, name: str, image_id: str, shape: tuple[int, int]
) -> Prediction | None:
    """Read the prediction for an image by the first stored fold and seed; None if none is stored."""
    scores = contents.scores
    rows = scores[(scores["approach"] == name) & (scores["image_id"] == image_id)]
    for row in rows.sort_values(["fold", "seed"]).to_dict("records"):
        place = f"maps/{contents.file_names[name]}/f{row['fold']}-s{row['seed']}/{image_id}.png"
        if place in contents.pictures:
            path = contents.directory / "predictions" / place
            return Prediction(_read(contents, path, shape) >= row["threshold"], float(row["dice"]))
    return None


def read_features(contents: Contents) -> tuple[str, str, np.ndarray] | None:
    """Read the feature maps with the most pixels: approach, image id, float32 C x h x w; None without any."""
    best = None
    for name in contents.names:
        place = f"features/{contents.file_names[name]}.npz"
        path = contents.directory / "predictions" / place
        if place not in contents.pictures:
            continue
        _require_stored(contents, path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                maps, image_id = stored["maps"].astype(np.float32), str(stored["image_id"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{path} can't be read ({error}): run the benchmark again") from None
        if maps.ndim == 3 and maps.size and (best is None or maps[0].size > best[2][0].size):
            best = name, image_id, maps
    return best


def _require_stored(contents: Contents, path: Path) -> None:
    """Raise InputError if a picture below `predictions` isn't the one that the run stored."""
    folder = contents.directory / "predictions"
    name = path.relative_to(folder).as_posix()
    if damage := find_damage(folder, {name: contents.pictures[name]}):
        raise InputError(f"{damage}: run the benchmark again")


def _read(contents: Contents, path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    _require_stored(contents, path)
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
