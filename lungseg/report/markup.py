"""Numbers, names and tables as Markdown and TeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

EMPTY = "–"

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
}


@dataclass
class Table:
    """A table of plain text cells.

    Attributes:
        header: one title a column.
        rows: cells, as many as the header has.
        bold: (row, column) of cells to stress.
        text: the columns that hold text and are aligned left; the others hold numbers.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: set[tuple[int, int]] = field(default_factory=set)
    text: set[int] = field(default_factory=lambda: {0})

    def markdown(self) -> str:
        """The table in GitHub's Markdown, ending with a newline."""
        rule = [":--" if column in self.text else "--:" for column in range(len(self.header))]
        body = [
            [
                f"**{escape_markdown(cell)}**" if (r, c) in self.bold else escape_markdown(cell)
                for c, cell in row
            ]
            for r, row in ((r, list(enumerate(row))) for r, row in enumerate(self.rows))
        ]
        lines = [[escape_markdown(title) for title in self.header], rule, *body]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def tex(self) -> str:
        """The table as a tabular that needs the package booktabs, ending with a newline."""
        columns = "".join("l" if column in self.text else "r" for column in range(len(self.header)))
        body = [
            [
                rf"\textbf{{{escape_tex(cell)}}}" if (r, c) in self.bold else escape_tex(cell)
                for c, cell in row
            ]
            for r, row in ((r, list(enumerate(row))) for r, row in enumerate(self.rows))
        ]
        lines = [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _tex_row([escape_tex(t) for t in self.header]),
        ]
        lines += [r"\midrule", *(_tex_row(row) for row in body), r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines) + "\n"


@dataclass
class Section:
    """A titled table of a page with the text that explains it, its paragraphs divided by empty lines."""

    title: str
    table: Table
    text: str

    def markdown(self, line: str = "") -> str:
        """Title, table, text and one more line, such as one that all tables carry; ends with a newline."""
        paragraphs = [escape_markdown(part) for part in (*self.text.split("\n\n"), line) if part]
        return "\n".join([f"## {self.title}\n", self.table.markdown(), *(f"{part}\n" for part in paragraphs)])


def bullets(lines: Sequence[str]) -> str:
    """Lines of plain text as a list in Markdown; "" without any."""
    return "".join(f"- {escape_markdown(line)}\n" for line in lines)


def _tex_row(cells: Sequence[str]) -> str:
    # Braces, since a "[" right after "\\" would be read as its optional argument.
    first = f"{{{cells[0]}}}" if cells[0].startswith("[") else cells[0]
    return " & ".join([first, *cells[1:]]) + r" \\"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it stands, in a table too."""
    return re.sub(r"([\\`*|<_])", r"\\\1", " ".join(text.split()))


def escape_tex(text: str) -> str:
    """Text that TeX prints as it stands."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def score(value: float | None) -> str:
    """A metric between 0 and 1, with four decimals as the field prints them."""
    return EMPTY if value is None or pd.isna(value) else f"{value:.4f}"


def amount(value: float | None) -> str:
    """A positive number with about three significant digits."""
    if value is None or pd.isna(value):
        return EMPTY
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:,.{decimals}f}"


def difference(value: float | None) -> str:
    """A difference of two metrics, with its sign and four decimals: "+0.0120", "-0.0003"."""
    return EMPTY if value is None or pd.isna(value) else f"{value:+z.4f}"


def interval(show: Callable[[float], str], value: float, low: float, high: float) -> str:
    """A number with its interval, "0.96 [0.95, 0.97]", each shown by `show`; alone where it has none."""
    return show(value) + (f" [{show(low)}, {show(high)}]" if pd.notna(low) and pd.notna(high) else "")


def signed(value: float | None) -> str:
    """A difference with its sign and about three significant digits: "+1.23", "-45.6"."""
    return EMPTY if value is None or pd.isna(value) else ("-" if value < 0 else "+") + amount(abs(value))


def share(value: float | None) -> str:
    """A part of a whole as a percentage with about three significant digits: "12.3 %"."""
    return EMPTY if value is None or pd.isna(value) else f"{amount(100 * value)} %"


def p_value(p: float | None) -> str:
    """A p-value for a cell: ".012", "< .001"; what is below .05 is never rounded up to it."""
    if p is None or pd.isna(p):
        return EMPTY
    if p < 0.001:
        return "< .001"
    if p > 0.9995:
        return "> .999"
    text = ".0499" if 0.0495 <= p < 0.05 and p > 0.0499 else f"{p:.{4 if 0.0495 <= p < 0.05 else 3}f}"
    return text.removeprefix("0")


def p_equals(p: float) -> str:
    """A p-value within a sentence: "p = .012", "p < .001"."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith(("<", ">")) else f"p = {shown}"


def duration(seconds: float | None) -> str:
    """A time as people say it: "8.2 s", "3 min 20 s", "2 h 05 min"."""
    if seconds is None or pd.isna(seconds):
        return EMPTY
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: int, noun: str) -> str:
    """A number with its noun: "1 image", "12 images"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"
