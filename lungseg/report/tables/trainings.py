"""Make the tables of rows that differ in what they were trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import Section, Table, format_count, format_interval, format_score
from lungseg.report.numbers.trainings import collect_learning, collect_transfer
from lungseg.report.sentences.images import find_unit


def make_training_sections(contents: Contents, further: Sequence[Contents] = ()) -> list[Section]:
    """Make the tables that a run has: of training datasets, and of numbers of training images."""
    transfer, learning = collect_transfer([contents, *further]), collect_learning(contents)
    found = [] if transfer.empty else [_make_transfer_section(transfer, contents)]
    return found if learning.empty else [*found, _make_learning_section(learning, contents)]


def _make_transfer_section(frame: pd.DataFrame, contents: Contents) -> Section:
    tested = list(dict.fromkeys(frame["dataset"]))
    header = ["Approach", "Trained on", *(f"Dice, {name}" for name in tested)]
    header += [f"Pooled F1, {name}" for name in tested]
    rows = []
    for (family, trained), part in frame.groupby(["family", "train_set"], sort=False):
        cells = part.drop_duplicates("dataset").set_index("dataset").loc[tested]
        dice = [_format_dice(row) for row in cells.to_dict("records")]
        rows.append([family, trained, *dice, *(format_score(value) for value in cells["pooled_f1"])])
    text = (
        f"Each row was trained on one dataset and scored on all. Dice: mean over {find_unit(contents)}s with "
        "its 95 % interval. Pooled F1: of all pixels of a test set together."
    )
    return Section("Trained on one dataset, tested on another", Table(header, rows, text={0, 1}), text)


def _make_learning_section(frame: pd.DataFrame, contents: Contents) -> Section:
    families = list(dict.fromkeys(frame["family"]))
    rows = []
    for size, part in frame.groupby("n_train"):
        cells = {row["family"]: _format_dice(row) for row in part.to_dict("records")}
        rows.append([f"{size:,}", *(cells.get(family, "–") for family in families)])
    draws = format_count(len(contents.run["seeds"]), "draw")
    text = (
        f"Dice: mean over {find_unit(contents)}s and {draws} of the training images, with its 95 % interval. "
        "A larger set of a draw has the images of the smaller ones and more."
    )
    return Section("How many training images?", Table(["Training images", *families], rows), text)


def _format_dice(row: dict[str, float]) -> str:
    return format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"])
