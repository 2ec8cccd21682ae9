"""The command line: reads arguments, calls, prints. No logic of its own."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lungseg.cli.data import data_app
from lungseg.cli.output import (
    Device,
    ResultsFolder,
    Words,
    console,
    make_set_option,
    print_results,
    print_rows,
    say,
)
from lungseg.system.errors import InputError
from lungseg.system.interrupts import Interrupted, raise_on_signals

HELP = "Find the lungs in chest X-rays, and compare what finds them: pixel features, networks, any tool."
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
app.add_typer(data_app, name="data")


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

        say(describe_version())
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
    device: Device = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    set_: Annotated[Words, make_set_option("Change a key: seeds=[0] or approach.NAME.epochs=3.")] = None,
    reuse: Annotated[
        Path | None, typer.Option(help="A published result. Rows of unchanged trainings are taken from it.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers train: tcp://host:8786."),
    ] = None,
) -> None:
    """Run a benchmark, or go on with one that was interrupted, and print its summary."""
    from lungseg.harness.shipped import find_spec
    from lungseg.spec import read_spec

    read = read_spec(find_spec(spec), set_ or [])
    # Not before: what a spec says wrong needn't wait for torch.
    from lungseg.harness.run import benchmark as run
    from lungseg.system.distributed import join_processes

    directory = out or Path("results") / read.name
    with join_processes(device or read.runtime.device):
        written = run(read, directory, device, fresh, reuse=reuse, cluster=cluster)
    if written is not None:  # only the first of several processes has one
        print_results(written, ends=True)


@app.command()
def score(
    masks: Annotated[
        list[str], typer.Argument(help="NAME=FOLDER of masks or probability maps. Give several to compare.")
    ],
    truth: Annotated[Path, typer.Option(help="Folder of the true masks. Files match by name.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the X-rays, which figures show.")] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("results/score"),
    missing: Annotated[
        str, typer.Option(help="An image without a mask: refuse ends the run, empty counts it as missed.")
    ] = "refuse",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Of probability maps: pixels at or above it are lung.")
    ] = 0.5,
    set_: Annotated[
        Words, make_set_option("Patients, suffix or spacing: patient_pattern=^(p[0-9]+).")
    ] = None,
) -> None:
    """Score masks that any program made, as pictures or NPY arrays. Several rows are compared pairwise."""
    if missing not in ("refuse", "empty"):
        raise InputError(f"--missing {missing!r} is none of refuse, empty")
    from lungseg.harness.commands.score import make_score_spec, require_all_images, require_apart

    spec = make_score_spec(masks, truth, images, missing, threshold, set_ or [])
    require_apart(out, spec)
    require_all_images(spec)
    from lungseg.harness.run import benchmark as run

    print_results(run(spec, out), ends=True)


@app.command()
def evaluate(
    results: Annotated[Path, typer.Argument(help="A results directory with its models.")],
    data: Annotated[str, typer.Option(help="A dataset of `lungseg data list`, or module:Class.")],
    set_: Annotated[Words, make_set_option("A key of the dataset: images=chest/images.")] = None,
    name: Annotated[str | None, typer.Option(help="What tables call the dataset.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go. Default: RESULTS-on-NAME.")] = None,
    device: Device = None,
    spec: Annotated[
        Path | None, typer.Option(help="The benchmark's spec, to find its training images.")
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on with a leak, or without the audit; tables say so.")
    ] = False,
) -> None:
    """Score the stored models of a finished benchmark on another dataset; nothing is trained again."""
    from lungseg.results import read_run

    read_run(results)  # before torch is imported, which takes seconds
    from lungseg.harness.commands.evaluate_stored import evaluate_results
    from lungseg.harness.shipped import find_spec
    from lungseg.spec import parse_changes, read_spec

    known = None if spec is None else read_spec(find_spec(spec))
    options = parse_changes(set_ or [])
    print_results(evaluate_results(results, data, options, out, name, device, known, allow_leaks))


@app.command()
def predict(
    pictures: Annotated[
        list[Path], typer.Argument(help="A model's folder if you have one, then X-rays: files or folders.")
    ],
    out: Annotated[Path, typer.Option(help="Where masks, overlays and the table go.")] = Path("predictions"),
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of `lungseg export`, or a results directory. Give two to compare them. "
            "Default: the starter model."
        ),
    ] = None,
    approach: Annotated[
        list[str] | None, typer.Option(help="The row of a results directory. Repeatable, as --model.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Write probability maps too, as 16-bit PNG.")] = False,
    spacing_mm: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=100, help="Distance of pixels in mm, for areas in cm2. DICOM files say it."
        ),
    ] = None,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write masks of DICOM files as DICOM SEG too.")
    ] = False,
    device: Device = None,
) -> None:
    """Find the lungs in X-rays: masks, overlays, cut-outs and a table.

    Without a model the starter model is used. The exit code is 1 if a picture can't be read; the others are
    done. It is for research, not for diagnosis.
    """
    from lungseg.prediction.pictures import divide_words, find_pictures
    from lungseg.prediction.segmentation import require_dicom

    places, words = divide_words(model or [], approach or [], pictures)
    found = find_pictures(words, out)  # before torch is imported, which takes seconds
    if dicom_seg:
        require_dicom(found.pictures)
    from lungseg.prediction.models import load_models
    from lungseg.prediction.predict import Wishes, predict_pictures
    from lungseg.system.progress import Reporter

    models = load_models(places, device or "auto")
    with Reporter(console).bar("predicting") as move:
        outcome = predict_pictures(models, found.pictures, Wishes(out, maps, spacing_mm, dicom_seg), move)
    for text in (*(f"note: {note}" for note in found.notes), *outcome.list_sentences(models, out)):
        say(text)
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def export(
    directory: ResultsFolder,
    name: Annotated[str, typer.Argument(help="The row to export.")],
    out: Annotated[Path, typer.Option(help="The folder of the model; made if it isn't there.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx too, checked equal.")] = False,
) -> None:
    """Write the model of a row as a folder with its card, which `lungseg predict` and Python load.

    A row that was trained several times gives the model of its first fold and seed.
    """
    from lungseg.prediction.export import export_model

    for text in export_model(directory, name, out, onnx):
        say(text)


@app.command()
def report(
    directory: ResultsFolder,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns of summary.csv for summary.tex, as dice,hd95.", metavar="NAMES"),
    ] = None,
) -> None:
    """Make the tables, figures and page of a results directory again.

    For a folder of several: those of each, and an index of all. The exit code is 1 if one can't be read.
    """
    from lungseg.results import read_run

    chosen = [name.strip() for name in columns.split(",")] if columns else None
    several = not (directory / "run.json").exists() and any(directory.glob("*/run.json"))
    if not several:
        read_run(directory)  # before what draws is imported, which takes seconds
    from lungseg.report.write import write_report, write_reports

    if several:
        page, problems = write_reports(directory, chosen)
        say("\n".join([*problems, f"Index: {page}"]))
    else:
        written, problems = write_report(directory, chosen), []
        page = written.page
        print_results(written)
    if open_page:
        typer.launch(page.resolve().as_uri())
    if problems:
        raise typer.Exit(1)


@app.command()
def publish(
    directory: ResultsFolder,
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
    say(f"Published to {target}" + (f", and {readme} has its table" if filled else ""))


@app.command()
def info() -> None:
    """Show this machine's devices, versions, data and weights."""
    from lungseg.harness.commands.info import list_facts

    print_rows("lungseg", list_facts())
