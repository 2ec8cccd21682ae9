"""The commands on datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.output import Words, console, make_set_option, print_rows, say

data_app = typer.Typer(no_args_is_help=True, help="List, check or fetch datasets, or make phantoms.")


@data_app.command("list")
def list_datasets() -> None:
    """List the datasets, and which of them are on this machine."""
    from lungseg.harness.commands.info import list_datasets as found

    print_rows("datasets", found())


@data_app.command("check")
def check_dataset(
    what: Annotated[
        str, typer.Argument(help="A spec (mine.toml), a dataset of `lungseg data list`, or module:Class.")
    ],
    set_: Annotated[Words, make_set_option("A key of the dataset or spec: images=chest/images.")] = None,
) -> None:
    """Read and compare all images of a dataset. For a spec, check its split too.

    The exit code is 1 if there is a problem that would stop or mislead a training.
    """
    from lungseg.harness.commands.info import check_data
    from lungseg.system.progress import Reporter

    with Reporter(console).bar("reading and comparing all pictures") as move:
        found = check_data(what, set_ or [], move)
    for title, rows in found.tables:
        print_rows(title, rows)
    for note in found.notes:
        say(f"note: {note}")
    for problem in found.problems:
        say(f"problem: {problem}")
    say(f"{len(found.problems)} problem(s): mend them before training" if found.problems else "sound")
    if found.problems:
        raise typer.Exit(1)


@data_app.command("fetch")
def fetch_dataset(
    name: Annotated[str, typer.Argument(help="montgomery or shenzhen; for others it says how to get them.")],
) -> None:
    """Download a public dataset into LUNGSEG_DATA, check it and unpack it. Run it again to go on."""
    from lungseg.data import fetch
    from lungseg.data.loading import find_data_root
    from lungseg.system.progress import Reporter

    archive = fetch.find_archive(name)
    say(f"terms: {archive.terms}")
    say(f"cite:  {archive.citation}")
    with Reporter(console).bar(f"fetching {name}") as move:
        folder, sha256 = fetch.fetch_dataset(archive, find_data_root(), move)
    say(f"{name} is in {folder} (sha256 of the archive: {sha256})")
    say(f"next: {archive.next}")


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
    say(f"{count} phantoms in {out}/images, their masks in {out}/masks")
