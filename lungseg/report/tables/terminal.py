"""Print a benchmark's verdict and main table: what fits into a terminal, and into a log."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from rich.console import Console
from rich.table import Table

from lungseg.report.findings import Findings
from lungseg.report.markup import EMPTY, format_amount, format_count, format_duration, format_score
from lungseg.report.sentences.cautions import list_missing_rows
from lungseg.report.sentences.images import count_patients, find_unit
from lungseg.report.sentences.leaks import warn_of_leaks
from lungseg.report.write import Report

LOG_WIDTH = 100  # letters of a line that goes into a file or a pipe


def print_report(report: Report) -> None:
    """Print the verdict, the main table, and where the page and the other files are."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for sentence in report.findings.verdict:
        console.print(fill(sentence, console.width, initial_indent="- ", subsequent_indent="  "))
    console.print()
    console.print(make_short_table(report.findings))
    for sentence in list_missing_rows(report.contents):
        console.print(fill(sentence, console.width))
    directory = report.contents.directory
    # Not wrapped, so that a path can be copied.
    look = {"soft_wrap": True}
    console.print(f"\nPage:    {report.page}", **look)
    console.print(f"Tables:  {directory / 'summary.md'}", **look)
    console.print(f"Figures: {directory / 'figures'}", **look)


def make_short_table(findings: Findings) -> Table:
    """Make a row per approach and device: Dice with its interval, group, training, ms per image."""
    contents, frame = findings.contents, findings.frame
    count = format_count(count_patients(contents), find_unit(contents))
    title = f"{contents.run['name']}: {contents.run['data']['dataset']}, n = {count}"
    table = Table(title=title, title_justify="left")
    table.add_column("approach", overflow="fold")
    for column in ("Dice [95 %]", "group", "HD95", "training", "ms/image"):
        table.add_column(column, justify="left" if column == "group" else "right", no_wrap=True)
    for row in frame.to_dict("records"):
        interval = f" [{row['dice_low']:.3f}, {row['dice_high']:.3f}]" if pd.notna(row["dice_low"]) else ""
        device = f" {row['device']}" if pd.notna(row["device"]) and row["device"] != "cpu" else ""
        mark = " *" if row["weights"] == "random weights" else ""
        table.add_row(
            row["approach"] + device + mark,
            f"{format_score(row['dice'])}{interval}",
            row["group"] or EMPTY,
            format_amount(row["hd95"]),
            format_duration(row["training_seconds"]),
            format_amount(row["ms_per_image"]),
        )
    captions = [warn_of_leaks(contents)]
    if (frame["weights"] == "random weights").any():
        captions.append("* started from random weights, not from ImageNet's")
    if frame["group"].any():
        captions.append("group: the tests do not separate approaches that share a letter")
    table.caption = "\n".join(caption for caption in captions if caption) or None
    return table
