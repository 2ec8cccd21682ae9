"""Format numbers, names and tables as Markdown and TeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import pandas as pd

EMPTY = "–"

_TEX_NAMES = {
    "\\": "backslash",
    "~": "asciitilde",
    "^": "asciicircum",
    "<": "less",
    ">": "greater",
    "|": "bar",
}
_TEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {character: rf"\text{name}{{}}" for character, name in _TEX_NAMES.items()}
    | {"–": "--"}
)


@dataclass
class Table:
    """A table of plain text cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: set[tuple[int, int]] = field(default_factory=set)  # (row, column) of cells to stress
    text: set[int] = field(default_factory=lambda: {0})  # columns aligned left; the others hold numbers

    def to_markdown(self) -> str:
        """Write the table in GitHub's Markdown, with a newline at its end."""
        rule = [":--" if column in self.text else "--:" for column in range(len(self.header))]
        body = self._format_body(escape_markdown, "**{}**".format)
        lines = [[escape_markdown(title) for title in self.header], rule, *body]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_tex(self) -> str:
        """Write the table as a tabularx as wide as the line, whose first column takes the rest and wraps.

        It needs the packages booktabs and tabularx. A line break in a title makes a second line of it. Of a
        bold cell, what stands in brackets isn't bold.
        """
        others = range(1, len(self.header))
        columns = r"@{}>{\raggedright\arraybackslash}X"
        columns += "".join("l" if column in self.text else "r" for column in others) + "@{}"
        titles = zip_longest(*(title.split("\n") for title in self.header), fillvalue="")
        header = [_format_tex_row([escape_tex(title) for title in line]) for line in titles]
        body = [_format_tex_row(row) for row in self._format_body(escape_tex, _stress_tex)]
        start, end = rf"\begin{{tabularx}}{{\linewidth}}{{{columns}}}", r"\end{tabularx}"
        return "\n".join([start, r"\toprule", *header, r"\midrule", *body, r"\bottomrule", end, ""])

    def _format_body(self, escape: Callable[[str], str], stress: Callable[[str], str]) -> list[list[str]]:
        """Escape all cells, and stress the bold ones."""
        return [
            [stress(escape(cell)) if (r, c) in self.bold else escape(cell) for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]


@dataclass
class Section:
    """A titled table of a page, and the text that explains it, with empty lines between paragraphs."""

    title: str
    table: Table
    text: str

    def to_markdown(self, line: str = "") -> str:
        """Write title, table, text and one more line, such as a warning that all tables have."""
        paragraphs = [escape_markdown(part) for part in (*self.text.split("\n\n"), line) if part]
        lines = (f"{part}\n" for part in paragraphs)
        return "\n".join([f"## {self.title}\n", self.table.to_markdown(), *lines])


def format_bullets(lines: Sequence[str]) -> str:
    """Write lines of plain text as a list in Markdown; "" without any."""
    return "".join(f"- {escape_markdown(line)}\n" for line in lines)


def _format_tex_row(cells: Sequence[str]) -> str:
    # Long names may break at their low lines, and not before a unit. A "[" or "*" right after "\\" would be
    # read as part of it.
    first = re.sub(r"(?<=\d) (?=px\b)", "~", cells[0].replace(r"\_", r"\_\allowbreak{}"))
    first = f"{{{first}}}" if cells[0].startswith(("[", "*")) else first
    return " & ".join([first, *cells[1:]]) + r" \\"


def _stress_tex(text: str) -> str:
    value, bracket, rest = text.partition(" [")
    return rf"\textbf{{{value}}}{bracket}{rest}"


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, in a table too."""
    return re.sub(r"([\\`*|<_])", r"\\\1", " ".join(text.split()))


def escape_tex(text: str) -> str:
    """Escape text so that TeX prints it unchanged."""
    return " ".join(text.split()).translate(_TEX)


def format_score(value: float | None) -> str:
    """Format a metric between 0 and 1 with four decimals."""
    return EMPTY if pd.isna(value) else f"{value:.4f}"


def format_amount(value: float | None) -> str:
    """Format a positive number with about three significant digits."""
    if pd.isna(value):
        return EMPTY
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:,.{decimals}f}"


def format_difference(value: float | None) -> str:
    """Format a difference of two metrics with its sign and four decimals: "+0.0120", "-0.0003"."""
    return EMPTY if pd.isna(value) else f"{value:+z.4f}"


def format_interval(show: Callable[[float], str], value: float, low: float, high: float) -> str:
    """Format a number with its interval, "0.96 [0.95, 0.97]", each by `show`; alone without an interval."""
    return show(value) + (f" [{show(low)}, {show(high)}]" if pd.notna(low) and pd.notna(high) else "")


def format_signed(value: float | None) -> str:
    """Format a difference with its sign and about three significant digits: "+1.23", "-45.6"."""
    return EMPTY if pd.isna(value) else ("-" if value < 0 else "+") + format_amount(abs(value))


def format_share(value: float | None) -> str:
    """Format a fraction as a percentage with about three significant digits: "12.3 %"."""
    return EMPTY if pd.isna(value) else f"{format_amount(100 * value)} %"


def format_p(p: float | None) -> str:
    """Format a p-value for a cell: ".012", "< .001". A value below .05 is never rounded up to .05."""
    if pd.isna(p):
        return EMPTY
    if p < 0.001:
        return "< .001"
    if p > 0.9995:
        return "> .999"
    text = ".0499" if 0.0495 <= p < 0.05 and p > 0.0499 else f"{p:.{4 if 0.0495 <= p < 0.05 else 3}f}"
    return text.removeprefix("0")


def state_p(p: float) -> str:
    """Format a p-value for a sentence: "p = .012", "p < .001"."""
    shown = format_p(p)
    return f"p {shown}" if shown.startswith(("<", ">")) else f"p = {shown}"


def format_duration(seconds: float | None) -> str:
    """Format a time: "8.2 s", "3 min 20 s", "2 h 05 min"."""
    if pd.isna(seconds):
        return EMPTY
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_count(value: int, noun: str) -> str:
    """Format a number with its noun: "1 image", "12 images"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def end_sentence(text: str) -> str:
    """Put single spaces between words, and a full stop at the end if there is none."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
