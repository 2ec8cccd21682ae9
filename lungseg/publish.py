"""Copies out of a results directory what may be committed, and writes phantoms as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from lungseg.data.phantom import render
from lungseg.errors import InputError
from lungseg.report.figures import SHOWS_IMAGES
from lungseg.report.readme import fill_readme
from lungseg.results import TABLES, read_json, unwritable

FILES = ("run.json", "summary.md", "summary.csv", "summary.tex", *(f"{table}.csv" for table in TABLES))
FIGURES = (".png", ".pdf")


def publish(directory: Path, to: Path, readme: Path) -> tuple[Path, bool]:
    """Copies tables, scores, run.json and figures to `to`/NAME; never a real X-ray, a map or a model.

    Returns:
        the folder, and whether `readme` has a block of this name, now filled.

    Raises:
        InputError: no finished benchmark there, or `to` can't be written.
    """
    record = read_json(directory / "run.json")
    if not record.get("finished"):
        raise InputError(f"the benchmark in {directory} is not finished: run it to its end before publishing")
    target = to / record["name"]
    real = record["data"]["real"] or bool((record.get("training_data") or {}).get("real"))
    try:
        shutil.rmtree(target, ignore_errors=True)
        (target / "figures").mkdir(parents=True)
        for name in FILES:
            if (directory / name).exists():
                shutil.copyfile(directory / name, target / name)
        for figure in sorted((directory / "figures").iterdir()):
            if figure.suffix in FIGURES and not (real and figure.stem in SHOWS_IMAGES):
                shutil.copyfile(figure, target / "figures" / figure.name)
    except OSError as error:
        raise unwritable(target, error) from error
    return target, readme.exists() and fill_readme(readme, record["name"], target)


def write_phantoms(folder: Path, count: int, size: int, seed: int) -> None:
    """8-bit PNG files folder/images/NAME.png and folder/masks/NAME.png (0 / 255).

    Raises:
        InputError: the folder can't be written.
    """
    try:
        for side in ("images", "masks"):
            (folder / side).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, mask = render(seed, index, size)
            name = f"phantom-{index:04d}.png"
            Image.fromarray(np.round(image * 255).astype(np.uint8)).save(folder / "images" / name)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name)
    except OSError as error:
        raise unwritable(folder, error) from error
