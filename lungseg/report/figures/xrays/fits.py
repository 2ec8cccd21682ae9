"""Choose the fits whose pipelines are drawn, and read one image as it went through each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.figures.style import assign_colours
from lungseg.report.figures.xrays.stored import (
    Prediction,
    find_image_ids,
    read_features_of,
    read_image,
    read_lung_shares,
    read_prediction,
    read_size,
    read_truth,
)

NETWORK = "deeplabv3plus-resnet50"
MOST_MAPS = 64


@dataclass(frozen=True)
class Fit:
    """A fitted approach, and one image as it went through it."""

    entry: dict[str, Any]  # of run.json
    weights: str
    colour: str
    history: pd.DataFrame  # of one fold and seed
    image_id: str
    size: tuple[int, int]  # of the image
    image: np.ndarray
    truth: np.ndarray
    prediction: Prediction
    maps: np.ndarray | None  # the image's features, if any: float32 C x h x w
    shares: np.ndarray | None  # of lung in each pixel of the maps: float32 h x w

    @property
    def settings(self) -> dict[str, Any]:
        return self.entry.get("settings") or {}


def choose_pixels(contents: Contents) -> Fit | None:
    """Choose the best fit with features and a prediction of their image: if possible 64 maps and a curve."""
    best, fewest = None, (True, True)
    for name in contents.sort_names(contents.names):
        stored = read_features_of(contents, name)
        if stored and (fit := _read_fit(contents, name, *stored)):
            lacks = len(fit.maps) != MOST_MAPS, len(fit.history) < 2
            if best is None or lacks < fewest:
                best, fewest = fit, lacks
            if not any(fewest):
                break  # maps are large, and an ablation has dozens of fits
    return best


def choose_network(contents: Contents, preferred: str | None) -> Fit | None:
    """Choose the best DeepLabV3+ with a stored prediction, if possible of the preferred image."""
    use = {entry["name"]: entry["use"] for entry in contents.run["approaches"]}
    ids = sorted(find_image_ids(contents), key=lambda image_id: image_id != preferred)
    for name in contents.sort_names(contents.names):
        for image_id in ids if use[name] == NETWORK else ():
            if fit := _read_fit(contents, name, image_id):
                return fit
    return None


def _read_fit(contents: Contents, name: str, image_id: str, maps: np.ndarray | None = None) -> Fit | None:
    """Read what is drawn of an approach; None if the image or its prediction isn't stored."""
    if image_id not in find_image_ids(contents):
        return None
    image = read_image(contents, image_id)
    prediction = read_prediction(contents, name, image_id, image.shape)
    if prediction is None:
        return None
    entry = next(entry for entry in contents.run["approaches"] if entry["name"] == name)
    rows = contents.history[contents.history["approach"] == name].sort_values("step")
    fits = [fit for _, fit in rows.groupby(["fold", "seed"])]
    return Fit(
        entry,
        contents.find_weights(name).removesuffix(" weights") + " weights",
        assign_colours(contents)[name],
        fits[0] if fits else rows,
        image_id,
        read_size(contents, image_id),
        image,
        read_truth(contents, image_id, image.shape),
        prediction,
        maps,
        None if maps is None else read_lung_shares(contents, image_id, maps.shape[1:]),
    )
