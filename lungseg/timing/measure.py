"""What a timing process does: load one fitted approach and measure it when asked."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch
from torch.utils.flop_counter import FlopCounterMode

from lungseg.approaches.base import Approach
from lungseg.data.files.images import read_image
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.memory import PeakMemory
from lungseg.system.nvml import Gpu, NoNvmlError, open_gpu
from lungseg.system.plugins import load_class, validate
from lungseg.system.runtime import Runtime, be_deterministic, keep_float32_precision, use_threads
from lungseg.timing.energy import NoEnergyCounterError, measure_joules_per_image, open_counter
from lungseg.timing.statistics import run_steps, time_chain, warm_up

DECODED_AT_ONCE = 8  # files are read one by one, so a larger batch shows nothing new
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
SMALLEST_PRODUCT, PRODUCTS = 256, 20
# On a GPU, whose clock rises and falls: of each round at least, and of the matrix products.
ROUND_SECONDS, PRODUCT_SECONDS = 0.5, 2.5
# NVML's counter is updated every 20 to 100 ms: over two seconds an error of at most 5 %.
ENERGY_SECONDS = 2.0


@dataclass(frozen=True)
class Candidate:
    """A fitted approach to time: its name, class ("package.module:Class"), settings and folder."""

    name: str
    approach: str
    settings: dict[str, Any]
    directory: Path


class Stopwatch:
    """Measures a fitted approach in this process, on image files of one shape; larger batches repeat them."""

    def __init__(self, approach: Approach, files: Sequence[Path]) -> None:
        self.approach = approach
        self.files = files
        self.device = approach.runtime.device
        self._gpu: Gpu | None = None
        if self.device.type == "cuda":
            with suppress(NoNvmlError):
                self._gpu = open_gpu(self.device)

    def speed(self, batch_size: int, repeats: int, warmup: int) -> dict[str, Any]:
        """Time predictions of a batch, stage by stage and as a whole.

        "whole" goes from images in the host's memory to maps there; reading files is not part of it. The
        `warmup` calls are not timed. A GPU is warmed up until its clock is steady, and measured for at least
        half a second.

        Returns:
            "seconds" of each repeat by stage; "copies", the stages that copy between host and device;
            "memory", the columns of memory; "program", the columns that say what ran; and "state", that of
            the GPU as `Gpu.read_state` has it, empty on a CPU and without NVML.

        Raises:
            InputError: torch.compile failed, so what ran is not what should be timed.
        """
        with PeakMemory(self.device) as peak, torch.inference_mode():
            images, decode = self._read(batch_size, repeats)
            steps = self._steps(images)
            least_s = ROUND_SECONDS if self.device.type == "cuda" else 0.0
            if least_s:
                warm_up(lambda: (run_steps(steps, images), self._synchronise()), self._read_clock)
            states = [self._gpu.read_state()] if self._gpu else []
            seconds = time_chain(steps, images, repeats, warmup, self._synchronise, least_s)
            states += [self._gpu.read_state()] if self._gpu else []
        problem = getattr(self.approach, "not_compiled", None)
        if problem:  # what ran instead is another row of the table
            raise InputError(f"torch.compile failed: {problem}")
        copies = {"prepare", "finish", "whole", *(s.name for s in self.approach.stages() if s.copies)}
        return {
            "seconds": decode | seconds,
            "copies": copies,
            "memory": peak.list_cells(),
            "program": self._describe_program(),
            "state": join_states(states),
        }

    def _read_clock(self) -> float | None:
        return self._gpu.read_state()["sm_clock_mhz"] if self._gpu else None

    def _describe_program(self) -> dict[str, str | None]:
        facts = getattr(self.approach, "execution_facts", dict)()  # a plug-in may have none
        deterministic = "yes" if torch.are_deterministic_algorithms_enabled() else "no"
        return {"graph": facts.get("graph"), "folded": facts.get("folded"), "deterministic": deterministic}

    def energy(self, batch_size: int) -> dict[str, Any]:
        """Measure the energy of whole predictions.

        Returns:
            "joules_per_image" of the device, and "host_joules_per_image" of the host's processors if they
            have a counter; {"absent": reason} if the device has none.
        """
        counters = {}
        try:
            counters["joules_per_image"] = open_counter(self.device)
            with suppress(NoEnergyCounterError):
                counters["host_joules_per_image"] = open_counter(torch.device("cpu"))
        except NoEnergyCounterError as reason:
            return {"absent": str(reason)}
        with torch.inference_mode():
            images, _ = self._read(batch_size, 0)
            steps = self._steps(images)

            def predict() -> None:
                run_steps(steps, images)
                self._synchronise()

            predict()  # not counted, since another process has used the device
            joules = measure_joules_per_image([*counters.values()], predict, batch_size, ENERGY_SECONDS)
        return dict(zip(counters, joules, strict=True))

    def operations(self) -> dict[str, float | None]:
        """Count the operations of an image.

        GFLOP are counted by torch's FlopCounterMode: 2 for each multiply-add of matrix products and
        convolutions. Nothing else is counted, so decision trees count as none.

        Returns:
            "gflops", None for an approach without counted operations; "peak_gflops_per_s" of the device in
            the same precision, None likewise; and "compile_s".
        """
        images, _ = self._read(1, 0)
        compile_s = getattr(self.approach, "compile_seconds", None)
        self.approach.counted = True
        try:
            with FlopCounterMode(display=False) as counter, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.compile warns of the counter's hooks
                self.approach.predict(images)
        finally:
            self.approach.counted = False
        gflops = counter.get_total_flops() / 1e9
        if gflops == 0:
            return {"gflops": None, "peak_gflops_per_s": None, "compile_s": compile_s}
        peak = measure_product_speed(self.device, self.approach.runtime.dtype, PRODUCT_SIZE[self.device.type])
        return {"gflops": gflops, "peak_gflops_per_s": peak, "compile_s": compile_s}

    def _read(self, batch_size: int, repeats: int) -> tuple[list[np.ndarray], dict[str, list[float]]]:
        """A batch of images, each in memory of its own, and the seconds of reading one from its files."""
        chosen = [self.files[index % len(self.files)] for index in range(batch_size)]
        decode = {}
        if repeats and batch_size <= DECODED_AT_ONCE:
            steps = [("decode", lambda files: [read_image(file) for file in files])]
            decode = {"decode": time_chain(steps, chosen, min(repeats, 15), 1, lambda: None)["decode"]}
        images = {file: read_image(file) for file in set(chosen)}
        return [images[file].copy() for file in chosen], decode

    def _steps(self, images: Sequence[np.ndarray]) -> list[tuple[str, Callable]]:
        sizes = [image.shape for image in images]
        return [
            ("prepare", self.approach.prepare),
            *((stage.name, stage.run) for stage in self.approach.stages()),
            ("finish", lambda maps: self.approach.finish(maps, sizes)),
        ]

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_product_speed(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Measure the device's reachable peak speed: GFLOP/s of a square matrix product by torch.matmul.

    A product of N x N matrices is 2 N^3 floating-point operations. N is doubled from 256 to `size`, unless a
    product takes more than 20 ms before. The numbers are random, normal: a device multiplies zeros faster.
    The speed is that of the median of 20 products after warm-up, on a GPU of those of 2.5 s: what the device
    sustains, not its best moment. If convolutions of float32 may use TF32, so does the product.
    """
    synchronise = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    with torch.inference_mode(), keep_float32_precision():
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision
        steps = [("product", lambda matrix: torch.matmul(matrix, matrix))]
        first, n = 0.0, min(SMALLEST_PRODUCT, size) // 2
        while n < size and first <= 0.02:  # a type that the device only imitates can take minutes at `size`
            n *= 2
            matrix = torch.randn(n, n, device=device).to(dtype)
            first = time_chain(steps, matrix, 1, 1, synchronise)["product"][0]
        if device.type == "cuda":
            warm_up(lambda: (torch.matmul(matrix, matrix), synchronise()), lambda: None)
        least_s = PRODUCT_SECONDS if device.type == "cuda" else 0.0
        seconds = time_chain(steps, matrix, PRODUCTS, 1, synchronise, least_s)["product"]
    return 2 * n**3 / float(np.median(seconds)) / 1e9


def join_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the states of a GPU around a measurement: the lowest clock, the highest power and temperature."""
    if not states:
        return {}

    def choose(name: str, which: Callable[[list[float]], float]) -> float | None:
        known = [state[name] for state in states if state[name] is not None]
        return which(known) if known else None

    return {
        "sm_clock_mhz": choose("sm_clock_mhz", min),
        "power_w": choose("power_w", max),
        "temperature_c": choose("temperature_c", max),
        "throttle": list(dict.fromkeys(reason for state in states for reason in state["throttle"])),
    }


def _drop_graphs(stopwatch: Stopwatch | None) -> None:
    """Gives back the memory of CUDA graphs: other processes may need it, and graphs of another batch size."""
    if stopwatch is not None:
        getattr(stopwatch.approach, "drop_graphs", lambda: None)()  # a plug-in may have none


def run_worker(pipe: Connection, candidate: Candidate, files: list[Path], runtime: Runtime) -> None:
    """Run a timing process: load the candidate, then answer questions until the pipe closes.

    A question is (method of Stopwatch, its arguments). An answer is what the method returns, or {"error":
    sentence, "memory": whether the memory was full}.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    use_threads(runtime.threads)
    if runtime.deterministic:  # as fits and scores are: what is timed is the program that made the masks
        be_deterministic()
    stopwatch, failure = None, {}
    try:
        stopwatch = Stopwatch(_load(candidate, runtime), files)
    except Exception as error:
        failure = _failure(error)
    pipe.send("ready")
    rest = _seconds_to_rest()
    try:
        while True:
            method, *arguments = pipe.recv()
            answer = failure if stopwatch is None else _answer(getattr(stopwatch, method), arguments)
            _drop_graphs(stopwatch)
            if runtime.device.type == "cuda":
                with suppress(RuntimeError):  # torch before 2.12 can't after a graph that was not recorded
                    torch.cuda.empty_cache()  # the next process needs the memory
            time.sleep(rest)
            pipe.send(answer)
    except (EOFError, OSError):
        return


def _load(candidate: Candidate, runtime: Runtime) -> Approach:
    approach_class = load_class(candidate.approach, {}, Approach, "approach")
    settings = validate(approach_class.Settings, candidate.settings, candidate.name)
    use_threads(runtime.threads)  # again, for the thread pools of libraries that the class imports
    return approach_class.load(candidate.directory, settings, runtime)


def _answer(method: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> dict[str, Any]:
    try:
        return method(*arguments)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {"error": text if len(text) <= 300 else f"{text[:300]} ...", "memory": is_out_of_memory(error)}


def _seconds_to_rest() -> float:
    """How long the threads of a parallel region go on spinning; until then they disturb the next process.

    Intel's and LLVM's OpenMP spin 200 ms (KMP_BLOCKTIME) before they sleep, GNU's a few ms (GOMP_SPINCOUNT).
    """
    libraries = {library["prefix"] for library in threadpoolctl.threadpool_info()}
    return 0.25 if libraries & {"libiomp", "libomp"} else 0.01
