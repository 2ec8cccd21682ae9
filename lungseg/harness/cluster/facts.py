"""What keys are made of, and in what a worker differs."""

from __future__ import annotations

import json
from typing import Any

from lungseg.harness.keys import SCORE_CODE, facts_of_fit
from lungseg.harness.plan import Plan
from lungseg.system.hashing import hash_code

SAME_CODE = "install the same code there"
ADVICE = {
    "machine": "use workers with as many cores of the same kind as this machine has",
    "runtime": "name runtime.device, runtime.precision and runtime.threads in the spec",
    "compiled": "leave out runtime.compiled, or install a compiler there",
    "versions": "install the same versions there",
    "data": "give it the same data under LUNGSEG_DATA",
    "scored data": "give it the same data under LUNGSEG_DATA",
    "weights": "give it the same weights under LUNGSEG_WEIGHTS",
}


def list_facts(plan: Plan) -> dict[str, dict[str, Any]]:
    """List by approach what its keys are made of, as JSON gives it back."""
    common = {
        "scored data": [[each.name, each.sha256] for each in (plan.evaluated, *plan.further)],
        "code of scores": hash_code(SCORE_CODE),
        "compiled": plan.runtime.compiled,
    }
    facts = {
        entry.name: {"skipped": entry.skipped} if entry.skipped else facts_of_fit(entry) | common
        for entry in plan.entries
    }
    return json.loads(json.dumps(facts, default=str))


def explain_difference(here: dict[str, Any], there: dict[str, Any]) -> str:
    """Say in what the facts of an approach differ on a worker, and what to do.

    Args:
        here: those of this machine.
        there: the worker's.
    """
    if there.get("skipped"):
        return f"it leaves that out ({there['skipped']}): install there what is missing"
    apart = [name for name, value in here.items() if there.get(name) != value]
    advice = dict.fromkeys(ADVICE.get(name, SAME_CODE) for name in apart or ["data"])
    found = ", ".join(_compare(name, here[name], there.get(name)) for name in apart) or "the split"
    return f"it differs in {found}: {', and '.join(advice)}"


def _compare(name: str, here: Any, there: Any) -> str:
    if isinstance(here, dict) and isinstance(there, dict):
        keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        return ", ".join(f"{key} ({there.get(key)} there, {here.get(key)} here)" for key in keys)
    if name == "machine" and isinstance(there, list):
        return f"machine ({', '.join(map(str, there))} there, {', '.join(map(str, here))} here)"
    return name
