"""Write the tables, figures and page of a results directory from one reading of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.report.contents import Contents, list_further_contents, read_contents
from lungseg.report.figures.all import draw_figures
from lungseg.report.findings import Findings, collect_findings
from lungseg.report.leaderboard import write_leaderboard
from lungseg.report.page.page import write_page
from lungseg.report.tables.summary import write_tables
from lungseg.results import read_run
from lungseg.system.errors import InputError


@dataclass(frozen=True)
class Report:
    """What was read and written, for a caller to print."""

    findings: Findings
    page: Path  # report.html

    @property
    def contents(self) -> Contents:
        """What was read."""
        return self.findings.contents


def write_report(directory: Path, columns: Sequence[str] | None = None) -> Report:
    """Write the summaries, the figures and report.html of a results directory.

    `columns` of summary.csv are those of summary.tex. Raises InputError if the directory holds no results or
    damaged ones, or can't be written, or a column doesn't exist.
    """
    contents = read_contents(directory)
    findings = collect_findings(contents, list_further_contents(contents))
    write_tables(findings, columns)
    draw_figures(contents)
    return Report(findings, write_page(findings))


def write_reports(folder: Path, columns: Sequence[str] | None = None) -> tuple[Path, list[str]]:
    """Write the reports of all results below a folder as `write_report` does, and its index.

    Return the index, and a sentence for each result that can't be read. Raises InputError if there is no
    result, or a report can't be written.
    """
    found = sorted(path.parent for path in folder.glob("*/run.json"))
    if not found:
        raise InputError(f"{folder} holds no results: name a results directory, or a folder of several")
    problems = []
    for directory in found:
        try:
            read_run(directory)
        except InputError as error:
            problems.append(str(error))
            continue
        write_report(directory, columns)
    write_leaderboard(folder)
    return folder / "index.html", problems
