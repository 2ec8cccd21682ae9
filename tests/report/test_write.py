"""One reading of a results directory gives its tables and figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lungseg.report import contents
from lungseg.report.write import write_report
from lungseg.results import TABLES

SUMMARIES = ("summary.md", "summary.csv", "summary.tex", "summary-full.tex")


def test_tables_and_figures_are_written(reported: Path) -> None:
    assert {path.name for path in reported.glob("summary*")} == set(SUMMARIES)
    assert (reported / "figures" / "dice.png").exists()


def test_each_table_is_read_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[str] = Counter()
    read_table = contents.read_table

    def count_reads(directory: Path, table: str):
        reads[table] += 1
        return read_table(directory, table)

    monkeypatch.setattr(contents, "read_table", count_reads)
    monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
    report = write_report(results)
    assert reads == dict.fromkeys(TABLES, 1)
    assert report.page == results / "report.html"
    assert report.contents.run["name"] == "tiny"
