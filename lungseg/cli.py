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
    help="Compare pixel features with a deep network at finding the lungs in chest X-rays.",
)
data_app = typer.Typer(no_args_is_help=True, help="List or check datasets, or make phantoms.")
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


def _say_version(wanted: bool) -> None:
    if wanted:
        from lungseg.system.machine import describe_version

        _say(describe_version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def benchmark(
    spec: Annotated[
        Path, typer.Argument(help="A TOML file, or the name of a shipped benchmark, such as quick.")
    ],
    out: Annotated[Path | None, typer.Option(help="Where results go. Default: results/NAME.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda, instead of what the spec says.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key: seeds=[0] or approach.NAME.epochs=3. Repeatable."),
    ] = None,
    reuse: Annotated[
        Path | None, typer.Option(help="A published result. Rows of unchanged trainings are taken from it.")
    ] = None,
) -> None:
    """Run a benchmark, or go on with one that was interrupted, and print its summary."""
    from lungseg.spec import find_spec, read_spec

    if device not in (None, "auto", "cpu", "cuda"):
        raise InputError(f"--device {device!r} is none of auto, cpu, cuda")
    read = read_spec(find_spec(spec), set_ or [])
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
def report(directory: Annotated[Path, typer.Argument(help="A results directory.")]) -> None:
    """Make the tables and figures of a results directory again."""
    from lungseg.results import read_run

    read_run(directory)  # before what draws is imported, which takes seconds
    from lungseg.report.write import write_report

    _print_report(write_report(directory))


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="A results directory.")],
    to: Annotated[Path, typer.Option(help="Where published results are.")] = Path("results/reference"),
    readme: Annotated[Path, typer.Option(help="The page whose marked block is filled.")] = Path("README.md"),
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep the names of images and patients of your own data.")
    ] = False,
) -> None:
    """Copy the part of a results directory that may be committed, and fill a block of the README.

    No X-ray and no model is copied. Images and patients of your own data get numbers instead of names.
    """
    from lungseg.report.publish import publish as copy

    target, filled = copy(directory, to, readme, keep_names)
    _say(f"Published to {target}" + (f", and {readme} has its table" if filled else ""))


@app.command()
def info() -> None:
    """Show this machine's devices, versions, data and weights."""
    from lungseg.harness.info import list_facts

    _print_rows("lungseg", list_facts())


@data_app.command("list")
def list_datasets() -> None:
    """List the datasets, and which of them are on this machine."""
    from lungseg.harness.info import list_datasets as found

    _print_rows("datasets", found())


@data_app.command("check")
def check_dataset(
    what: Annotated[
        str, typer.Argument(help="A spec (mine.toml), a dataset of `lungseg data list`, or module:Class.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of the dataset or spec: images=chest/images. Repeatable."),
    ] = None,
) -> None:
    """Read and compare all images of a dataset. For a spec, check its split too.

    The exit code is 1 if there is a problem that would stop or mislead a training.
    """
    from lungseg.harness.info import check_data
    from lungseg.system.progress import Reporter

    with Reporter(console).bar("reading and comparing all pictures") as move:
        found = check_data(what, set_ or [], move)
    for title, rows in found.tables:
        _print_rows(title, rows)
    for note in found.notes:
        _say(f"note: {note}")
    for problem in found.problems:
        _say(f"problem: {problem}")
    _say(f"{len(found.problems)} problem(s): mend them before training" if found.problems else "sound")
    if found.problems:
        raise typer.Exit(1)


@data_app.command("phantom")
def make_phantoms(
    out: Annotated[Path, typer.Argument(help="Folder for images/ and masks/.")] = Path("phantoms"),
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of images.")] = 24,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Pixels a side.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Another number gives other phantoms.")] = 0,
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
