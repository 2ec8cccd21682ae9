"""Whether a training that is killed again and again ends with the bits of one that is not.

`python -m benchmarks.studies.deeplab.killed_training --kills 10`

Trains a DeepLabV3+ on phantoms by the command line, once
in one go and once killed (SIGKILL) at random moments and started again with the same command, and compares
the stored weights and scores. Exit code 1 if they differ, if the training ended before the last kill, or if
it started over instead of going on.
The table in `--out` says how far each kill let it come.
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
import torch

from benchmarks.studies.study import write_study
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
count = 24
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
    command = [sys.executable, "-m", "lungseg", "benchmark", str(spec), "--out", str(out)]
    # A group of its own, so that a kill meets all that it started. Its state is stored at every step: with a
    # minute between them these short epochs would only be cut at their ends.
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LUNGSEG_CHECKPOINT_SECONDS": "0"},
    )


def finish(process: subprocess.Popen) -> None:
    _, words = process.communicate()
    if process.returncode:
        sys.exit(f"killed_training: the benchmark ended with {process.returncode}: {words.decode().strip()}")


def seconds_of_training(process: subprocess.Popen, out: Path) -> tuple[float, float]:
    """When the training of a run that has just been started begins and ends, in seconds from now."""
    begun = time.perf_counter()
    while process.poll() is None and not (out / CHECKPOINT).parent.exists():
        time.sleep(0.02)
    before = time.perf_counter() - begun
    while process.poll() is None and not (out / FITTED).exists():
        time.sleep(0.02)
    return before, time.perf_counter() - begun


def wait_for_a_step(process: subprocess.Popen, out: Path) -> None:
    """Until it has stored a state, or has ended: a kill while libraries are imported shows nothing."""
    begun = time.time()
    stored = out / CHECKPOINT
    while process.poll() is None and not (out / FITTED).exists():
        with suppress(FileNotFoundError):
            if stored.stat().st_mtime > begun:
                return
        time.sleep(0.02)


def kill_once(spec: Path, out: Path, wait: float) -> list[tuple[int, int]] | None:
    """Starts the command and kills it `wait` seconds after it has stored a step.

    Returns:
        the epochs and steps of about the first state that it stored, and of the last; None if it was trained
        by then.
    """
    process = start(spec, out)
    wait_for_a_step(process, out)
    first = _reached(out)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    else:
        finish(process)
    if (out / FITTED).exists():
        return None
    return [first, _reached(out)]


def _reached(out: Path) -> tuple[int, int]:
    """How far the stored state has come."""
    state = load_state(out / CHECKPOINT, torch.device("cpu"))
    return (0, 0) if state is None else (state["epoch"], state["step"])


def words_for(place: tuple[int, int]) -> str:
    return f"{place[0]} epochs and {place[1]} steps"


def digest(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--topology", default="seed", choices=["standard", "smp", "seed"])
    longest = "seconds at most from a stored step to a kill (default: such that the kills are spread out)"
    parser.add_argument("--longest", type=float, help=longest)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("results/killed-training"))
    chosen = parser.parse_args(words)
    too_short = chosen.longest is not None and chosen.longest <= 0
    if min(chosen.kills, chosen.epochs, chosen.threads) < 1 or chosen.size < 32 or too_short:
        parser.error("--kills, --epochs, --threads are at least 1, --size at least 32, --longest above 0")
    try:
        make_folder(chosen.out)  # before minutes are spent
        with tempfile.TemporaryDirectory(prefix="lungseg-killed-") as folder:
            return _compare(Path(folder), chosen)
    except InputError as error:
        parser.error(str(error))


def _compare(folder: Path, chosen: argparse.Namespace) -> int:
    spec = folder / "spec.toml"
    keys = ("size", "epochs", "topology", "threads")
    spec.write_text(SPEC.format(**{key: getattr(chosen, key) for key in keys}))
    begun = time.perf_counter()
    process = start(spec, folder / "whole")
    before, after = seconds_of_training(process, folder / "whole")
    finish(process)
    took = time.perf_counter() - begun
    print(f"in one go: {took:.1f} s, of which {after - before:.1f} s were training", flush=True)
    # As a rule a kill comes after half of it, and takes what wasn't stored yet with it.
    longest = chosen.longest or (after - before) / chosen.kills
    rng, rows, former = random.Random(chosen.seed), [], (0, 0)
    while len(rows) < chosen.kills:
        wait = rng.uniform(0, longest)
        places = kill_once(spec, folder / "cut", wait)
        # Between its last state and the end of the fit there is no step left to go on with.
        if places is None or places[0] == former == (chosen.epochs, 0):
            print(f"it was trained after {len(rows)} kills: give more --epochs, or a shorter --longest")
            return 1
        # One that starts over ends with the same bits, too.
        if places[0] <= former:
            print(f"it did not go on: {words_for(former)} were stored, then {words_for(places[0])}")
            return 1
        former, stored = places[-1], words_for(places[-1])
        rows.append({"kill": len(rows) + 1, "s after a first step": wait, "stored by then": stored})
        print(f"{len(rows)}: killed {wait:.2f} s after a first step, stored: {stored}", flush=True)
    finish(start(spec, folder / "cut"))
    whole, cut = digest(folder / "whole"), digest(folder / "cut")
    verdicts = [
        f"{name}: {'the same bits' if whole[name] == cut[name] else 'DIFFERENT'} ({cut[name][:12]})"
        for name in COMPARED
    ]
    kept = read_table(folder / "cut", "training")["best_step"].item()
    said = [*verdicts, f"The weights are those after epoch {kept}, the best on validation.", *notes(chosen)]
    print(write_study(chosen.out, "A training killed again and again", pd.DataFrame(rows), said))
    return int(whole != cut)


def notes(chosen: argparse.Namespace) -> list[str]:
    return [
        "Compared with the same training in one go. Each kill is a SIGKILL to all processes of the command, "
        "at a random moment after it had stored a step of its own; then the same command was given again.",
        f"DeepLabV3+, topology {chosen.topology}, {chosen.size} px, {chosen.epochs} epochs of 24 phantoms, "
        "the first half of the epochs at 32 px if that is less; "
        f"threads: {chosen.threads}; its state was stored at every step.",
    ]


if __name__ == "__main__":
    sys.exit(main())
