"""Times what a benchmark fitted, and writes timings.csv and timing_pairs.csv.

What was timed in each runtime is stored when that ends, so that a run that is cut times the others alone.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungseg.approaches.registry import APPROACHES
from lungseg.harness.plan import Plan
from lungseg.harness.trial import Trial
from lungseg.results import write_table
from lungseg.spec import TimingSpec, VariantSpec
from lungseg.system.errors import shorten_paths
from lungseg.system.files import make_folder
from lungseg.system.hashing import hash_code, hash_value
from lungseg.system.machine import describe_cpu, find_gpu_name
from lungseg.system.nvml import describe_gpu
from lungseg.system.progress import Reporter
from lungseg.system.runtime import Runtime
from lungseg.system.stored import DamagedError, describe_files, find_damage, read_record, write_record
from lungseg.system.usable_runtime import usable_runtime
from lungseg.timing.measure import Candidate
from lungseg.timing.pace import expect_seconds, list_batch_sizes
from lungseg.timing.turns import TIMING_IMAGES, Timings, choose_images, name_layout, time_approaches

CODE = "lungseg.timing.turns"
STORED = "trials/timings.json"
PHASES = "trials/timings"  # folder of what was timed in each runtime
TABLES_OF_TIMING = ("timings.csv", "timing_pairs.csv")


@dataclass(frozen=True)
class _Phase:
    """A runtime, and which approaches are timed in it (None: all). A variant isn't the run's own runtime."""

    runtime: Runtime
    timing: TimingSpec
    approaches: tuple[str, ...] | None = None
    variant: bool = False

    @property
    def label(self) -> str:
        device = self.runtime.device.type
        if not self.variant:
            return device
        words = [device, self.runtime.precision, name_layout(self.runtime)]
        words += ["compiled"] if self.runtime.compiled else []
        words += [] if self.runtime.tuned else ["not tuned"]
        words += [] if self.runtime.deterministic else ["not deterministic"]
        return ", ".join(words)

    def described(self) -> list[object]:
        """All that its timings depend on, for their key."""
        runtime = asdict(self.runtime) | {"device": str(self.runtime.device)}
        return [runtime, self.timing.model_dump(mode="json"), self.approaches, self.variant]


def time_plan(plan: Plan, trials: Sequence[Trial], directory: Path, reporter: Reporter) -> dict[str, str]:
    """Time the first fit of each approach, unless a former run stored the same timings.

    Args:
        plan: what to time in, and which images.
        trials: those of the plan that are done.
        directory: of the results; gets timings.csv and timing_pairs.csv.
        reporter: shows a bar for each runtime.

    Returns:
        why cells are empty, by what is in them.
    """
    timing = plan.spec.timing
    stored = directory / STORED
    fitted = _find_first(trials)
    if not timing.enabled or not fitted:
        _write_tables(directory, [])
        stored.unlink(missing_ok=True)  # it would vouch for the tables that were just emptied
        given = "all masks were given, so nothing was predicted"
        return {"timings": given if not fitted else "switched off in the spec"}
    phases, problems = _phases(plan)
    facts = [
        [(trial.entry.name, trial.keys.fit) for trial in fitted],
        [plan.evaluated.sha256, plan.folds[0].sha256, TIMING_IMAGES],
        [hash_code(CODE), describe_cpu(), describe_gpu()],
    ]
    keys = [hash_value([facts, phase.described()]) for phase in phases]
    key = hash_value(keys)
    former = _read_stored(directory)
    # What failed is tried again: a full memory may have been somebody else's doing.
    if former is None or former["key"] != key or former["failed"]:
        _remove_phases(directory, keys)
        timed = [
            _time_phase(phase, own, plan, fitted, directory, reporter)
            for phase, own in zip(phases, keys, strict=True)
        ]
        found = [one for one, _ in timed]
        _write_tables(directory, found)
        failed, empty = _reasons(phases, found)
        empty |= problems
        seconds = sum(each for _, each in timed)
        rounds = [one.rounds for one in found]
        former = {"key": key, "seconds": seconds, "failed": failed, "empty": empty, "rounds": rounds}
        write_record(stored, former | {"tables": describe_files(directory, TABLES_OF_TIMING)})
    return former["failed"] | former["empty"] | _why_no_cuda(plan)


def _read_stored(directory: Path) -> dict[str, Any] | None:
    """The record of stored timings whose tables are whole; None without them."""
    try:
        record = read_record(directory / STORED)
    except DamagedError:
        return None
    return None if record is None or find_damage(directory, record["tables"]) else record


def _time_phase(
    phase: _Phase, key: str, plan: Plan, fitted: Sequence[Trial], directory: Path, reporter: Reporter
) -> tuple[Timings, float]:
    """Times in one runtime, unless it is stored whole; the result, and the seconds that it took."""
    path = _find_phase(directory, key)
    with suppress(DamagedError):
        stored = read_record(path)
        if stored is not None and (phase.variant or not stored["timings"]["failed"]):
            return Timings(**stored["timings"]), stored["seconds"]
    start = time.perf_counter()
    _free_device_memory()
    found = _run(phase, plan, fitted, directory, reporter)
    seconds = time.perf_counter() - start
    # Through JSON, so that a row is the same whether it was just measured or read.
    values = json.loads(json.dumps(asdict(found), default=lambda number: number.item()))
    make_folder(path.parent)
    write_record(path, {"timings": values, "seconds": seconds})
    return Timings(**values), seconds


def _find_phase(directory: Path, key: str) -> Path:
    return directory / PHASES / f"{key[:32]}.json"


def _remove_phases(directory: Path, keys: Sequence[str]) -> None:
    """Removes what was timed of other fits, or with other settings."""
    kept = {_find_phase(directory, key) for key in keys}
    for path in (directory / PHASES).glob("*.json"):
        if path not in kept:
            path.unlink()


def _free_device_memory() -> None:
    """Gives back what training left in this process' cache: the processes that are timed may need it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def timing_seconds(directory: Path) -> float:
    """Return the seconds that the stored timings took; 0 without any."""
    record = _read_stored(directory)
    return record["seconds"] if record else 0.0


def estimate_seconds(timing: TimingSpec, approaches: int, device: str = "cpu") -> float:
    """Estimate the seconds of timing so many approaches by a rule of thumb; 0 if it is switched off."""
    if not timing.enabled:
        return 0.0
    sizes = list_batch_sizes(timing, device)
    variants = sum(_count(variant, approaches) for variant in timing.variants)
    twice = timing.twice and sizes[0] == 1
    once = expect_seconds(timing, 1, sizes, False)
    return approaches * expect_seconds(timing, 1, sizes, twice) + variants * once


def _count(variant: VariantSpec, approaches: int) -> int:
    return approaches if variant.approaches is None else len(variant.approaches)


def _write_tables(directory: Path, found: Sequence[Timings]) -> None:
    write_table(directory / "timings.csv", "timings", [row for one in found for row in one.rows])
    write_table(directory / "timing_pairs.csv", "timing_pairs", [row for one in found for row in one.pairs])


def _reasons(phases: Sequence[_Phase], found: Sequence[Timings]) -> tuple[dict[str, str], dict[str, str]]:
    """What is worth another try, and what is not: a variant that fails once, such as compiling without a
    compiler, mostly fails for good, and would have everything timed anew each time."""
    failed: dict[str, str] = {}
    empty: dict[str, str] = {}
    for phase, one in zip(phases, found, strict=True):
        reasons = {
            f"timings of {what} on {phase.label}": shorten_paths(why) for what, why in one.failed.items()
        }
        (empty if phase.variant else failed).update(reasons)
        for what, why in one.empty.items():
            # Whether a device counts its energy doesn't depend on the variant.
            where = phase.runtime.device.type if what == "joules_per_image" else phase.label
            empty[f"{what} on {where}"] = shorten_paths(why)
    return failed, empty


def _why_no_cuda(plan: Plan) -> dict[str, str]:
    if plan.runtime.device.type == "cuda":
        return {}
    reason = "no CUDA device on this machine" if find_gpu_name() is None else "the run was on the CPU"
    return {"timings on CUDA": reason}


def _find_first(trials: Sequence[Trial]) -> list[Trial]:
    """The trial of each approach that is timed: its first fold and seed."""
    first: dict[str, Trial] = {}
    for trial in trials:
        if not trial.entry.approach_class.given:
            first.setdefault(trial.entry.name, trial)
    return list(first.values())


def _phases(plan: Plan) -> tuple[list[_Phase], dict[str, str]]:
    """The run's own runtime first, then its variants; on a GPU machine last the CPU, for latency alone.

    Also returns, for what such a runtime can't do on the CPU though the spec asks for it, why.
    """
    problems: dict[str, str] = {}
    timing, own = plan.spec.timing, plan.runtime
    phases = [_Phase(own, timing)]
    once = timing.model_copy(update={"twice": False})
    for variant in timing.variants:
        changes = variant.model_dump(exclude={"approaches"}, exclude_none=True)
        phase = _Phase(replace(own, **changes), once, variant.approaches, True)
        if phase.runtime != own:  # what "auto" chose on this machine may be the variant already
            phases.append(phase)
    if own.device.type == "cuda" and timing.cpu_latency:
        # The CPU's throughput would cost more than all the rest.
        latency = timing.model_copy(update={"batch_sizes": (1,), "repeats": min(timing.repeats, 30)})
        runtime, problem = usable_runtime(plan.spec.runtime, "cpu")
        phases.append(_Phase(runtime, latency))
        if problem:
            problems["predictions by torch.compile on cpu"] = problem
    return phases, problems


def _run(phase: _Phase, plan: Plan, fitted: Sequence[Trial], directory: Path, reporter: Reporter) -> Timings:
    candidates = [
        Candidate(
            trial.entry.name,
            APPROACHES.get(trial.entry.spec.use, trial.entry.spec.use),
            trial.entry.settings.model_dump(mode="json"),
            trial.model(directory),
        )
        for trial in fitted
        if phase.approaches is None or trial.entry.name in phase.approaches
    ]
    with reporter.bar(f"timing on {phase.label}") as move:
        found = time_approaches(
            candidates, choose_images(_read_images(plan)), phase.runtime, phase.timing, move
        )
    if phase.variant:
        found.pairs = []  # approaches are compared in the run's own runtime alone
    return found


def _read_images(plan: Plan) -> list[np.ndarray]:
    """The first evaluated images, of which `choose_images` takes those that are timed."""
    return [sample.image() for sample in plan.folds[0].evaluated[: 4 * TIMING_IMAGES]]
