"""Write the tables and figures of a results directory from one reading of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungseg.report.contents import Contents, read_contents
from lungseg.report.figures.all import draw_figures
from lungseg.report.tables.summary import write_tables


@dataclass(frozen=True)
class Report:
    """What was read and written, for a caller to print."""

    contents: Contents
    summary: str  # the text of summary.md


def write_report(directory: Path) -> Report:
    """Write summary.md, summary.csv, summary.tex and the figures of a results directory.

    Raises InputError if it holds no results or damaged ones, or can't be written.
    """
    contents = read_contents(directory)
    summary = write_tables(contents)
    draw_figures(contents)
    return Report(contents, summary)
