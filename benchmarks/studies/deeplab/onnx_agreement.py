"""Compares the masks of a model in ONNX Runtime with those of torch, on real X-rays.

`python -m benchmarks.studies.deeplab.onnx_agreement MODEL`

MODEL is a folder that `lungseg export --onnx` wrote. The images are the 141 test images of cxr704, or
phantoms if LUNGSEG_DATA isn't set. The exit code is 1 if a mask differs where the map isn't within 0.001 of
the threshold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch

from benchmarks.studies.study import make_parser, write_study
from lungseg.data.loading import find_data_root, load_dataset
from lungseg.data.splits import SplitOptions, make_splits
from lungseg.prediction.models import Model, load_model
from lungseg.prediction.onnx import FILE, INPUT, OUTPUT
from lungseg.system.errors import InputError

NEAR = 1e-3  # of the threshold: there rounding may decide
PHANTOMS = {"count": 12, "size": 256}
SPLIT = "published:cxr704-ovcharenko"


def read_images() -> tuple[str, Iterator[np.ndarray]]:
    """Return what the images are, and the images, float32 H x W in [0, 1]."""
    if find_data_root() is None:
        samples = load_dataset("phantom", PHANTOMS).samples
        return "phantoms", (sample.image() for sample in samples.values())
    data = load_dataset("cxr704", {})
    (split,) = make_splits(SPLIT, list(data.samples.values()), SplitOptions())
    return "test images of cxr704", (sample.image() for sample in data.pick(split.test))


def compare(model: Model, images: Iterator[np.ndarray]) -> dict[str, Any]:
    """Predict images one by one with both, and count what differs."""
    session = onnxruntime.InferenceSession(str(model.folder / FILE), providers=["CPUExecutionProvider"])
    found = {"images": 0, "pixels": 0, "pixels of masks that differ": 0, "of these not near the threshold": 0}
    worst = 0.0
    for image in images:
        expected = model.predict_all([image])[0]
        batch = model.approach.prepare([image]).contiguous().cpu().numpy()
        (maps,) = session.run([OUTPUT], {INPUT: batch})
        given = model.approach.finish(torch.from_numpy(maps), [image.shape])[0]
        apart = (given >= model.threshold) != (expected >= model.threshold)
        far = np.abs(expected - model.threshold) > NEAR
        found["images"] += 1
        found["pixels"] += image.size
        found["pixels of masks that differ"] += int(apart.sum())
        found["of these not near the threshold"] += int((apart & far).sum())
        worst = max(worst, float(np.abs(given - expected).max()))
    return found | {"largest difference of a probability": worst}


def main(words: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "results/onnx-agreement")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that `lungseg export --onnx` wrote")
    chosen = parser.parse_args(words)
    try:
        model = load_model(chosen.model, device="cpu")
        if not (chosen.model / FILE).is_file():
            raise InputError(f"{chosen.model} has no {FILE}: export it with --onnx")
        what, images = read_images()
        row = compare(model, images)
        share = row["pixels of masks that differ"] / row["pixels"]
        notes = [
            f"Model {model.name}: {model.describe()}.",
            f"The {what}, one by one, at their own size. {share:.2g} of all pixels differ in the mask.",
            f"Near the threshold: within {NEAR:g}.",
        ]
        print(write_study(chosen.out, "Masks of ONNX Runtime and of torch", pd.DataFrame([row]), notes))
    except InputError as error:
        parser.error(str(error))
    return int(row["of these not near the threshold"] > 0)


if __name__ == "__main__":
    sys.exit(main())
