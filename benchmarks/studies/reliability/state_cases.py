"""Damaged states of a finished results directory: `report` and `benchmark` on each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

import lungseg.report.write
from benchmarks.studies.reliability.compare import SUMMARY, find_changed, find_difference
from benchmarks.studies.reliability.outcomes import REFUSED, Wrong, judge_sentence
from benchmarks.studies.reliability.state_damage import DAMAGES, draw_file
from lungseg.harness.run import benchmark
from lungseg.report.write import write_report
from lungseg.spec import read_spec
from lungseg.system.errors import InputError

SPEC = """
name = "damaged"
seeds = [0, 1]
runtime = { device = "cpu", threads = 1 }
data = { dataset = "phantom", count = 12, size = 48 }
timing = { enabled = false }
[[approach]]
use = "mean-mask"
size = 24
[[approach]]
use = "threshold"
size = 24
[[approach]]
use = "vgg19-pixels"
name = "pixels"
weights = "random"
size = 16
pixels_per_image = 200
regressor = "ridge"
"""
COMMANDS = ("report", "benchmark")
KINDS = list(DAMAGES)
LIMIT, COMMAND_LIMIT = 30.0, 180.0  # seconds
REAL_EVERY, REAL_AT = 30, 4  # of so many rounds of all kinds this one is for the command line, with figures
TABLES = ("*.csv", *SUMMARY)


@dataclass
class StateCases:
    """Two cases a state: with an even number `report`, with the next one `benchmark`."""

    seed: int
    folder: Path
    part: str = "states"

    def prepare(self) -> None:
        """Have the sound directory made, by whoever comes first. Figures take most of the time: none here."""
        os.environ.update(LUNGSEG_CACHE=str(self.folder / "cache"), TORCH_HOME=str(self.folder))
        warnings.simplefilter("always")
        lungseg.report.write.draw_figures = lambda contents: []
        self.spec, self.whole = self.folder / "spec.toml", self.folder / "whole"
        with FileLock(self.folder / "whole.lock"):
            if not self.whole.exists():
                self.spec.write_text(SPEC)
                benchmark(read_spec(self.spec), self.folder / "whole.new")
                (self.folder / "whole.new").rename(self.whole)
        warm = self.folder / f"state-{os.getpid()}"
        shutil.copytree(self.whole, warm)
        self._run_command("benchmark", warm, False)  # the first one in a process takes seconds more

    def name_kind(self, number: int) -> str:
        return f"{COMMANDS[number % 2]}: {self._find_damage(number)}"

    def _find_damage(self, number: int) -> str:
        return KINDS[number // 2 % len(KINDS)]

    def find_limit(self, number: int) -> float:
        return COMMAND_LIMIT if self._is_real(number) else LIMIT

    def _is_real(self, number: int) -> bool:
        """Whether the case is for the command line; as many for each kind of damage."""
        return number // 2 // len(KINDS) % REAL_EVERY == REAL_AT

    def run(self, number: int) -> None:
        """Damage a copy of the directory and give it to a command. Raises InputError, or Wrong."""
        damage = self._find_damage(number)
        whole = self._draw_whole() if self._is_real(number) else self.whole
        rng = np.random.default_rng([self.seed, 3, number // 2])
        copy = self.folder / f"state-{os.getpid()}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        file, alike = draw_file(copy, damage, rng)
        DAMAGES[damage](file, alike, rng)
        try:
            self._run_command(COMMANDS[number % 2], copy, self._is_real(number))
            self._check(COMMANDS[number % 2], copy, whole)
        except Wrong as error:
            raise Wrong(f"{file.relative_to(copy).as_posix()}: {error}") from error
        except InputError as error:
            if damage == "untouched":
                raise Wrong(f"a sound directory is refused: {error}") from error
            raise

    def _draw_whole(self) -> Path:
        """The sound directory with its figures, made by whoever comes first."""
        drawn = self.folder / "drawn"
        with FileLock(self.folder / "drawn.lock"):
            if not drawn.exists():
                new = self.folder / "drawn.new"
                shutil.copytree(self.whole, new)
                run_command("report", str(new))
                new.rename(drawn)
        return drawn

    def _run_command(self, command: str, directory: Path, real: bool) -> None:
        if real:
            words = (str(directory),) if command == "report" else (str(self.spec), "--out", str(directory))
            run_command(command, *words)
        elif command == "report":
            write_report(directory)
        else:
            benchmark(read_spec(self.spec), directory)

    def _check(self, command: str, directory: Path, whole: Path) -> None:
        """Raise Wrong if a command that said nothing left other results than the sound ones."""
        if command == "report":
            found = find_changed(whole, directory, (*TABLES, "figures/*"))
        else:
            found = find_difference(whole, directory)
            unfinished = sorted(path.name for path in directory.glob(".*.part"))
            found = found or (unfinished and f"{unfinished[0]} is left at the top") or None
        if found:
            raise Wrong(f"after `{command}` {found}")


def run_command(*words: str) -> None:
    """Run the command line. Raises InputError for its sentence, Wrong if it ended in any other way."""
    done = subprocess.run(
        [sys.executable, "-m", "lungseg", *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    result, text = judge_sentence(done.stderr.removesuffix("\n"))
    if done.returncode != 2 or result != REFUSED or not text.startswith("lungseg: "):
        raise Wrong(f"the command line ended with {done.returncode} and said {done.stderr[-2000:]!r}")
    raise InputError(text)
