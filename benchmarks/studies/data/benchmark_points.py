"""Measures one point of `benchmark_scale.py` in this process: a whole benchmark of so many phantoms as files.

`python -m benchmarks.studies.data.benchmark_points COUNT PICTURES SCRATCH`

Prints it as one line of JSON. The phantoms lie in the folder PICTURES. The cache and the results are written
into the folder SCRATCH, which is empty.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.studies.data.phantom_files import make_phantom_files
from lungseg.harness.run import benchmark
from lungseg.spec import read_spec
from lungseg.system.hashing import hash_code
from lungseg.system.memory import PeakMemory

MODULE = "benchmarks.studies.data.benchmark_points"
# Where each step begins. A step in another one counts there alone: `fit` isn't in `predict and score`.
STEPS = {
    "read data": ("lungseg.harness.plan", "load_data"),
    "leak audit": ("lungseg.harness.run", "audit_plan"),
    "fit": ("lungseg.harness.evaluate", "fit_trial"),
    "predict and score": ("lungseg.harness.run", "run_trial"),
    "store pictures": ("lungseg.harness.run", "store_pictures"),
    "join tables": ("lungseg.harness.run", "merge"),
    "statistics": ("lungseg.harness.run", "summarise"),
    "report": ("lungseg.harness.run", "write_report"),
}
SPEC = """
name = "scale"
[data]
dataset = "folder"
images = {images}
masks = {masks}
[[approach]]
use = "mean-mask"
[[approach]]
use = "vgg19-pixels"
regressor = "ridge"
pixels_per_image = 64
[timing]
enabled = false
"""


def hash_own_code() -> str:
    """Return the sha256 of the code that a point depends on."""
    return hash_code(MODULE)


class Stopwatch:
    """Sums up the seconds of steps; those of a step within another one are not counted there."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._running: list[list[Any]] = []  # name, and when it last went on

    def watch(self, step: str, module: str, name: str) -> None:
        """Measure a function from now on, wherever the module calls it."""
        place = importlib.import_module(module)
        setattr(place, name, self._wrap(step, getattr(place, name)))

    def _wrap(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def measured(*given: Any, **named: Any) -> Any:
            self._stop()
            self._running.append([step, time.perf_counter()])
            try:
                return call(*given, **named)
            finally:
                self._stop()
                self._running.pop()
                if self._running:
                    self._running[-1][1] = time.perf_counter()

        return measured

    def _stop(self) -> None:
        if self._running:
            step, since = self._running[-1]
            self.seconds[step] += time.perf_counter() - since


def measure(count: int, pictures: Path, scratch: Path) -> dict[str, float]:
    """Measure a point; the names are those of the study's columns."""
    os.environ["LUNGSEG_CACHE"] = str(scratch / "cache")
    folder = scratch / "data"
    for sample in make_phantom_files(count, pictures, masks=True):
        for part, path in zip(("images", "masks"), (sample.image_path, *sample.mask_paths), strict=True):
            (folder / part).mkdir(parents=True, exist_ok=True)
            os.link(path, folder / part / f"{sample.id}.png")
    spec = scratch / "scale.toml"
    texts = {part: json.dumps(str(folder / part)) for part in ("images", "masks")}
    spec.write_text(SPEC.format(**texts), "utf-8")
    watch = Stopwatch()
    for step, (module, name) in STEPS.items():
        watch.watch(step, module, name)
    start = time.perf_counter()
    with PeakMemory(torch.device("cpu")) as peak:
        benchmark(read_spec(spec), scratch / "out")
    total = time.perf_counter() - start
    found = {step: watch.seconds[step] for step in STEPS}
    start = time.perf_counter()
    benchmark(read_spec(spec), scratch / "out")
    again = time.perf_counter() - start
    files = [path for path in (scratch / "out").rglob("*") if path.is_file()]
    stored = {"results MiB": sum(path.stat().st_size for path in files) / 2**20}
    page = {"report.html MiB": (scratch / "out" / "report.html").stat().st_size / 2**20}
    return found | {"all": total, "again, all": again, "peak MiB": peak.mib} | stored | page


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))))
