"""What run.json says of a run: spec, machine, code, data, splits and weights."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lungseg.environment import cpu_name, cuda_name, git_revision, versions
from lungseg.parts import Part
from lungseg.plan import Fold, Plan
from lungseg.ranks import world_size
from lungseg.results import FORMAT
from lungseg.storage import read_json

NOT_MEASURED = {
    "share of training time spent waiting (of approaches that are no networks)": (
        "they read their images before they train"
    )
}


def new_record(plan: Plan) -> dict[str, Any]:
    """run.json as far as it is known before the first part. No path of this machine stands in it."""
    splits = [_split_record(fold) for fold in plan.folds]
    for contestant in plan.contestants:
        if contestant.spec.split:
            own = [{"approach": contestant.spec.name, **_split_record(fold)} for fold in contestant.folds]
            splits += own
    approaches = [
        {
            "name": contestant.spec.name,
            "use": contestant.spec.use,
            "threshold": contestant.spec.threshold,
            "group": list(contestant.spec.group),
            "settings": _without_folders(contestant.settings.model_dump(mode="json")),
            "weights": asdict(contestant.weights) if contestant.weights else None,
            "skipped": contestant.skipped,
            "depends_on_seed": contestant.depends_on_seed,
        }
        for contestant in plan.contestants
    ]
    return {
        "format": FORMAT,
        "name": plan.spec.name,
        "spec": _without_folders(plan.spec.model_dump(mode="json")),
        "versions": versions(_other_libraries(plan)),
        "devices": {"cpu": cpu_name(), "cuda": cuda_name()},
        "device": plan.runtime.device.type,
        "precision": plan.runtime.precision,
        "threads": plan.runtime.threads,
        "processes": world_size(),
        "git": git_revision(),
        "data": plan.evaluated.described(),
        "training_data": None if plan.spec.training_data is None else plan.trained.described(),
        "splits": splits,
        "evaluate_on": plan.spec.evaluate_on,
        "seeds": list(plan.spec.seeds),
        "approaches": approaches,
        "parts": [],
        "empty": _empty(plan),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def _empty(plan: Plan) -> dict[str, str]:
    """What the tables leave empty whatever happens, with its reason."""
    skipped = {c.spec.name: c.skipped for c in plan.contestants if c.skipped}
    if plan.not_compiled is not None:
        skipped["predictions by torch.compile"] = f"it can't be used here ({plan.not_compiled})"
    only_networks = all(c.kind.many_processes for c in plan.contestants)
    return skipped if only_networks else skipped | NOT_MEASURED


def _other_libraries(plan: Plan) -> list[str]:
    """Packages beside this one that approaches of the run are built on."""
    packages = {name.split(".")[0] for each in plan.contestants for name in each.kind.built_on}
    return sorted(packages - {"lungseg"})


def _without_folders(value: Any) -> Any:
    """A spec's values with absolute paths cut to their last word: results are published, machines are not."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and (value.startswith("~/") or Path(value).is_absolute()):
        return Path(value).name
    return value


def _split_record(fold: Fold) -> dict[str, Any]:
    return {
        "rule": fold.split.rule,
        "fold": fold.split.fold,
        "sha256": fold.sha256,
        "train": len(fold.train),
        "validation": len(fold.validation),
        "test": len(fold.split.test),
        "evaluated": len(fold.evaluated),
        "ids": {
            "train": [sample.id for sample in fold.train],
            "validation": [sample.id for sample in fold.validation],
            "evaluated": [sample.id for sample in fold.evaluated],
        },
    }


def part_record(part: Part, directory: Path) -> dict[str, Any]:
    stored = read_json(part.folder(directory) / "part.json")
    return {"approach": part.approach.name, "fold": part.fold, "seed": part.seed, **stored}
