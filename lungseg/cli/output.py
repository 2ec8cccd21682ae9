"""What the commands share: how they print, and options that several have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lungseg.system.errors import InputError

if TYPE_CHECKING:
    from lungseg.report.write import Report

console = Console(highlight=False, soft_wrap=True)


def _check_device(device: str | None) -> str | None:
    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device {device!r} is none of auto, cpu, cuda")
    return device


Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", callback=_check_device)]
Words = list[str] | None
ResultsFolder = Annotated[Path, typer.Argument(help="A results directory.")]


def make_set_option(text: str) -> Any:
    """Make the option --set, which changes keys."""
    return typer.Option("--set", help=f"{text} Repeatable.")


def say(text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False)  # a path may hold [brackets]


def print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    """Print names and values as a table."""
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table)


def print_results(report: Report, ends: bool = False) -> None:
    """Print what a report says; a run that `ends` with a failed trial has exit code 1."""
    from lungseg.report.tables.terminal import print_report

    print_report(report)
    if ends and report.contents.run["failed"]:
        raise typer.Exit(1)
