"""The main table for a terminal: the columns that fit into eighty letters."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.table import Table

from lungseg.report.contents import read_contents
from lungseg.report.markup import amount, duration, score
from lungseg.report.numbers.quality import main_frame
from lungseg.report.sentences import notes


def short_table(directory: Path) -> Table:
    """A row per approach: Dice with its interval, pixel accuracy, training time, time per image."""
    contents = read_contents(directory)
    random = False
    table = Table(title=f"{contents.run['name']}: {contents.run['data']['dataset']}", title_justify="left")
    table.add_column("approach", overflow="fold")
    for column in ("Dice [95 %]", "accuracy", "training", "ms/image"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in main_frame(contents).to_dict("records"):
        blind = row["weights"] == "random weights"
        random |= blind
        interval = f" [{row['dice_low']:.3f}, {row['dice_high']:.3f}]" if pd.notna(row["dice_low"]) else ""
        device = "" if row["device"] in ("cpu", None) or pd.isna(row["device"]) else f" {row['device']}"
        table.add_row(
            row["approach"] + device + (" *" if blind else ""),
            f"{row['dice']:.3f}{interval}",
            score(row["accuracy"]),
            duration(row["training_seconds"]),
            amount(row["ms_per_image"]),
        )
    captions = [notes.leaks(contents)]
    if random:
        captions.append("* started from random weights, not from ImageNet's")
    table.caption = "\n".join(caption for caption in captions if caption) or None
    return table
