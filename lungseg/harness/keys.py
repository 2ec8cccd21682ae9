"""The keys of trials: what is stored may be used again only where nothing that it depends on has changed.

`fit.is_fitted` and `evaluate.is_done` compare them. Code counts by what an approach reaches, found by its
imports (`system.hashing`), never by a list kept by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from torch.backends.cpu import get_cpu_capability

from lungseg.data.loading import LoadedDataset
from lungseg.harness.trial import Entry, Keys, Trial
from lungseg.results import FORMAT
from lungseg.system.distributed import world_size
from lungseg.system.hashing import find_libraries, hash_code, hash_value, is_installed
from lungseg.system.machine import describe_cpu, find_gpu_name, list_versions
from lungseg.system.plugins import CLASS_NAME, name_class
from lungseg.system.runtime import Runtime

# What a fit gets from outside its approach: the score that chooses an epoch, and samples kept in memory.
FIT_CODE = ("lungseg.scoring.validation", "lungseg.data.memory")
SCORE_CODE = "lungseg.harness.evaluate"  # what makes the rows of a trial


def make_trials(entry: Entry, evaluated: Sequence[LoadedDataset]) -> Iterator[Trial]:
    """Make the trials of an entry: each of its folds with each of its seeds, under their keys.

    Args:
        entry: one that can run here.
        evaluated: the datasets that it is scored on.
    """
    fits = facts_of_fit(entry)
    scores = {
        "data": [[each.name, each.sha256] for each in evaluated],
        "code": hash_code(SCORE_CODE, *(type(each.dataset) for each in evaluated)),
        "compiled": entry.runtime.compiled,
        "row": [entry.name, entry.spec.threshold],
    }
    for fold in entry.folds:
        for seed in entry.seeds:
            own = entry.pick_training(fold, seed)
            fit = hash_value({**fits, "fold": own.fit_sha256, "seed": seed})
            score = hash_value({**scores, "fit": fit, "fold": own.sha256})
            yield Trial(entry, own, seed, Keys(fit, score))


def facts_of_fit(entry: Entry) -> dict[str, Any]:
    """List what all fits of an entry depend on, whatever the fold and the seed."""
    trained = entry.trained
    named = list(_class_names(entry.settings.model_dump(mode="json")))
    roots = [
        entry.approach_class,
        type(trained.dataset),
        *FIT_CODE,
        *_class_names(entry.spec.use),  # a module that may only import the class
        *(module for module in named if not is_installed(module)),
    ]
    used = find_libraries(*roots) + [module.partition(".")[0] for module in named if is_installed(module)]
    runtime = asdict(entry.runtime) | {"device": str(entry.runtime.device)}
    del runtime["compiled"]  # which is for predictions after the fit
    return {
        "format": FORMAT,
        "class": name_class(entry.approach_class),
        "data": [trained.name, trained.sha256],
        "code": hash_code(*roots),
        "settings": entry.settings.model_dump(mode="json"),
        "weights": asdict(entry.weights) if entry.weights else None,
        "versions": list_versions(used),
        "runtime": runtime,
        "machine": _machine(entry.runtime),
        "processes": world_size() if entry.is_network else 1,
        "facts": entry.approach_class.fit_facts(entry.settings, entry.runtime),
    }


def _class_names(value: Any) -> Iterator[str]:
    """Modules of the classes that settings name as "package.module:Class"."""
    if isinstance(value, str) and CLASS_NAME.fullmatch(value):
        yield value.partition(":")[0]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _class_names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _class_names(inner)


def _machine(runtime: Runtime) -> Any:
    cpu = [describe_cpu(), get_cpu_capability()]  # trees are trained on it beside a GPU, too
    return [find_gpu_name(), *cpu] if runtime.device.type == "cuda" else cpu
