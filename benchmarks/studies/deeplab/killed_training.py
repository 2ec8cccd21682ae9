"""Checks that a training that is killed several times ends with the same bits as one that is not.

`python -m benchmarks.studies.deeplab.killed_training --kills 10`

Trains a DeepLabV3+ on phantoms with the command line: once without a stop, and once killed (SIGKILL) at
random moments and started again with the same command. Then compares the stored weights and scores. The exit
code is 1 if they differ, if the training ended before the last kill, or if it started over instead of going
on. The table in `--out` says which step was stored at each kill.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from benchmarks.studies.study import make_parser, write_study
from lungseg.learning.networks.checkpoints import load_state
from lungseg.results import read_table
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder

SPEC = """
name = "killed-training"
seeds = [0]
runtime = {{ device = "cpu", threads = {threads} }}
[data]
dataset = "phantom"
count = {images}
size = 64
[[approach]]
use = "deeplabv3plus-resnet50"
name = "network"
weights = "random"
size = {size}
epochs = {epochs}
small_share = 0.5
small_size = 32
batch_size = 4
network = {{ topology = "{topology}" }}
[timing]
enabled = false
"""
COMPARED = ("models/network/f0-s0/deeplabv3plus.safetensors", "trials/network/f0-s0/scores.csv")
FITTED = "trials/network/f0-s0/fit.json"
CHECKPOINT = "trials/network/f0-s0/checkpoints/last.pt"


def start(spec: Path, out: Path) -> subprocess.Popen:
    """Start the benchmark, which stores the state of its training after every step."""
    command = [sys.executable, "-m", "lungseg", "benchmark", str(spec), "--out", str(out)]
    # A process group of its own, so that a kill ends all that it started. With the usual minute between
    # stored states, these short epochs would have one at their end alone.
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LUNGSEG_CHECKPOINT_SECONDS": "0"},
    )


def finish(process: subprocess.Popen) -> None:
    """Wait for a benchmark, and end this program if that failed."""
    _, words = process.communicate()
    if process.returncode:
        sys.exit(f"killed_training: the benchmark ended with {process.returncode}: {words.decode().strip()}")


def time_training(process: subprocess.Popen, out: Path) -> tuple[float, float]:
    """Return when the training of a run that was just started begins and ends, in seconds from now."""
    begun = time.perf_counter()
    while process.poll() is None and not (out / CHECKPOINT).parent.exists():
        time.sleep(0.02)
    before = time.perf_counter() - begun
    while process.poll() is None and not (out / FITTED).exists():
        time.sleep(0.02)
    return before, time.perf_counter() - begun


def wait_for_a_step(process: subprocess.Popen, out: Path) -> None:
    """Wait until a state is stored, or the run has ended: a kill during imports would show nothing."""
    begun = time.time()
    stored = out / CHECKPOINT
    while process.poll() is None and not (out / FITTED).exists():
        with suppress(FileNotFoundError):
            if stored.stat().st_mtime > begun:
                return
        time.sleep(0.02)


def kill_once(spec: Path, out: Path, wait: float) -> list[tuple[int, int]] | None:
    """Start the command and kill it `wait` seconds after it has stored a step.

    Returns:
        Epochs and steps of about the first state that it stored, and of the last; None if the training has
        ended by then.
    """
    process = start(spec, out)
    wait_for_a_step(process, out)
    first = _read_progress(out)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    else:
        finish(process)
    if (out / FITTED).exists():
        return None
    return [first, _read_progress(out)]


def _read_progress(out: Path) -> tuple[int, int]:
    """Return the epochs and steps of the stored state."""
    state = load_state(out / CHECKPOINT)
    return (0, 0) if state is None else (state["epoch"], state["step"])


def format_progress(place: tuple[int, int]) -> str:
    return f"{place[0]} epochs and {place[1]} steps"


def hash_results(out: Path) -> dict[str, str]:
    """Return the sha256 of each file that is compared."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED}


def main(words: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "results/killed-training")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--images", type=int, default=24, help="phantoms")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--topology", default="seed", choices=["standard", "smp", "seed"])
    longest = "seconds at most from a stored step to a kill (default: such that the kills are spread out)"
    parser.add_argument("--longest", type=float, help=longest)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    chosen = parser.parse_args(words)
    too_short = chosen.longest is not None and chosen.longest <= 0
    if min(chosen.kills, chosen.images, chosen.epochs, chosen.threads) < 1 or chosen.size < 32 or too_short:
        parser.error(
            "--kills, --images, --epochs, --threads are at least 1, --size at least 32, --longest above 0"
        )
    try:
        make_folder(chosen.out)  # before minutes are spent
        with tempfile.TemporaryDirectory(prefix="lungseg-killed-") as folder:
            return _compare(Path(folder), chosen)
    except InputError as error:
        parser.error(str(error))


def _compare(folder: Path, chosen: argparse.Namespace) -> int:
    """Train both ways and write the study; return the exit code."""
    spec, whole, cut = (folder / name for name in ("spec.toml", "whole", "cut"))
    keys = ("images", "size", "epochs", "topology", "threads")
    spec.write_text(SPEC.format(**{key: getattr(chosen, key) for key in keys}))
    begun = time.perf_counter()
    process = start(spec, whole)
    before, after = time_training(process, whole)
    finish(process)
    took = time.perf_counter() - begun
    print(f"in one go: {took:.1f} s, of which {after - before:.1f} s were training", flush=True)
    # A run goes on for half of this on average, so all kills together fit into the training.
    rows = _kill_repeatedly(spec, cut, chosen, chosen.longest or (after - before) / chosen.kills)
    if rows is None:
        return 1
    finish(start(spec, cut))
    expected, found = hash_results(whole), hash_results(cut)
    notes = [
        f"{name}: {'the same bits' if expected[name] == found[name] else 'DIFFERENT'} ({found[name][:12]})"
        for name in COMPARED
    ]
    best = read_table(cut, "training")["best_step"].item()
    notes += [f"The weights are those after epoch {best}, the best on validation.", *write_notes(chosen)]
    print(write_study(chosen.out, "A training killed again and again", pd.DataFrame(rows), notes))
    return int(expected != found)


def _kill_repeatedly(
    spec: Path, out: Path, chosen: argparse.Namespace, longest: float
) -> list[dict[str, object]] | None:
    """Return a table row a kill; None, with a printed reason, if the kills show nothing."""
    rng, rows, former = random.Random(chosen.seed), [], (0, 0)
    while len(rows) < chosen.kills:
        wait = rng.uniform(0, longest)
        places = kill_once(spec, out, wait)
        # After the state of the last step, no step is left to go on with.
        if places is None or places[0] == former == (chosen.epochs, 0):
            print(f"it was trained after {len(rows)} kills: give more --epochs, or a shorter --longest")
            return None
        first, last = places
        # A training that starts over ends with the same bits, too.
        if first <= former:
            print(f"it did not go on: {format_progress(former)} were stored, then {format_progress(first)}")
            return None
        former, stored = last, format_progress(last)
        rows.append({"kill": len(rows) + 1, "s after a first step": wait, "stored by then": stored})
        print(f"{len(rows)}: killed {wait:.2f} s after a first step, stored: {stored}", flush=True)
    return rows


def write_notes(chosen: argparse.Namespace) -> list[str]:
    return [
        "Compared with the same training in one go. Each kill is a SIGKILL to all processes of the command, "
        "at a random moment after it had stored a step of its own; then the same command was given again.",
        f"DeepLabV3+, topology {chosen.topology}, {chosen.size} px, {chosen.epochs} epochs of "
        f"{chosen.images} phantoms, the first half of the epochs at 32 px if that is less; "
        f"threads: {chosen.threads}; its state was stored at every step.",
    ]


if __name__ == "__main__":
    sys.exit(main())
