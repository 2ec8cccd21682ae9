"""What studies share: the table that each of them writes, and the options of the scripts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from lungseg.report.markup import EMPTY, Table, escape_markdown, format_bullets
from lungseg.spec import RuntimeSpec
from lungseg.system.errors import shorten_paths
from lungseg.system.files import write_atomically
from lungseg.system.machine import count_usable_cores, describe_cpu, list_versions
from lungseg.system.nvml import describe_gpu, format_gpu
from lungseg.system.runtime import Runtime
from lungseg.system.usable_runtime import resolve_runtime

NO_CUDA = "no CUDA device"
COUNTS = ["size", "batch", "rows", "repeats", "pixels of masks that differ"]


def write_study(directory: Path, title: str, table: pd.DataFrame, notes: list[str]) -> str:
    """Write `table.csv` and `table.md` into a folder, each file whole or not at all.

    Args:
        directory: for this study alone. It is made if need be; a former table in it is replaced.
        title: of the page, one line of plain text.
        table: one row a line; the index is left out. Floats have four significant digits on the page and
            nine in the CSV file, as in all tables of this program. A missing value is an empty cell. Text
            that must look some other way, such as "93.1 %", may be given as text.
        notes: sentences of plain text below the table: how it was measured and what it doesn't say.

    Returns:
        The page: title, table, notes, versions and the processor's name. Absolute paths in any text are
        shortened to their last part.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    shown = table.map(lambda value: shorten_paths(value) if isinstance(value, str) else value)
    page = _make_page(title, shown, notes)
    write_atomically(
        directory / "table.csv", shown.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    )
    write_atomically(directory / "table.md", page)
    return page


def _make_page(title: str, table: pd.DataFrame, notes: list[str]) -> str:
    text = {i for i, name in enumerate(table.columns) if not pd.api.types.is_numeric_dtype(table[name])}
    rows = [[_format_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    markdown = Table([str(name) for name in table.columns], rows, text=text).to_markdown()
    used = ", ".join(f"{name} {number}" for name, number in list_versions().items())
    gpu = describe_gpu()
    beside = f" and {gpu['name']} ({format_gpu(gpu)})" if gpu else ""
    lines = [*notes, f"Measured on {describe_cpu()}{beside}, with {used}."]
    items = format_bullets([shorten_paths(line) for line in lines])
    return f"# {escape_markdown(shorten_paths(title))}\n\n{markdown}\n{items}"


def _format_cell(value: object) -> str:
    if pd.isna(value):
        return EMPTY
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make_counts_whole(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its counts as whole numbers, also in columns where a row has none."""
    counts = table.columns.intersection(COUNTS)
    return table.astype(dict.fromkeys(counts, "Int64"))


def make_parser(description: str, out: str) -> argparse.ArgumentParser:
    """Return a parser that prints the description with its own line breaks and has the option --out.

    Args:
        description: the script's docstring.
        out: default folder of the tables.
    """
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder of the tables; default: {out}")
    return parser


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --device and --threads, which `resolve_runtimes` takes."""
    devices = ["auto", "cpu", "cuda"]
    parser.add_argument("--device", choices=devices, default="auto", help="auto: a GPU, else the CPU")
    parser.add_argument("--threads", type=int, default=count_usable_cores())


def resolve_runtimes(device: str, threads: int) -> tuple[list[Runtime], list[dict[str, str]]]:
    """Return the runtimes to measure, and a table row for a GPU that is missing.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU if there is one, else the CPU.
        threads: of the CPU.

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    missing = []
    if device == "auto" and not torch.cuda.is_available():
        missing = [{"device": "cuda", "why empty": NO_CUDA}]
    return [resolve_runtime(RuntimeSpec(threads=threads), device)], missing
