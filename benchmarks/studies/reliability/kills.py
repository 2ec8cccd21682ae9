"""Ends runs of all approaches, and `publish`, with signals, and starts them again."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.studies.reliability.commands import STOPPED, Command, let_interrupts_through
from benchmarks.studies.reliability.compare import find_changed, find_difference
from benchmarks.studies.reliability.outcomes import HANG, READ, SILENT, TRACEBACK, Outcome
from lungseg.system.stored import DamagedError, read_record

PART = "kills"
COUNT = 160  # signals at scale 1: 20 to `publish`, the others to `benchmark`
A_CHAIN = 4  # signals before a run may finish
# Of seven signals five are SIGKILL, which leaves no time to clean up.
SIGNALS = (*(signal.SIGKILL,) * 5, signal.SIGTERM, signal.SIGINT)
PUBLISHED_EVERY, PUBLISHED_AT = 8, 3  # of so many chains this one is of `publish`
TIMED_EVERY, TIMED_AT = 16, 5  # likewise of a benchmark that times predictions
GOLDEN = 0.618033988749895  # its multiples, without their whole part, lie evenly between 0 and 1
SOONER = 0.6  # of the moment, if the run had ended by then
PUBLISH_SECONDS = 0.5  # from its first file to its end, about
PROCESSES = 2
MARKS = "before\n<!-- results:killed -->\n<!-- /results:killed -->\nafter\n"
SPEC = """
name = "killed"
seeds = [0]
runtime = { device = "cpu", threads = 1 }
data = { dataset = "phantom", count = 12, size = 48, fractions = [0.5, 0.25, 0.25] }
timing = { enabled = false, batch_sizes = [1], repeats = 4, warmup = 1, rounds = 1, twice = false }
[[approach]]
use = "mean-mask"
size = 24
[[approach]]
use = "threshold"
size = 24
[[approach]]
use = "vgg19-pixels"
name = "trees"
weights = "random"
size = 16
pixels_per_image = 200
boosting = { rounds = 10 }
[[approach]]
use = "vgg19-pixels"
name = "mlp"
weights = "random"
size = 16
pixels_per_image = 200
regressor = "mlp"
mlp = { epochs = 3, hidden = 16 }
[[approach]]
use = "vgg19-context"
name = "context"
weights = "random"
size = 32
grid = 16
coarse = 8
scales = [32, 16]
layers = ["relu1_2"]
components = 4
contexts = 1
folds = 2
copies = 1
pixels_per_image = 60
pixels_per_copy = 30
boosting = { rounds = 10, leaves = 7, learning_rate = 0.2, min_leaf = 5 }
[[approach]]
use = "deeplabv3plus-resnet50"
name = "network"
weights = "random"
size = 32
epochs = 2
batch_size = 6
network = { topology = "seed" }
"""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing ended: its directory, and the seconds that it took."""

    out: Path
    seconds: float


@dataclass(frozen=True)
class Chain:
    """A few signals to one results directory, then a run to the end.

    Attributes:
        number, seed: of the chain; they fix the moments and signals.
        folder: of its own.
        whole: the undisturbed run.
        timed: predictions are timed.
    """

    number: int
    seed: int
    folder: Path
    whole: Undisturbed
    timed: bool = False

    def list_signals(self) -> list[tuple[signal.Signals, float]]:
        """List the signals with their moments between 0 and 1, the earliest first."""
        first = self.number * A_CHAIN
        moments = sorted((0.1 * self.seed + (first + step + 1) * GOLDEN) % 1 for step in range(A_CHAIN))
        return [(SIGNALS[(first + step) % len(SIGNALS)], moment) for step, moment in enumerate(moments)]

    def judge(self, kind: str, fault: str | None, command: Command, text: str = "") -> Outcome:
        """Return the outcome of a command."""
        result = READ
        if fault:
            result = HANG if fault.startswith("no end") else TRACEBACK
        seconds = time.monotonic() - command.begun
        return Outcome(PART, self.number, kind, result, f"{text} {fault or ''}".strip(), seconds)


def run_kills(count: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yield the outcomes of so many signals, and of the runs to the end behind each few of them."""
    chains = range(-(-count // A_CHAIN))
    whole = make_undisturbed(folder, any(_is_timed(number) for number in chains))
    with ThreadPoolExecutor(PROCESSES) as pool:
        for outcomes in pool.map(lambda number: run_chain(number, seed, folder, whole), chains):
            yield from outcomes


def _is_timed(number: int) -> bool:
    return number % TIMED_EVERY == TIMED_AT


def make_undisturbed(folder: Path, timed: bool) -> dict[bool, Undisturbed]:
    """Make the runs that nothing ends, at the same time; the timed one only if it is wanted."""
    let_interrupts_through()
    (folder / "spec.toml").write_text(SPEC)
    with ThreadPoolExecutor(PROCESSES) as pool:
        kinds = (False, True) if timed else (False,)
        return dict(zip(kinds, pool.map(lambda kind: _run_whole(folder, kind), kinds), strict=True))


def _run_whole(folder: Path, timed: bool) -> Undisturbed:
    own = folder / f"whole-{timed}"
    own.mkdir()
    command = Command(_list_words(folder, own / "out", timed), own)
    command.start()
    fault = command.find_fault(command.finish())
    if fault:
        raise RuntimeError(f"an undisturbed run failed: {fault}")
    return Undisturbed(own / "out", time.monotonic() - command.begun)


def _list_words(folder: Path, out: Path, timed: bool) -> list[str]:
    changes = ["--set", "timing.enabled=true"] if timed else []
    return ["benchmark", str(folder / "spec.toml"), "--out", str(out), *changes]


def run_chain(
    number: int, seed: int, folder: Path, whole: dict[bool, Undisturbed] | None = None
) -> list[Outcome]:
    """Run a chain and return the outcome of each signal, and then that of the run to the end."""
    timed = _is_timed(number)
    whole = whole or make_undisturbed(folder, timed)
    own = folder / f"chain-{number}"
    own.mkdir()
    chain = Chain(number, seed, own, whole[timed], timed)
    try:
        published = number % PUBLISHED_EVERY == PUBLISHED_AT
        return list(_kill_publish(chain) if published else _kill_benchmark(chain, folder))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _kill_benchmark(chain: Chain, folder: Path) -> Iterator[Outcome]:
    out = chain.folder / "out"
    command = Command(_list_words(folder, out, chain.timed), chain.folder)
    name = "timed benchmark" if chain.timed else "benchmark"
    for number, moment in chain.list_signals():
        fault = _stop(command, number, moment * chain.whole.seconds)
        kind = f"{number.name} to {name} {_describe_phase(out)}"
        yield chain.judge(kind, fault, command, f"after {command.stopped_after:.2f} s:")
    command.start()
    fault = command.find_fault(command.finish())
    outcome = chain.judge(f"{name} run to its end", fault, command)
    yield outcome if fault else _compare(outcome, chain, out)


def _stop(command: Command, number: signal.Signals, seconds: float) -> str | None:
    """Start a command and send it a signal after so many seconds, sooner if it has ended by then."""
    while True:
        command.start()
        moment = seconds
        code = command.stop(number, lambda passed: passed >= moment)  # noqa: B023 - called at once
        if command.hit:
            return command.find_fault(code, STOPPED[number])
        if fault := command.find_fault(code):
            return fault
        seconds *= SOONER


def _describe_phase(out: Path) -> str:
    """What is stored of a run."""
    done = len(list(out.glob("trials/*/*/trial.json")))
    try:
        finished = (read_record(out / "run.json") or {}).get("finished")
    except DamagedError:
        return "and its run.json is damaged"
    if finished:
        return "with all tables stored"
    all_done = done == SPEC.count("[[approach]]")
    return "with all trials stored" if all_done else "among the trials" if done else "before the first trial"


def _compare(outcome: Outcome, chain: Chain, out: Path) -> Outcome:
    """The outcome of a run that ended well, if its results are those of the undisturbed one."""
    whole = chain.whole.out
    found = find_difference(whole, out, chain.timed)
    if not found and not chain.timed:
        found = find_changed(whole, out, ("figures/*",))
    unfinished = sorted(path.relative_to(out).as_posix() for path in out.rglob(".*.part"))
    top = [name for name in unfinished if "/" not in name]
    if top and not found:
        found = f"{top[0]} is left at the top"
    more = f"left deeper: {', '.join(unfinished)}" if unfinished else ""
    return replace(outcome, result=SILENT if found else READ, text=f"{found or ''} {more}".strip())


def _kill_publish(chain: Chain) -> Iterator[Outcome]:
    """Half of the chains have a former copy to replace."""
    expected = chain.folder / "expected"
    _start_publish(chain, expected).finish()
    target = chain.folder / "target"
    if chain.number // PUBLISHED_EVERY % 2:
        _start_publish(chain, target).finish()
    for number, moment in chain.list_signals():
        command = _make_publish(chain, target)
        command.start()
        code = command.stop(number, _watch(target, moment * PUBLISH_SECONDS))
        fault = command.find_fault(code, STOPPED[number] if command.hit else (0,))
        hit = "publish" if command.hit else "publish, which had ended"
        yield chain.judge(f"{number.name} to {hit}", fault, command, f"after {command.stopped_after:.2f} s:")
    command = _start_publish(chain, target)
    fault = command.find_fault(command.finish())
    outcome = chain.judge("publish run to its end", fault, command)
    found = find_changed(expected, target, ("**/*",)) if not fault else None
    yield replace(outcome, result=SILENT, text=found) if found else outcome


def _make_publish(chain: Chain, to: Path) -> Command:
    to.mkdir(exist_ok=True)
    readme = to / "README.md"
    if not readme.exists():
        readme.write_text(MARKS)
    return Command(["publish", str(chain.whole.out), "--to", str(to), "--readme", str(readme)], chain.folder)


def _start_publish(chain: Chain, to: Path) -> Command:
    command = _make_publish(chain, to)
    command.start()
    return command


def _watch(target: Path, delay: float) -> Callable[[float], bool]:
    """The moment of a delay after `publish` has begun to copy; what a killed one left is older."""
    now, begun, new = time.time_ns(), [], target / ".killed.new"

    def reached(passed: float) -> bool:
        with suppress(OSError):
            if not begun and new.stat().st_ctime_ns > now:
                begun.append(passed)
        return bool(begun) and passed >= begun[0] + delay

    return reached
