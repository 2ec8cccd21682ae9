"""Measures one point of `audit_scale.py` in this process: the leak audit of so many phantoms and 100 copies.

`python -m benchmarks.studies.data.audit_points PHANTOMS PICTURES SCRATCH`

Prints it as one line of JSON. The phantoms lie in the folder PICTURES. Copies and the cache of the audit are
written into the folder SCRATCH, which is empty.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies.data.phantom_files import make_phantom_files
from benchmarks.studies.data.planted_leaks import COPIES, KINDS, SEED, to_picture
from lungseg.data.audit import alignment
from lungseg.data.audit.compare import Findings, compare_samples
from lungseg.data.files.file_sample import FileSample
from lungseg.data.sample import Sample
from lungseg.system.hashing import hash_code
from lungseg.system.memory import PeakMemory

MODULE = "benchmarks.studies.data.audit_points"
COPIED = 500  # the first phantoms; the copies are of these, so they are the same at every count


def hash_own_code() -> str:
    """Return the sha256 of the code that a point depends on."""
    return hash_code(MODULE)


def plant_files(originals: Sequence[Sample], folder: Path) -> dict[str, FileSample]:
    """Write changed copies as PNG files, and return them by the ids of the originals and the kind."""
    rng = np.random.default_rng(SEED)
    folder.mkdir(parents=True)
    copies = {}
    for kind, (name, change) in enumerate(KINDS.items()):
        for index in sorted(rng.choice(len(originals), COPIES, replace=False).tolist()):
            path = folder / f"copy-{kind}-of-{originals[index].id}.png"
            to_picture(change(originals[index].image(), rng)).save(path)
            copies[f"{name} of {originals[index].id}"] = FileSample(
                path.stem, "planted", path.stem, "", path, ()
            )
    return copies


def count_found(findings: Findings, copies: Sequence[Sample]) -> tuple[int, int]:
    """Return how many copies were found with their originals, and how many pairs are false alarms."""
    originals = {copy.id: copy.id.partition("-of-")[2] for copy in copies}
    found, wrong = set(), 0
    for pair in findings.pairs:
        first, second = pair.first[1], pair.second[1]
        if originals.get(first, first) != originals.get(second, second):
            wrong += 1
        elif (first in originals) != (second in originals):
            found.add(first if first in originals else second)
    return len(found), wrong


@contextmanager
def count_alignments() -> Iterator[list[int]]:
    """Count the calls of `measure_similarity`; the number is in the list at the end of the block."""
    real, calls, counted = alignment.measure_similarity, itertools.count(), [0]

    def measure(*arguments: object) -> float:
        next(calls)  # one step of the interpreter, so threads lose none
        return real(*arguments)

    alignment.measure_similarity = measure
    try:
        yield counted
    finally:
        alignment.measure_similarity = real
        counted[0] = next(calls)


def audit(samples: Sequence[Sample], copies: Sequence[Sample]) -> tuple[Findings, float, float, int]:
    """Return what the audit found, its seconds, its processor seconds, and how many pictures it read."""
    read = [0]

    def watch(done: int, _: int, text: str) -> None:
        if text == "reading pictures":
            read[0] = done

    wall, cpu = time.perf_counter(), time.process_time()
    findings = compare_samples({"phantoms": samples, "planted": copies}, watch)
    return findings, time.perf_counter() - wall, time.process_time() - cpu, read[0]


def measure(count: int, pictures: Path, scratch: Path) -> dict[str, float]:
    """Measure a point; the names are those of the study's columns."""
    os.environ["LUNGSEG_CACHE"] = str(scratch / "cache")
    samples = make_phantom_files(count + 1, pictures)
    copies = list(plant_files(samples[: min(count, COPIED)], scratch / "copies").values())
    with PeakMemory(torch.device("cpu")) as peak, count_alignments() as aligned:
        findings, seconds, cpu, read = audit(samples[:count], copies)
    found, wrong = count_found(findings, copies)
    point = {
        "read": read,
        "seconds": seconds,
        "CPU seconds": cpu,
        "peak MiB": peak.mib,
        "aligned": aligned[0],
    }
    point |= {"copies found": found, "copies": len(copies), "false alarms": wrong}
    again, point["again, seconds"], _, point["again, read"] = audit(samples[:count], copies)
    more, point["one added, seconds"], _, point["one added, read"] = audit(samples, copies)
    point["same again"] = again == findings
    point["same pairs with one added"] = more.pairs == findings.pairs
    files = [path for path in (scratch / "cache").rglob("*") if path.is_file()]
    point |= {"cache files": len(files), "cache MiB": sum(path.stat().st_size for path in files) / 2**20}
    return point


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))))
