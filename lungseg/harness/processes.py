"""Whether the processes of a run, and their machines, are alike."""

from __future__ import annotations

from collections.abc import Sequence

from lungseg.harness.keys import facts_of_fit
from lungseg.harness.plan import Plan
from lungseg.system.distributed import all_gather, barrier, world_size
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_value


def require_alike(plan: Plan) -> None:
    """Require that all processes of a run learn from the same, with the same code.

    Nothing else would show it.

    Raises:
        InputError: in each of them, with what differs.
    """
    if world_size() == 1:
        return
    barrier()  # for plans that take long, as no sum of theirs would
    apart = differences(all_gather([_facts(plan)]))
    if apart:
        raise InputError(
            f"the processes of this run differ in their {', '.join(apart)}: give all machines the same code, "
            "packages, spec, data and weights, and name runtime.device and runtime.precision in the spec"
        )


def differences(facts: Sequence[dict[str, str]]) -> list[str]:
    """List the names of the facts that aren't the same everywhere."""
    names = dict.fromkeys(name for each in facts for name in each)
    return [name for name in names if len({each.get(name) for each in facts}) > 1]


def _facts(plan: Plan) -> dict[str, str]:
    """Hashes of what processes have to have in common; their processors and threads may differ."""
    # Where a library is missing its approach is skipped, which is to show as that alone.
    entries = plan.entries
    facts = {
        "device": str(plan.runtime.device),
        "precision": [plan.runtime.precision, plan.runtime.channels_last],
        "seeds": [entry.seeds for entry in entries],
        "settings": [[e.name, e.spec.use, e.settings.model_dump(mode="json")] for e in entries],
        "data": [plan.trained.name, plan.trained.sha256],
        "split": [fold.fit_sha256 for entry in entries for fold in entry.folds],
    }
    for entry in entries:
        if not entry.skipped:
            own = facts_of_fit(entry, plan.trained)
            facts[f"code, packages and weights of {entry.name}"] = [
                own["code"],
                own["versions"],
                own["weights"],
            ]
    return {name: hash_value(value) for name, value in facts.items()}
