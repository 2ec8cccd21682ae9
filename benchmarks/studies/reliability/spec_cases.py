"""Nearly right specs, each read and planned; some are also given to the command line."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.studies.reliability.odd_values import ODD_TEXTS, SET_KEYS, SET_VALUES
from benchmarks.studies.reliability.outcomes import REFUSED, Wrong, judge_sentence
from benchmarks.studies.reliability.spec_damage import DAMAGE, NEIGHBOURS, Values, make_bases, write_toml
from lungseg.data.datasets.phantom import PhantomDataset
from lungseg.harness.plan import Plan, make_plan, require_fits
from lungseg.harness.record import new_record
from lungseg.spec import DataSpec, Spec, read_spec
from lungseg.system.errors import InputError

LIMIT, COMMAND_LIMIT = 30.0, 120.0  # seconds
COMMAND_EVERY = 100  # one of so many specs is given to the command line, too
MOST_COUNT, MOST_SIZE = 64, 128  # of phantoms; more are allowed, and take their time
PLANNED_TWICE = 0.1  # share of the specs
IN_TEXT, BY_SET = "text damaged", "--set"
CHANGES = NEIGHBOURS | DAMAGE
SOUND, DAMAGED = list(NEIGHBOURS), [*DAMAGE, IN_TEXT, BY_SET]
# What makes a spec look for weights on the network ends there at once.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@dataclass
class SpecCases:
    """A spec a case, at the seed's choice of base and change."""

    seed: int
    folder: Path
    part: str = "specs"

    def prepare(self) -> None:
        """Make the sound specs; the processes see no weights and no data of this machine."""
        self.bases = make_bases()
        os.environ.update(NO_NETWORK, TORCH_HOME=str(self.folder), LUNGSEG_CACHE=str(self.folder))
        for name in ("LUNGSEG_DATA", "LUNGSEG_WEIGHTS"):
            os.environ.pop(name, None)

    def name_kind(self, number: int) -> str:
        """Two of three are neighbours of a sound spec: what most people write."""
        return SOUND[number % len(SOUND)] if number % 3 else DAMAGED[number // 3 % len(DAMAGED)]

    def find_limit(self, number: int) -> float:
        return COMMAND_LIMIT if self._is_command(number) else LIMIT

    def _is_command(self, number: int) -> bool:
        return number % COMMAND_EVERY == COMMAND_EVERY - 1

    def run(self, number: int) -> None:
        """Write a spec, read and plan it. Raises InputError, or Wrong."""
        rng = np.random.default_rng([self.seed, 2, number])
        path = self.folder / f"{os.getpid()}.toml"
        changes = self._write(path, self.name_kind(number), rng)
        try:
            check_plan(path, changes, rng.random() < PLANNED_TWICE)
        except InputError as error:
            if self.name_kind(number) == "untouched":
                raise Wrong(f"a sound spec is refused: {error}") from error
            if self._is_command(number):
                check_command(path, changes, str(error))
            raise
        if self._is_command(number):
            check_command(path, [*changes, "no.such.key=1"], None)

    def _write(self, path: Path, kind: str, rng: np.random.Generator) -> list[str]:
        """Write the changed spec, and return the words of --set."""
        values = copy.deepcopy(self.bases[rng.integers(len(self.bases))])
        if kind in CHANGES:
            CHANGES[kind](values, rng)
        text = write_toml(values)
        data = text.encode()
        path.write_bytes(_damage_text(data, rng) if kind == IN_TEXT else data)
        return _draw_changes(values, rng) if kind == BY_SET else []


def _damage_text(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    at, line = int(rng.integers(len(data))), lines[rng.integers(len(lines))]
    odd = ODD_TEXTS[rng.integers(len(ODD_TEXTS))].encode()
    choices = (
        data[:at] + data[at + 1 :],
        data[:at] + bytes([rng.integers(256)]) + data[at:],
        data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :],
        data[:at],
        data + line,
        data.replace(line, b""),
        data[:at] + odd + data[at:],
        data + b'[[approach]]\nuse = "threshold"\n',
        data + b"[data]\n[data]\n",
        data.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
        data + b"#" * int(rng.integers(2_000_000)),
    )
    return choices[rng.integers(len(choices))]


def _draw_changes(values: Values, rng: np.random.Generator) -> list[str]:
    own = tuple(key for key in values if not isinstance(values[key], list))
    keys, found = SET_KEYS + own, []
    for _ in range(int(rng.integers(1, 4))):
        key = keys[rng.integers(len(keys))]
        value = SET_VALUES[rng.integers(len(SET_VALUES))]
        found.append(key if rng.random() < 0.05 else f"{key}={value}")
    return found


def check_plan(path: Path, changes: list[str], twice: bool) -> None:
    """Read, plan and describe a spec as a run does. Raises InputError if it is refused, or Wrong."""
    plan = _plan(path, changes)
    try:
        json.dumps(new_record(plan), allow_nan=False)
    except ValueError as error:
        raise Wrong(f"a number that is not finite is taken: {_find_not_finite(plan)}") from error
    if twice and _list_keys(_plan(path, changes)) != _list_keys(plan):
        raise Wrong("planned twice, and the keys of the trials differ")


def _plan(path: Path, changes: list[str]) -> Plan:
    plan = make_plan(_limit_phantoms(read_spec(path, changes)))
    require_fits(plan)
    return plan


def _list_keys(plan: Plan) -> list[str]:
    return [trial.keys.score for trial in plan.trials]


def _limit_phantoms(spec: Spec) -> Spec:
    """The spec with fewer and smaller phantoms, if it is sound and asks for many."""
    changed = {"data": _limit(spec.data)}
    if spec.training_data is not None:
        changed["training_data"] = _limit(spec.training_data)
    return spec.model_copy(update=changed)


def _limit(data: DataSpec) -> DataSpec:
    values = data.model_dump()
    fields = PhantomDataset.Settings.model_fields
    for key, most in (("count", MOST_COUNT), ("size", MOST_SIZE)):
        value, largest = values.get(key), fields[key].metadata[1].le
        if isinstance(value, int) and most < value <= largest:
            values[key] = most
    return type(data)(**values)


def _find_not_finite(plan: Plan) -> str:
    """The settings of the rows with such a number, as far as a sentence needs them."""
    found = []
    for entry in plan.entries:
        text = json.dumps(entry.settings.model_dump(mode="python"), default=str)
        if "NaN" in text or "Infinity" in text:
            found.append(f"{entry.spec.use}: {text}")
    return " ".join(found) or "in another table than those of the approaches"


def check_command(path: Path, changes: list[str], sentence: str | None) -> None:
    """Give a wrong spec to the command line. Raises Wrong if it ends in another way than with a sentence.

    Args:
        path: the spec.
        changes: words of --set.
        sentence: that it has to say; any if None.
    """
    words = [sys.executable, "-m", "lungseg", "benchmark", str(path), "--out", f"{path}.out"]
    words += [word for change in changes for word in ("--set", change)]
    if any("\0" in word for word in words):
        return  # no shell can give such a word
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    result, text = judge_sentence(done.stderr.removesuffix("\n"))
    if done.returncode != 2 or result != REFUSED or not text.startswith("lungseg: "):
        raise Wrong(f"the command line ended with {done.returncode} and said {done.stderr[-2000:]!r}")
    if sentence is not None and text != f"lungseg: {sentence}":
        raise Wrong(f"the command line said {text!r} instead of {sentence!r}")
