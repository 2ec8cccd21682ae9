"""Asks what works on a GPU, what repeats, and what it costs, in about ten minutes.

`python -m benchmarks.studies.gpu_first --out results/gpu-first`

Each stage is a process of its own with a time limit. What it finds is written at once. The same command goes
on with the stages that aren't finished. Only noise and phantoms are read, and no setting of the GPU changes.
`--device cpu` is a small dry run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pandas as pd
import torch

from benchmarks.studies.gpu_first.checks import CHECKS
from benchmarks.studies.gpu_first.found import Findings, Scale, make_scale
from benchmarks.studies.gpu_first.speeds import SPEEDS
from benchmarks.studies.study import make_parser, write_study
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_json

# Seconds at most, in the order of what is missed most if the time ends early.
LIMITS = {
    "facts": 90, "agreement": 100, "repeatability": 90, "ceilings": 60, "training": 150,
    "prediction": 100, "pixels": 120, "small-card": 60, "tests": 150,
}  # fmt: skip
STAGES = {name: (CHECKS | SPEEDS)[name] for name in LIMITS}
LEAST_SECONDS = 15  # left of --seconds, for a stage to be started
FINISHED, FAILED, CUT = "finished", "failed", "time limit"


def run_stage(name: str, scale: Scale, out: Path) -> None:
    """Run a stage in this process; its file has the state FINISHED only at its end."""
    found = Findings(_find_file(out, name))
    STAGES[name](found, scale)
    found.write(FINISHED)


def start_stage(name: str, arguments: argparse.Namespace, seconds: float) -> None:
    """Run a stage in a new process, and write its state, seconds and last words beside what it found."""
    file, begun = _find_file(arguments.out, name), time.monotonic()
    words = ["--stage", name, "--out", str(arguments.out), "--device", arguments.device]
    command = [sys.executable, "-m", "benchmarks.studies.gpu_first", *words]
    state, said = FAILED, ""
    log = file.with_suffix(".log")
    with log.open("w") as stream:
        try:
            run_in_session(command, seconds, stream)
        except subprocess.TimeoutExpired:
            state = CUT
    said = log.read_text(errors="replace").strip()
    stored = read_json(file) if file.exists() else {"state": FAILED, "rows": []}
    if stored["state"] != FINISHED:
        stored |= {"state": state, "why": (said.splitlines() or ["no words"])[-1][-300:]}
    write_json(file, stored | {"seconds": round(time.monotonic() - begun, 1)})


def run_in_session(command: Sequence[str], seconds: float, log: IO[str]) -> None:
    """Run a command in a session of its own, and end it with all processes that it started.

    Raises subprocess.TimeoutExpired after so many seconds.
    """
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            process.wait(seconds)
        except BaseException:  # Ctrl-C doesn't reach another session either
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def make_table(out: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of all that was found so far, and a sentence on each stage that isn't finished."""
    rows: list[dict[str, Any]] = []
    notes = []
    for name in STAGES:
        stored = read_json(_find_file(out, name)) if _find_file(out, name).exists() else {}
        rows += [{"stage": name, **row} for row in stored.get("rows", [])]
        if stored.get("state") != FINISHED:
            state = f"{stored['state']}: {stored['why']}" if stored else "not started"
            notes.append(f"{name}: {state}. The same command goes on with it.")
    return pd.DataFrame(rows, columns=["stage", "what", "found", "wanted", "as wanted"]), notes


def _find_file(out: Path, name: str) -> Path:
    return out / "stages" / f"{name}.json"


def _is_finished(out: Path, name: str) -> bool:
    file = _find_file(out, name)
    return file.exists() and read_json(file).get("state") == FINISHED


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__, "results/gpu-first")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a small dry run")
    parser.add_argument("--seconds", type=float, default=590, help="in all; the same command goes on")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES), help="stages")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here: use --device cpu for a dry run")
    return parser, arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the stages that are left; return 1 if one of them didn't finish or found what isn't wanted."""
    parser, arguments = parse(words)
    # cuBLAS repeats its bits only with a workspace of fixed size, and reads this once, before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    begun = time.monotonic()
    try:
        make_folder(arguments.out / "stages")
        if arguments.stage:
            run_stage(arguments.stage, make_scale(arguments.device), arguments.out)
            return 0
        for name in arguments.only:
            left = arguments.seconds - (time.monotonic() - begun)
            if left < LEAST_SECONDS or _is_finished(arguments.out, name):
                continue
            print(f"{name}: {min(LIMITS[name], left):.0f} s at most", flush=True)
            start_stage(name, arguments, min(LIMITS[name], left))
            _write(arguments)
        print(_write(arguments))
    except InputError as error:
        parser.error(str(error))
    table, _ = make_table(arguments.out)
    finished = all(_is_finished(arguments.out, name) for name in arguments.only)
    return int(not finished or (table["as wanted"] == "no").any())


def _write(arguments: argparse.Namespace) -> str:
    table, notes = make_table(arguments.out)
    if arguments.device == "cpu":
        notes.append("A dry run on the CPU at small sizes: its times say nothing about a GPU.")
    notes.append("Images are noise or phantoms, and weights are random.")
    return write_study(arguments.out, "The first ten minutes on a GPU", table, notes)


if __name__ == "__main__":
    sys.exit(main())
