"""Write the index of a folder of results: a table for each set of images that was scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.report.contents import RANDOM, Contents, list_further_contents, read_contents
from lungseg.report.markup import (
    EMPTY,
    Table,
    escape_markdown,
    format_amount,
    format_count,
    format_interval,
    format_score,
)
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.page.page import make_environment, read_template
from lungseg.report.sentences.images import group_splits
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically

HEADER = ["Approach", "Dice [95 % interval]", "HD95", "ms/image", "Device", "Trained on", "Result"]
_TEXT = (
    "The results of this folder, a table for each set of images, best mean Dice first in each. "
    "Times of different results may be of different machines."
)


NameSplit = Callable[[Contents, str], str]  # of an approach


@dataclass
class Board:
    """The results on the same images."""

    title: str
    data: str  # sha256 of the dataset
    final: bool  # False on a validation part, which approaches may have been chosen by
    rows: list[dict[str, Any]]


def write_leaderboard(folder: Path) -> list[str]:
    """Write index.md and index.html of the results below a folder.

    Return a sentence for each subfolder that has a run.json but can't be read. Raises InputError if the index
    can't be written.
    """
    boards, problems = collect_boards(folder)
    write_atomically(folder / "index.md", _make_markdown(boards))
    page = (
        make_environment()
        .get_template("index.html")
        .render(
            text=_TEXT,
            boards=boards,
            header=HEADER,
            style=read_template("style.css"),
            script=read_template("report.js"),
        )
    )
    write_atomically(folder / "index.html", page)
    return problems


def collect_boards(folder: Path) -> tuple[list[Board], list[str]]:
    """Return the tables, those of test parts first, and why results were left out."""
    boards: dict[Hashable, Board] = {}
    problems = []
    for path in sorted(folder.glob("*/run.json")):
        try:
            contents = read_contents(path.parent)
            further = list_further_contents(contents)
        except InputError as error:
            problems.append(str(error))
            continue
        _add_rows(boards, contents, _name_split)
        for one in further:
            _add_rows(boards, one, lambda *_: "a test set of its own")
    for board in boards.values():
        board.rows.sort(key=lambda row: -row["dice"])
    found = sorted(boards.values(), key=lambda board: (not board.final, -len(board.rows), board.title))
    titles = Counter(board.title for board in found)
    for board in found:
        if titles[board.title] > 1:
            board.title += f", data {board.data[:8]}"
    return found, problems


def _add_rows(boards: dict[Hashable, Board], contents: Contents, name_split: NameSplit) -> None:
    """Add the rows of one result to the tables of the images that they were scored on."""
    run = contents.run
    scored = contents.scores.groupby("approach")["image_id"].agg(frozenset)
    data = run["data"].get("sha256") or ""
    trained = contents.scores.groupby("approach")["train_set"].first()
    for row in collect_main_rows(contents).to_dict("records"):
        name = row["approach"]
        images = format_count(len(scored[name]), "image")
        title = f"{row['dataset']}: {images}, {name_split(contents, name)}"
        final = run["evaluate_on"] == "test"
        board = boards.setdefault((data, scored[name], final), Board(title, data, final, []))
        weights = f", {row['weights']}" if row["weights"] == RANDOM else ""
        row |= {"trained": f"{trained[name]}{weights}", "link": contents.directory.name}
        board.rows.append(row | {"cells": _format_cells(row)})


def _name_split(contents: Contents, name: str) -> str:
    splits = group_splits(contents)
    rules = dict.fromkeys(entry["rule"] for entry in splits.get(name, splits.get("", [])))
    return f"{contents.run['evaluate_on']} part of split {', '.join(rules)}"


def _format_cells(row: dict[str, Any]) -> list[str]:
    """Format the cells of a row under HEADER, but its link."""
    return [
        row["approach"],
        format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"]),
        f"{format_amount(row['hd95'])} {row['distance_unit']}" if pd.notna(row["hd95"]) else EMPTY,
        format_amount(row["ms_per_image"]),
        EMPTY if pd.isna(row["device"]) else row["device"].upper(),
        row["trained"],
    ]


def _make_markdown(boards: list[Board]) -> str:
    parts = ["# Results\n", escape_markdown(_TEXT) + "\n"]
    for board in boards:
        rows = [[*row["cells"], row["link"]] for row in board.rows]
        table = Table(HEADER, rows, text={0, 4, 5, 6}).to_markdown()
        for name in {row["link"] for row in board.rows}:
            shown = escape_markdown(name)
            table = table.replace(f"| {shown} |\n", f"| [{shown}]({name}/summary.md) |\n")
        parts += [f"## {escape_markdown(board.title)}\n", table]
        if not board.final:
            parts.append("Approaches may have been chosen by these images: no final result.\n")
    return "\n".join(parts)
