"""Tries to break the program: damaged pictures, wrong specs, damaged results, killed runs.

`python -m benchmarks.studies.reliability.campaign --out results/reference/reliability`

Each case has to end with a sound result or with one sentence; anything else is a failure. A case is made from
the seed, its part and its number alone, so that `--only PART:NUMBER` repeats it. A part that is done is kept
in `--out`, so that a campaign that was cut goes on. The exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.studies.reliability import kills
from benchmarks.studies.reliability.image_cases import ImageCases
from benchmarks.studies.reliability.outcomes import BAD, COLUMNS, Outcome, make_rows
from benchmarks.studies.reliability.summary import write_summary
from benchmarks.studies.reliability.workers import Cases, make_context, run_cases, try_case
from lungseg.system.errors import InputError, shorten_paths
from lungseg.system.files import make_folder, write_atomically
from lungseg.system.stored import read_record, write_record

COUNTS = {"images": 10_000, "specs": 2_000, "states": 2_000, "kills": kills.COUNT}  # cases at scale 1
IMPORTED = ("benchmarks.studies.reliability.spec_cases", "benchmarks.studies.reliability.state_cases")
SAY_EVERY_S = 30.0
MEMORY_DISK = Path("/dev/shm")


def make_cases(part: str, seed: int, folder: Path) -> Cases:
    """Make the cases of a part other than "kills"."""
    if part == "images":
        return ImageCases(seed, folder)
    # Not before: they import torch, which reading images doesn't need.
    from benchmarks.studies.reliability.spec_cases import SpecCases
    from benchmarks.studies.reliability.state_cases import StateCases

    return {"specs": SpecCases, "states": StateCases}[part](seed, folder)


def run_part(part: str, scale: float, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yield the outcomes of a part's cases, as they end."""
    count = max(1, round(COUNTS[part] * scale))
    if part == "kills":
        return kills.run_kills(count, seed, folder)
    context = make_context(IMPORTED if part != "images" else ())
    return run_cases(make_cases(part, seed, folder), range(count), folder, context)


def store_part(part: str, chosen: argparse.Namespace) -> None:
    """Run a part and store its rows and failures, unless they are stored already."""
    # Not before: it imports torch, whose memory would count in processes that read images.
    from lungseg.system.machine import describe_cpu, list_versions

    place = _find_record(chosen.out, part)
    stored = read_record(place)
    if stored is not None and (stored["scale"], stored["seed"]) == (chosen.scale, chosen.seed):
        print(f"{part}: stored by a former campaign", flush=True)
        return
    begun, outcomes = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="lungseg-campaign-", dir=_find_disk()) as folder:
        said = begun
        for outcome in run_part(part, chosen.scale, chosen.seed, Path(folder)):
            outcomes.append(outcome)
            if outcome.result in BAD:
                print(_describe(outcome), flush=True)
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"{part}: {len(outcomes)} cases after {said - begun:.0f} s", flush=True)
    failures = [asdict(outcome) for outcome in outcomes if outcome.result in BAD]
    record = {
        "scale": chosen.scale,
        "seed": chosen.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "machine": describe_cpu(),
        "versions": list_versions(),
        "rows": make_rows(outcomes),
        "failures": [{**one, "text": shorten_paths(one["text"])} for one in failures],
    }
    write_record(place, record)


def _find_disk() -> Path | None:
    """A disk in memory, where waiting for a real one takes no time; None without one."""
    return MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None


def _find_record(out: Path, part: str) -> Path:
    return out / "parts" / f"{part}.json"


def _describe(outcome: Outcome) -> str:
    return f"{outcome.part}:{outcome.number} ({outcome.kind}) {outcome.result}: {outcome.text}"


def write_tables(out: Path) -> str:
    """Write campaign.csv, summary.md and failures.txt of the parts that are stored; return the summary."""
    found = {part: read_record(_find_record(out, part)) for part in COUNTS}
    records = {part: record for part, record in found.items() if record is not None}
    rows = [row for record in records.values() for row in record["rows"]]
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_atomically(out / "campaign.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomically(out / "failures.txt", "".join(_list_failures(records)))
    page = write_summary(records)
    write_atomically(out / "summary.md", page)
    return page


def _list_failures(records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A paragraph for each, with what repeats it."""
    for record in records.values():
        for one in record["failures"]:
            head = f"--only {one['part']}:{one['number']} --seed {record['seed']}"
            yield f"{head} ({one['kind']}): {one['result']} after {one['seconds']:.1f} s\n{one['text']}\n\n"


def repeat(words: str, seed: int) -> int:
    """Repeat one case in this process, print its outcome, and return the exit code."""
    part, _, number = words.partition(":")
    with tempfile.TemporaryDirectory(prefix="lungseg-campaign-", dir=_find_disk()) as folder:
        if part == "kills":
            outcome = kills.run_chain(int(number), seed, Path(folder))[-1]
        else:
            cases = make_cases(part, seed, Path(folder))
            cases.prepare()
            outcome = try_case(cases, int(number))
    print(_describe(outcome))
    return int(outcome.result in BAD)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/reliability"), help="folder of the tables")
    parser.add_argument("--part", choices=[*COUNTS, "all"], default="all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases, 1: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="PART:NUMBER", help="repeat one case, and write nothing")
    chosen = parser.parse_args(words)
    if chosen.scale <= 0 or chosen.seed < 0:
        parser.error("--scale is above 0, --seed at least 0")
    if chosen.only:
        part, _, number = chosen.only.partition(":")
        if part not in COUNTS or not number.isdecimal():
            parser.error(f"--only {chosen.only!r} is not of the form PART:NUMBER, such as images:12")
        return repeat(chosen.only, chosen.seed)
    try:
        make_folder(chosen.out)
        for part in COUNTS if chosen.part == "all" else [chosen.part]:
            store_part(part, chosen)
            page = write_tables(chosen.out)
    except InputError as error:
        parser.error(str(error))
    print(page)
    return int((chosen.out / "failures.txt").stat().st_size > 0)


if __name__ == "__main__":
    sys.exit(main())
