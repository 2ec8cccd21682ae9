"""Make the main table for a terminal: the columns that fit into eighty letters."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from lungseg.report.contents import Contents
from lungseg.report.markup import format_amount, format_duration, format_score
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.leaks import warn_of_leaks


def make_short_table(contents: Contents) -> Table:
    """Make a row per approach and device: Dice with its interval, pixel accuracy, training, ms per image."""
    table = Table(title=f"{contents.run['name']}: {contents.run['data']['dataset']}", title_justify="left")
    table.add_column("approach", overflow="fold")
    for column in ("Dice [95 %]", "accuracy", "training", "ms/image"):
        table.add_column(column, justify="right", no_wrap=True)
    frame = collect_main_rows(contents)
    for row in frame.to_dict("records"):
        interval = f" [{row['dice_low']:.3f}, {row['dice_high']:.3f}]" if pd.notna(row["dice_low"]) else ""
        device = f" {row['device']}" if pd.notna(row["device"]) and row["device"] != "cpu" else ""
        mark = " *" if row["weights"] == "random weights" else ""
        table.add_row(
            row["approach"] + device + mark,
            f"{row['dice']:.3f}{interval}",
            format_score(row["accuracy"]),
            format_duration(row["training_seconds"]),
            format_amount(row["ms_per_image"]),
        )
    captions = [warn_of_leaks(contents)]
    if (frame["weights"] == "random weights").any():
        captions.append("* started from random weights, not from ImageNet's")
    table.caption = "\n".join(caption for caption in captions if caption) or None
    return table
