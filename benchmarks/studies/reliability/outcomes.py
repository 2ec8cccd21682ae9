"""What became of each case of the campaign, and the rows of its table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

READ, REFUSED, TRACEBACK, HANG, SILENT = "read", "refused", "traceback", "hang", "silent"
BAD = (TRACEBACK, HANG, SILENT)
LONGEST_SENTENCE = 2000  # characters; more is a dump of the input and no sentence
COLUMNS = [
    "part", "kind", "tried",
    "read",  # taken as sound, with a result that passed all checks
    "refused",  # with one sentence
    "tracebacks",  # any other error, a process that died, or a refusal of more than one line
    "hangs",
    "silent",  # a result that differs although nothing was said
    "noise",  # cases with a line on stderr that the program didn't mean to write
    "slowest_s", "peak_mib",
]  # fmt: skip


class Wrong(Exception):
    """A result that differs from what it has to be, although nothing was said."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        part, number: with the seed they make the case again.
        kind: of damage.
        result: READ, REFUSED, TRACEBACK, HANG or SILENT.
        text: the sentence, the traceback, or what differs.
        peak_mib: of the process that ran it.
        noise: lines on stderr.
    """

    part: str
    number: int
    kind: str
    result: str
    text: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0
    noise: int = 0


def judge_sentence(text: str) -> tuple[str, str]:
    """Return the result and the text of a refusal: it has to be one printable line that isn't too long."""
    if not text.strip() or not all(letter.isprintable() for letter in text):
        return TRACEBACK, f"a refusal that is not one printable line: {text!r}"
    if len(text) > LONGEST_SENTENCE:
        return TRACEBACK, f"a refusal of {len(text)} letters: {text[:200]!r}"
    return REFUSED, text


def make_rows(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return a row of the table for each part and kind, in the order in which they occur."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda one: (one.part, one.kind)):
        groups.setdefault((outcome.part, outcome.kind), []).append(outcome)
    return [_make_row(part, kind, group) for (part, kind), group in groups.items()]


def _make_row(part: str, kind: str, group: list[Outcome]) -> dict[str, Any]:
    results = [outcome.result for outcome in group]
    return {
        "part": part,
        "kind": kind,
        "tried": len(group),
        "read": results.count(READ),
        "refused": results.count(REFUSED),
        "tracebacks": results.count(TRACEBACK),
        "hangs": results.count(HANG),
        "silent": results.count(SILENT),
        "noise": sum(outcome.noise > 0 for outcome in group),
        "slowest_s": round(max(outcome.seconds for outcome in group), 2),
        "peak_mib": round(max(outcome.peak_mib for outcome in group)),
    }
