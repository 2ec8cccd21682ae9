"""The command line: reads arguments, calls, prints. No logic of its own."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lungseg.system.errors import InputError
from lungseg.system.interrupts import Interrupted, raise_on_signals

if TYPE_CHECKING:
    from lungseg.report.write import Report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Pixel features against a deep network: an honest benchmark of lung segmentation in chest X-rays.",
)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: what there is, whether one is sound, phantoms.")
app.add_typer(data_app, name="data")
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; what a user can mend is one sentence and exit code 2.

    Exit code 1: a benchmark with a failed trial, or a dataset that isn't sound. 130 and 143: stopped by
    SIGINT and SIGTERM.
    """
    # cuBLAS repeats its bits only with a workspace of fixed size, and reads this once, before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ["MPLBACKEND"] = "agg"  # figures go into files, whatever window a user's notebooks draw in
    raise_on_signals()
    for stream in (sys.stdout, sys.stderr):  # names of files may have letters that a terminal hasn't
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except InputError as error:
        _end(str(error), error.exit_code)
    except Interrupted as error:
        _end("stopped; the same command goes on from what is stored", error.exit_code)


def _end(text: str, code: int) -> NoReturn:
    print(f"lungseg{_which_process()}: {text}", file=sys.stderr)
    sys.exit(code)


def _which_process() -> str:
    """Return which one this is, as in " (process 2)", where there are several: each reports what it meets."""
    number = os.environ.get("RANK", "0")
    return "" if number == "0" else f" (process {number})"


@app.command()
def benchmark(
    spec: Annotated[Path, typer.Argument(help="a TOML file, such as benchmarks/quick.toml")],
    out: Annotated[Path | None, typer.Option(help="results directory; results/NAME if not given")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; over what the spec says")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over instead of going on")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. seeds=[0] or approach.NAME.epochs=3")
    ] = None,
    reuse: Annotated[
        Path | None, typer.Option(help="a published result: rows of trainings that are the same come from it")
    ] = None,
) -> None:
    """Run a benchmark, or go on with one that was interrupted, and print its summary."""
    from lungseg.spec import read_spec

    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device {device!r} is none of auto, cpu, cuda")
    read = read_spec(spec, set_ or [])
    # Not before: what a spec says wrong needn't wait for torch.
    from lungseg.harness.run import benchmark as run
    from lungseg.system.distributed import join_processes

    directory = out or Path("results") / read.name
    with join_processes(device or read.runtime.device):
        written = run(read, directory, device, fresh, reuse=reuse)
    if written is not None:  # only the first of several processes has one
        _print_report(written)
        if written.contents.run["failed"]:
            raise typer.Exit(1)


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="a results directory")]) -> None:
    """Make tables and figures again from what a results directory holds."""
    from lungseg.results import read_run

    read_run(directory)  # before what draws is imported, which takes seconds
    from lungseg.report.write import write_report

    _print_report(write_report(directory))


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="a results directory")],
    to: Annotated[Path, typer.Option(help="where published results lie")] = Path("results/reference"),
    readme: Annotated[Path, typer.Option(help="page whose marked block is filled")] = Path("README.md"),
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="keep names of images and patients of a dataset of your own")
    ] = False,
) -> None:
    """Copy what may be committed (no X-ray, model, or name of your own data) and fill the README's block."""
    from lungseg.report.publish import publish as copy

    target, filled = copy(directory, to, readme, keep_names)
    _say(f"Published to {target}" + (f", and {readme} has its table" if filled else ""))


@app.command()
def info() -> None:
    """Print devices, versions, and which data and weights were found."""
    from lungseg.harness.info import list_facts

    _print_rows("lungseg", list_facts())


@data_app.command("list")
def list_datasets() -> None:
    """List the datasets that a spec can name, and which of them are here."""
    from lungseg.harness.info import list_datasets as found

    _print_rows("datasets", found())


@data_app.command("check")
def check_dataset(
    dataset: Annotated[
        str, typer.Argument(help="a name that `lungseg data list` shows, or package.module:Class")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="the dataset's own key=value, e.g. images=chest/images")
    ] = None,
) -> None:
    """Read every file of a dataset; exit code 1 if training on it would go wrong."""
    from lungseg.data.audit.check import check_dataset as check
    from lungseg.data.loading import find_data_root, find_dataset
    from lungseg.spec import parse_changes
    from lungseg.system.progress import Reporter

    with Reporter(console).bar("reading and comparing all pictures") as move:
        found = check(find_dataset(dataset, parse_changes(set_ or []), find_data_root()), move)
    _print_rows(f"dataset {dataset}", found.rows())
    for note in found.notes:
        _say(f"note: {note}")
    for problem in found.problems:
        _say(f"problem: {problem}")
    _say("sound" if found.ok else f"{len(found.problems)} problem(s): mend them before training")
    if not found.ok:
        raise typer.Exit(1)


@data_app.command("phantom")
def make_phantoms(
    out: Annotated[Path, typer.Argument(help="folder that gets images/ and masks/")] = Path("phantoms"),
    count: Annotated[int, typer.Option(min=1, max=1_000_000)] = 24,
    size: Annotated[int, typer.Option(min=32, max=2048, help="pixels a side")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write phantom X-rays and their exact masks as PNG files."""
    from lungseg.data.datasets.export import write_phantoms

    write_phantoms(out, count, size, seed)
    _say(f"{count} phantoms in {out}/images, their masks in {out}/masks")


def _say(text: str) -> None:
    console.print(text, markup=False)  # a path may hold [brackets]


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table)


def _print_report(report: Report) -> None:
    from lungseg.report.tables.terminal import make_short_table

    # A terminal gets a table that fits it, a file or a pipe the whole summary.
    if console.is_terminal:
        Console(highlight=False).print(make_short_table(report.contents))
    else:
        _say(report.summary)
    directory = report.contents.directory
    figures = sorted((directory / "figures").glob("*.png"))
    _say(f"\nTables:   {directory / 'summary.md'}")
    _say(f"Pictures: {directory / 'figures'} ({', '.join(path.stem for path in figures)})")
