"""Measures which library evaluates LightGBM's trees fastest on the CPU.

`python -m benchmarks.studies.pixels.tree_libraries`

Compares LightGBM's own prediction, this program's engine, and of tl2cgen, lleaves and ONNX Runtime those that
are installed, on the same trees and the same pixels' features, in turns. Each runs in a process of its own.
A library that does not go with the others gets a Python of its own: `--python lleaves=VENV/bin/python`.
LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, the images are phantoms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.studies.pixels.models import choose_samples, compute_pixel_rows, fit_plain_model
from benchmarks.studies.pixels.tree_process import LIBRARIES
from benchmarks.studies.study import make_parser, write_study
from benchmarks.studies.turns import take_turns
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.report.markup import format_count
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.machine import count_usable_cores
from lungseg.system.runtime import Runtime, use_threads

OWN, OURS = "lightgbm", "lungseg"
INSTALL = {
    "tl2cgen": "pip install tl2cgen treelite, and a C compiler",
    "lleaves": 'pip install lleaves "llvmlite<0.45" in an environment of its own, then --python lleaves=PATH',
    "onnxruntime": "pip install onnxruntime onnxmltools skl2onnx",
}
TOLERANCE = 1e-6
SCRIPT = Path(__file__).with_name("tree_process.py")


class Library:
    """A process of `tree_process.py`.

    Attributes:
        found: its first answer.
        scores: the file of its raw scores, float64 N.
    """

    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.name, self.scores = name, folder / f"{name}.npy"
        words = [python, str(SCRIPT), name, str(folder / "model.txt"), str(folder / "rows.npy")]
        try:
            self._process = subprocess.Popen(
                [*words, str(self.scores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise InputError(
                f"--python {name}={python} can't be run ({error.strerror}): name a Python interpreter"
            ) from error
        self.found: dict[str, Any] = {}

    def __enter__(self) -> Library:
        self.found = self._read_answer()
        return self

    def predict(self, threads: int, _: object = None) -> None:
        """Ask for one prediction of all rows, and wait for it."""
        print(threads, file=self._process.stdin, flush=True)
        self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the process of {self.name} ended early: leave it out with --libraries")
        return json.loads(line)

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def measure(arguments: argparse.Namespace) -> tuple[pd.DataFrame, list[str]]:
    """Return the table and its notes.

    Raises:
        InputError: an interpreter or the data can't be used.
    """
    use_threads(arguments.threads)
    runtime = Runtime(torch.device("cpu"), threads=arguments.threads)
    source, samples = choose_samples(arguments.images)
    network, size = PixelFeatures("auto"), arguments.size
    model = fit_plain_model(samples, network, runtime, size, *arguments.forest)
    rows = np.ascontiguousarray(compute_pixel_rows(samples, network, runtime, size).numpy())
    with tempfile.TemporaryDirectory(prefix="lungseg-tree-libraries-") as scratch, ExitStack() as stack:
        write_atomically(Path(scratch) / "model.txt", model)
        np.save(Path(scratch) / "rows.npy", rows)
        libraries = []
        for name in arguments.libraries:  # one after the other, since preparing is timed
            python = arguments.python.get(name, sys.executable)
            libraries.append(stack.enter_context(Library(name, python, Path(scratch))))
        table = pd.DataFrame(_make_rows(libraries, len(rows), arguments))
    trees, leaves = arguments.forest
    about = f"{trees} trees of {leaves} leaves on the 64 features of relu1_2"
    images = format_count(len(samples), "image")
    images = f"{len(rows):,} rows, all pixels at {size} x {size} of {images}, {source}"
    return table, [*describe_results(table), f"{about}; {images}.", *NOTES]


def _make_rows(
    libraries: Sequence[Library], count: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row a library and a number of threads, and one for each library that can't be measured."""
    ready = [library for library in libraries if "seconds" in library.found]
    if not ready or ready[0].name != OWN:
        raise InputError(f"LightGBM's own prediction can't be measured ({_explain(libraries[0])})")
    found = []
    for threads in sorted({1, arguments.threads}):
        chains = {one.name: [("predict", partial(one.predict, threads))] for one in ready}
        measured = take_turns(chains, lambda _: None, arguments.repeats)
        for one in ready:
            row = {"library": one.name, "versions": one.found["versions"], "threads": threads}
            row |= measured[one.name].row_speed(count)
            if one.name != OWN:
                row |= measured[one.name].compare_with(measured[OWN])
                row["largest difference of raw scores"] = _compare_scores(one, ready[0])
            found.append({**row, "preparing s": one.found["seconds"]})
    return found + [
        {"library": one.name, "why empty": _explain(one)} for one in libraries if "seconds" not in one.found
    ]


def _compare_scores(one: Library, other: Library) -> float:
    """Return the largest difference of raw scores."""
    return float(np.abs(np.load(one.scores) - np.load(other.scores)).max())


def _explain(library: Library) -> str:
    """Say why a library can't be measured."""
    problem = library.found.get("failed") or f"not installed ({library.found['absent']})"
    return f"{problem}: {INSTALL[library.name]}" if library.name in INSTALL else problem


def describe_results(table: pd.DataFrame) -> list[str]:
    """Say which library is the fastest, and which differ from LightGBM's own prediction."""
    found = []
    for threads, rows in table.dropna(subset="threads").groupby("threads"):
        best = rows.loc[rows["million rows/s"].idxmax()]
        found.append(
            f"Fastest with {threads:.0f} thread{'s' * (threads > 1)}: {best['library']}, "
            f"{best['million rows/s']:.3g} million rows/s."
        )
    different = table[table["largest difference of raw scores"] > TOLERANCE]["library"].unique()
    if len(different):
        found.append(f"Raw scores farther than {TOLERANCE:g} from LightGBM's own: {', '.join(different)}.")
    return found


NOTES = [
    f"{OWN} is LightGBM's own prediction, {OURS} this program's engine on the CPU. Rows and scores stay in "
    "each library's own form: rows one after the other; for this program's engine a column's values side by "
    "side, as in maps.",
    "Preparing: from LightGBM's model text to the first prediction, with generated and compiled code, "
    "without imports. times as fast: LightGBM's time over the library's, by the medians of turns A B, B A; "
    "the median of the turns, the lowest and the highest. p10 is the slower end.",
]


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__, "results/tree-libraries")
    others = [name for name in LIBRARIES if name != OWN]
    parser.add_argument("--libraries", nargs="+", choices=others, default=others, help="besides lightgbm")
    parser.add_argument("--python", action="append", default=[], metavar="LIBRARY=PATH")
    parser.add_argument("--threads", type=int, default=count_usable_cores(), help="measured besides one")
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--forest", type=int, nargs=2, default=[300, 63], metavar=("TREES", "LEAVES"))
    arguments = parser.parse_args(words)
    trees, leaves = arguments.forest
    if min(arguments.threads, arguments.repeats, arguments.images, trees) < 1:
        parser.error("--threads, --repeats, --images and the TREES of --forest are at least 1")
    if arguments.size < 16 or leaves < 2:
        parser.error("--size is at least 16, the LEAVES of --forest at least 2")
    arguments.libraries = [OWN, *dict.fromkeys(arguments.libraries)]
    arguments.python = _parse_interpreters(parser, arguments.python)
    return parser, arguments


def _parse_interpreters(parser: argparse.ArgumentParser, words: Sequence[str]) -> Mapping[str, str]:
    found = dict(word.partition("=")[::2] for word in words)
    for name, path in found.items():
        if name not in LIBRARIES or not path:
            parser.error(f"--python {name}={path}: give LIBRARY=PATH, one of {', '.join(LIBRARIES)}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    try:
        table, notes = measure(arguments)
        print(write_study(arguments.out, "Libraries that evaluate trees", table, notes))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
