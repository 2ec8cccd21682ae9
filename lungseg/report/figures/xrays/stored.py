"""Read the pictures that a run stored for the figures: X-rays, true masks, maps, features."""

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


@dataclass(frozen=True)
class StageMaps:
    """The maps after each stage of an approach, of one image."""

    name: str  # of the approach
    image_id: str
    titles: list[str]  # what made each map
    maps: list[np.ndarray]  # float32 h x w in [0, 1], each at its own size
    dice: np.ndarray  # of each map, enlarged to the mask's size and thresholded


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


def read_size(contents: Contents, image_id: str) -> tuple[int, int]:
    """Read the (height, width) of an image in pixels, before it is shrunk for a figure."""
    return _open(contents, contents.directory / "predictions" / "images" / f"{image_id}.png").size[::-1]


def read_lung_shares(contents: Contents, image_id: str, shape: tuple[int, int]) -> np.ndarray:
    """Read the share of lung in each cell of a grid over the true mask: float32 h x w in [0, 1]."""
    grey = _open(contents, contents.directory / "predictions" / "truth" / f"{image_id}.png")
    mask = np.asarray(grey, np.float64) >= 127.5
    return _average_cells(_average_cells(mask, shape[0]).T, shape[1]).T.astype(np.float32)


def _average_cells(values: np.ndarray, count: int) -> np.ndarray:
    """Average rows H x W to `count` x W; a row that lies in two cells counts to each by its share."""
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, 0, dtype=np.float64)])
    edges = np.linspace(0, len(values), count + 1)
    below = np.minimum(edges.astype(int), len(values) - 1)
    at_edges = sums[below] + (edges - below)[:, None] * (sums[below + 1] - sums[below])
    return np.diff(at_edges, axis=0) * count / len(values)


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
        found = read_features_of(contents, name)
        if found is not None and (best is None or found[1][0].size > best[2][0].size):
            best = name, *found
    return best


def read_features_of(contents: Contents, name: str) -> tuple[str, np.ndarray] | None:
    """Read the feature maps of an approach: image id, float32 C x h x w; None if none are stored."""
    stored = _read_arrays(contents, f"features/{contents.file_names[name]}.npz")
    if stored is None or stored["maps"].ndim != 3 or not stored["maps"].size:
        return None
    return str(stored["image_id"]), stored["maps"].astype(np.float32)


def read_stage_maps(contents: Contents) -> StageMaps | None:
    """Read the maps after each stage of the best approach that has them; None if none are stored."""
    for name in contents.sort_names(contents.names):
        stored = _read_arrays(contents, f"stages/{contents.file_names[name]}.npz")
        if stored is not None:
            titles = [str(title) for title in stored["titles"]]
            maps = [stored[f"map_{index}"].astype(np.float32) for index in range(len(titles))]
            return StageMaps(name, str(stored["image_id"]), titles, maps, stored["dice"])
    return None


def _read_arrays(contents: Contents, place: str) -> dict[str, np.ndarray] | None:
    """Read the arrays of a file below `predictions`; None if the run stored no such file."""
    if place not in contents.pictures:
        return None
    path = contents.directory / "predictions" / place
    _require_stored(contents, path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        raise InputError(f"{path} can't be read ({error}): run the benchmark again") from None


def _require_stored(contents: Contents, path: Path) -> None:
    """Raise InputError if a picture below `predictions` isn't the one that the run stored."""
    folder = contents.directory / "predictions"
    name = path.relative_to(folder).as_posix()
    if damage := find_damage(folder, {name: contents.pictures[name]}):
        raise InputError(f"{damage}: run the benchmark again")


def _open(contents: Contents, path: Path) -> Image.Image:
    _require_stored(contents, path)
    try:
        with Image.open(path) as image:
            return image.convert("L")
    except OSError as error:  # also what Pillow raises for a file that is no image, or a truncated one
        raise InputError(f"{path} can't be read ({error}): run the benchmark again") from None


def _read(contents: Contents, path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    grey = _open(contents, path)
    if shape is None:
        scale = min(1.0, LONGEST / max(grey.size))
        shape = (max(1, round(grey.height * scale)), max(1, round(grey.width * scale)))
    if shape != (grey.height, grey.width):
        grey = grey.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32) / 255
