"""Copies out of a results directory what may be committed."""

from __future__ import annotations

import shutil
from pathlib import Path

from lungseg.errors import InputError
from lungseg.report.figures import SHOWS_IMAGES
from lungseg.report.readme import fill_readme
from lungseg.results import TABLES
from lungseg.storage import make_folder, read_json, unwritable

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
    if not (directory / "figures").is_dir() or not (directory / "summary.md").exists():
        raise InputError(f"{directory} has no tables or figures yet: run `lungseg report {directory}` first")
    target = to / record["name"]
    real = record["data"]["real"] or bool((record.get("training_data") or {}).get("real"))
    # The old copy goes only when the new one is whole.
    new = make_folder(to / f".{record['name']}.part", empty=True)
    make_folder(new / "figures")
    try:
        for name in FILES:
            if (directory / name).exists():
                shutil.copyfile(directory / name, new / name)
        for figure in sorted((directory / "figures").iterdir()):
            if figure.suffix in FIGURES and not (real and figure.stem in SHOWS_IMAGES):
                shutil.copyfile(figure, new / "figures" / figure.name)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    except OSError as error:
        raise unwritable(target, error) from error
    return target, readme.exists() and fill_readme(readme, record["name"], target)
