from io import StringIO
from pathlib import Path

from rich.console import Console

from lungseg.report.findings import collect_findings
from lungseg.report.tables.terminal import make_short_table
from tests.report.results_directory import read_edited


def print_table(results: Path, width: int) -> str:
    text = StringIO()
    Console(file=text, width=width, force_terminal=False).print(
        make_short_table(collect_findings(read_edited(results)))
    )
    return text.getvalue()


def test_the_table_fits_a_narrow_terminal_with_whole_names_and_numbers(results: Path) -> None:
    text = print_table(results, 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in ("good_net", "pixels", "mean-mask", "0.8", "Dice [95 %]"):
        assert word in text
    assert "…" not in text


def test_random_weights_are_marked(results: Path) -> None:
    text = print_table(results, 100)
    assert "pixels *" in text or "pixels cuda *" in text
    assert "random weights" in text
    assert "good_net *" not in text
