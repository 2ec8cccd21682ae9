"""Load a fitted approach of any class from its folder, with the frozen weights that it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.learning.weights import require_weights
from lungseg.system.errors import InputError
from lungseg.system.plugins import load_class, name_errors, validate
from lungseg.system.runtime import Runtime
from lungseg.system.stored import DamagedError, Description, find_damage, read_record


def load_fitted(folder: Path, facts: Mapping[str, Any], runtime: Runtime) -> Approach:
    """Load what an approach's `save` wrote.

    Args:
        folder: of the fitted files.
        facts: "use", "settings" and "weights", as run.json and model.json have them.
        runtime: how to compute.

    Raises:
        InputError: a file is missing or damaged, the class or its settings can't be used, or the frozen
            weights that it was fitted on aren't on this machine.
    """
    where = f"the model in {folder}"
    with name_errors(where), _frozen_weights(facts["weights"], folder):
        approach_class = load_class(facts["use"], APPROACHES, Approach, "approach")
        settings = validate(approach_class.Settings, facts["settings"], where)
        return approach_class.load(folder, settings, runtime)


def _frozen_weights(weights: Mapping[str, Any] | None, folder: Path) -> AbstractContextManager[None]:
    """Have the frozen features found that a model was fitted on; a network's own file has all it needs."""
    if weights is None or weights["network"] != "vgg19" or weights["kind"] == "random":
        return nullcontext()
    return require_weights(weights["sha256"], folder)


def describe_fit(record: Path, folder: Path) -> Description:
    """Return the files of a stored fit, by length and sha256, as its record says.

    Raises InputError if they are gone, as in a published result, or damaged.
    """
    try:
        found = read_record(record)
    except DamagedError as error:
        raise InputError(f"{error}: run the benchmark again") from None
    if found is None or (found["model"] and not folder.is_dir()):
        raise InputError(f"{folder} is missing: run the benchmark first (a published result has no models)")
    if damage := find_damage(folder, found["model"]):
        raise InputError(f"{damage}: run the benchmark again")
    return found["model"]
