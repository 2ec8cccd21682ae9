"""Learns the matrix by which the leak audit describes pictures.

`python -m benchmarks.studies.data.audit_projection`

Phantoms are changed as copies are: cropped, turned, brightened. The matrix keeps the directions in which
different phantoms differ most, compared with copies of one phantom. No X-ray is used, so every X-ray is new
to the audit. The file changes only within rounding from machine to machine; what the audit cached counts as
missing after that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from scipy.linalg import eigh

from benchmarks.studies.data.planted_leaks import (
    apply_five,
    brighten,
    crop_all_round,
    crop_by,
    overexpose,
    turn_by,
)
from lungseg.data.audit.descriptor import DIMENSIONS, PROJECTION, measure_frequencies
from lungseg.data.audit.pictures import prepare_picture
from lungseg.data.datasets.phantom import render
from lungseg.system.files import write_atomically

SEED, SIDE = 31, 256
PHANTOMS, COPIED = 1000, 250  # phantoms that show how pictures differ; of so many copies are made, too
CHANGES = (
    crop_by(0.05),
    crop_by(0.1),
    brighten,
    overexpose,
    turn_by(3),
    turn_by(5),
    crop_all_round,
    apply_five,
)
NOISE = 0.05  # added to what copies differ by, as a share of its mean: so no direction counts as noiseless
SHARED = 0.02  # of how pictures differ, added likewise


def learn(render_one: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of all descriptions, and the matrix: frequencies x DIMENSIONS, both float32."""
    rng = np.random.default_rng(SEED)
    pictures, differences = [], []
    for number in range(PHANTOMS):
        image = render_one(number)
        small = prepare_picture(image)
        if small is None:
            continue
        rows = measure_frequencies(small)
        pictures.append(rows)
        for change in CHANGES if number < COPIED else ():
            copy = prepare_picture(np.ascontiguousarray(change(image, rng), np.float32))
            if copy is not None:
                differences.append(compare_with_copy(rows, measure_frequencies(copy)))
    every = np.concatenate(pictures)
    among = np.cov(every.T)
    within = np.mean([np.outer(one, one) for one in differences], axis=0)
    within += NOISE * np.trace(within) / len(within) * np.eye(len(within)) + SHARED * among
    _, directions = eigh(among, within)
    return every.mean(axis=0).astype(np.float32), directions[:, : -DIMENSIONS - 1 : -1].astype(np.float32)


def compare_with_copy(rows: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """Return by what a copy (its whole, or its mirror image) differs from the window most like it."""
    alike = rows[2:] @ copy[:2].T
    window, whole = np.unravel_index(alike.argmax(), alike.shape)
    return rows[2 + window] - copy[whole]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECTION, help="the file; default: the audit's own")
    options = parser.parse_args()
    mean, matrix = learn(lambda number: render(SEED, number, SIDE)[0])
    write_atomically(options.out, save({"mean": mean, "matrix": np.ascontiguousarray(matrix)}))
    print(f"{options.out.name}: {matrix.shape[0]} frequencies, {matrix.shape[1]} directions")


if __name__ == "__main__":
    main()
