"""The table of a study: what a script in `benchmarks/` measured, stored with what it was measured on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lungseg.report.markup import EMPTY, Table, escape_markdown
from lungseg.system.errors import without_folders
from lungseg.system.files import write_atomically
from lungseg.system.machine import cpu_name, versions


def write_study(directory: Path, title: str, table: pd.DataFrame, notes: list[str]) -> str:
    """Writes `table.csv` and `table.md` into a folder, which is made if need be, each whole or not at all.

    Args:
        directory: of this study alone; a former table in it is replaced.
        title: of the page, one line of plain text.
        table: one row a line; the index is left out. In the page floats have four significant digits, in the
            CSV file nine, as all tables of this program; a missing value is an empty cell. Text that must
            look some other way, such as "93.1 %", may be given as text.
        notes: sentences of plain text below the table: how it was measured and what it doesn't say.

    Returns:
        the page: title, table, notes, versions and the processor's name. Absolute paths in any text are
        shortened to their last part.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    shown = table.map(lambda value: without_folders(value) if isinstance(value, str) else value)
    page = _page(title, shown, notes)
    write_atomically(
        directory / "table.csv", shown.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    )
    write_atomically(directory / "table.md", page)
    return page


def _page(title: str, table: pd.DataFrame, notes: list[str]) -> str:
    text = {i for i, name in enumerate(table.columns) if not pd.api.types.is_numeric_dtype(table[name])}
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    markdown = Table([str(name) for name in table.columns], rows, text=text).markdown()
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [*notes, f"Measured on {cpu_name()}, with {used}."]
    items = "".join(f"- {escape_markdown(without_folders(line))}\n" for line in lines)
    return f"# {escape_markdown(without_folders(title))}\n\n{markdown}\n{items}"


def _cell(value: object) -> str:
    if pd.isna(value):
        return EMPTY
    return f"{value:.4g}" if isinstance(value, float) else str(value)


NO_CUDA = "no CUDA device"


COUNTS = ["size", "batch", "rows", "repeats", "pixels of masks that differ"]


def with_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its counts as whole numbers also where a row has none."""
    counts = table.columns.intersection(COUNTS)
    return table.astype(dict.fromkeys(counts, "Int64"))
