"""What the stages share: where findings go, sizes of the work, and how a call is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.turns import synchronise
from lungseg.approaches.deeplabv3plus.network import NetworkSettings
from lungseg.spec import RuntimeSpec
from lungseg.system.files import write_json
from lungseg.system.machine import count_usable_cores
from lungseg.system.runtime import Runtime, use_threads
from lungseg.system.usable_runtime import resolve_runtime
from lungseg.timing.statistics import time_chain, warm_up

RUNNING = "stopped"  # what stays in the file if the process dies
MOST_THREADS = 16


@dataclass(frozen=True)
class Scale:
    """How large the work is.

    Attributes:
        runtime: of the device, in the precision that the program chooses there.
        network: settings of DeepLabV3+.
        size: pixels a side.
        batches: images of a batch, from one up.
        training_batch: images of a training step.
        steps: of a training whose bits are compared.
        seconds: that a call is timed for at least.
    """

    runtime: Runtime
    network: NetworkSettings
    size: int
    batches: tuple[int, ...]
    training_batch: int
    steps: int
    seconds: float

    @property
    def on_gpu(self) -> bool:
        """Return whether this is no dry run."""
        return self.runtime.device.type == "cuda"


def make_scale(device: str) -> Scale:
    """Return the sizes of the real work, or on a CPU those of a dry run."""
    gpu = device == "cuda"
    runtime = resolve_runtime(RuntimeSpec(threads=min(MOST_THREADS, count_usable_cores())), device)
    use_threads(runtime.threads)
    if gpu:
        return Scale(runtime, NetworkSettings(), 512, (1, 8, 32, 128), 8, 6, 2.0)
    return Scale(runtime, NetworkSettings(topology="seed"), 32, (1, 2), 2, 2, 0.0)


class Findings:
    """The table rows of a stage, on the disk after each one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self.write(RUNNING)

    def add(self, what: str, found: object, wanted: str = "", right: bool | None = None) -> None:
        """Add a row: what was asked, what was found, and what is wanted, if anything is."""
        verdict = "" if right is None else "yes" if right else "no"
        self._rows.append({"what": what, "found": str(found), "wanted": wanted, "as wanted": verdict})
        self.write(RUNNING)

    def check(self, what: str, ask: Callable[[], float], most: float) -> None:
        """Add a number that should be at most `most`."""
        self.attempt(what, lambda: _judge(ask(), most))

    def attempt(self, what: str, ask: Callable[[], Any]) -> None:
        """Add what `ask` returns: a text, or the arguments of `add`; an error is a row too."""
        try:
            answer = ask()
        except Exception as error:  # the next question is to be asked all the same
            words = (str(error).splitlines() or [""])[0][:200]
            answer = (f"{type(error).__name__}: {words}", "no error", False)
        self.add(what, *answer) if isinstance(answer, tuple) else self.add(what, answer)

    def write(self, state: str) -> None:
        """Write all rows with the stage's state."""
        write_json(self._path, {"state": state, "why": "its process ended", "rows": self._rows})


def _judge(number: float, most: float) -> tuple[str, str, bool]:
    return f"{number:.3g}", f"at most {most:g}", number <= most


def time_ms(call: Callable[[], Any], scale: Scale) -> float:
    """Return the median milliseconds of a call, on a GPU after a warm-up by time."""

    def step(_: object) -> None:
        call()

    if scale.on_gpu:
        warm_up(lambda: (call(), synchronise()), lambda: None)
    seconds = time_chain([("call", step)], None, 3, 1, synchronise, scale.seconds)["whole"]
    return 1e3 * float(np.median(seconds))


def measure_distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference, as a share of the expected norm."""
    one, two = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((one - two).norm() / two.norm())
