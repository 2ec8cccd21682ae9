"""Load a fitted model: a folder that `lungseg export` wrote, a row of a results directory, or the starter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.approaches.base import Approach
from lungseg.approaches.fitted import describe_fit, load_fitted
from lungseg.approaches.registry import APPROACHES
from lungseg.data.files.grey import to_unit
from lungseg.prediction.pictures import explain_no_folder
from lungseg.results import read_run, read_table
from lungseg.scoring.maps import check_map
from lungseg.scoring.overlap import binarise
from lungseg.spec import RuntimeSpec
from lungseg.system.errors import InputError
from lungseg.system.files import FOLDER_NAME
from lungseg.system.hashing import hash_value
from lungseg.system.plugins import name_errors, suggest
from lungseg.system.stored import DamagedError, Description, find_damage, read_record
from lungseg.system.usable_runtime import usable_runtime

CARD, RECORD = "README.md", "model.json"
FORMAT = 1  # of a model folder
STARTER = Path(__file__).parent / "starter"


@dataclass(frozen=True)
class Model:
    """A fitted approach, and what a prediction needs to know of it.

    Attributes:
        name: what files and tables call it.
        facts: model.json: where it comes from.
        folder: where its fitted files are.
        approach: loaded, on the device that it computes on.
    """

    name: str
    facts: Mapping[str, Any]
    folder: Path
    approach: Approach = field(repr=False)

    @property
    def threshold(self) -> float:
        """Return the probability at and above which a pixel is lung."""
        return self.facts["threshold"]

    @property
    def sha256(self) -> str:
        """Return the hash of all that its predictions depend on: class, settings, files and weights."""
        return hash_facts(self.facts)

    def describe(self) -> str:
        """Say in a few words what it was trained on."""
        on = self.facts["trained_on"]
        return f"trained on {on['train']} images of {on['dataset']}, threshold {self.threshold:g}"

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the probability of lung at each pixel of an X-ray.

        Args:
            image: H x W; floating point in [0, 1], or unsigned integers, which are scaled as those of a file
                are: 255 is white in uint8, else 2^b - 1 with the fewest of 8, 10, 12, 14 and 16 bits.

        Returns:
            float32, H x W, in [0, 1].

        Raises:
            ValueError: an array of another shape, type or range.
        """
        return self.predict_all([_to_unit(image)])[0]

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Predict the lungs of an X-ray: bool, H x W. Takes and raises what `predict` does."""
        return binarise(self.predict(image), self.threshold)

    def predict_all(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the maps of images, float32 H x W in [0, 1], as one batch.

        Raises InputError if its class doesn't make maps.
        """
        with name_errors(f"the model {self.name!r}"):
            maps = self.approach.predict(images, len(images))
        try:
            return [check_map(each, image.shape) for each, image in zip(maps, images, strict=True)]
        except ValueError as error:
            raise InputError(f"the model {self.name!r} made a map that can't be used: {error}") from error


def hash_facts(facts: Mapping[str, Any]) -> str:
    """Return the hash of all in a model.json that predictions depend on: sha256, hex."""
    return hash_value({key: facts[key] for key in ("use", "settings", "threshold", "weights", "files")})


def load_model(place: Path | str | None = None, row: str | None = None, device: str = "auto") -> Model:
    """Load a fitted model.

    Args:
        place: a folder that `lungseg export` wrote, a results directory, or None for the starter model that
            comes with lungseg.
        row: the name of a row of the results directory; it may be None where there is one row alone.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: there is no model, it is damaged, of another version or not one folder, or can't run here.
    """
    folder = STARTER if place is None else Path(place)
    if not folder.is_dir():
        raise InputError(_explain_no_folder(folder))
    if (folder / RECORD).exists():
        if row is not None:
            raise InputError(f"{folder} is one model, so --approach {row} says nothing: leave it out")
        return make_model(folder, read_facts(folder), device)
    if (folder / "run.json").exists():
        found, facts = find_row(folder, row)
        return make_model(found, facts, device)
    raise InputError(
        f"{folder} holds no model ({RECORD}) and no results (run.json): give a folder that `lungseg export` "
        "wrote, or a results directory"
    )


def load_models(places: Sequence[tuple[Path | None, str | None]], device: str = "auto") -> list[Model]:
    """Load the model of each (place, row) as `load_model` does, and give them different names."""
    models: list[Model] = []
    for place, row in places:
        model = load_model(place, row, device)
        if any(model.name == other.name for other in models):
            model = replace(model, name=f"{model.name}-{len(models) + 1}")
        models.append(model)
    return models


def read_facts(folder: Path) -> dict[str, Any]:
    """Read model.json. Raises InputError if it or a file is damaged, or it is of another version."""
    path = folder / RECORD
    remedy = "export the model again, or copy its folder again"
    try:
        facts = read_record(path)
    except DamagedError as error:
        raise InputError(f"{error}: {remedy}") from None
    if facts is None:
        raise InputError(f"{path} is missing: {remedy}")
    if facts.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {facts.get('format')}, and this version of lungseg reads format {FORMAT}: "
            "export the model again with this version"
        )
    if not re.fullmatch(FOLDER_NAME, facts["name"]) or facts["use"] not in APPROACHES:
        raise InputError(f"{path} names a model or class that isn't one of lungseg's: {remedy}")
    if damage := find_damage(folder, facts["files"]):
        raise InputError(f"{damage}: {remedy}")
    return facts


def find_row(directory: Path, row: str | None) -> tuple[Path, dict[str, Any]]:
    """Return the fitted folder and the facts of a row of a results directory: of its first fold and seed.

    Raises InputError if the run isn't finished or is damaged, there is no such row, or its model is damaged.
    """
    run = read_run(directory)
    trained = list(dict.fromkeys(trial["approach"] for trial in run["trials"]))
    if row is None and len(trained) > 1:
        raise InputError(f"{directory} has several rows: choose one with --approach, of {', '.join(trained)}")
    row = trained[0] if row is None else row
    if row not in trained:
        raise InputError(
            f"{directory} has no fitted row {row!r}{suggest(row, trained, ': choose')} one of "
            f"{', '.join(trained)}"
        )
    entry = next(entry for entry in run["approaches"] if entry["name"] == row)
    if (entry["weights"] or {}).get("kind") == "given":
        raise InputError(f"the masks of {row!r} were given, so there is no model: choose another row")
    trial = next(trial for trial in run["trials"] if trial["approach"] == row)
    place = f"{row}/f{trial['fold']}-s{trial['seed']}"
    folder = directory / "models" / place
    files = describe_fit(directory / "trials" / place / "fit.json", folder)
    return folder, _gather_facts(run, entry, trial, files, read_table(directory, "scores"))


def _gather_facts(
    run: Mapping[str, Any],
    entry: Mapping[str, Any],
    trial: Mapping[str, Any],
    files: Description,
    scores: Any,
) -> dict[str, Any]:
    split = next(
        split
        for split in reversed(run["splits"])  # a row's own split stands behind the run's
        if split["fold"] == trial["fold"] and split.get("approach", entry["name"]) == entry["name"]
    )
    own = scores[(scores["approach"] == entry["name"]) & (scores["fold"] == trial["fold"])]
    datasets = [run["training_data"] or run["data"], *run.get("test_data", [])]
    # Results of a former version don't say it by trial: there, all rows were trained on the same.
    of_trial = {"train_set": datasets[0]["dataset"], **split} | trial
    trained_on = next(each for each in datasets if each["dataset"] == of_trial["train_set"])
    return {
        "format": FORMAT,
        "name": entry["name"],
        "label": entry["label"],
        "use": entry["use"],
        "settings": entry["settings"],
        "threshold": float(own[own["seed"] == trial["seed"]]["threshold"].iloc[0]),
        "weights": entry["weights"],
        "files": files,
        "trained_on": {
            "dataset": trained_on["dataset"],
            "real": trained_on["real"],
            "sha256": trained_on["sha256"],
            "train": of_trial["train"],
            "validation": of_trial["validation"],
            "fold": trial["fold"],
            "folds": len({other["fold"] for other in run["trials"] if other["approach"] == entry["name"]}),
            "seed": trial["seed"],
        },
        "benchmark": run["name"],
        "evaluated_on": run["evaluate_on"],
        "leaks": len(run["leaks"]),
        "versions": run["versions"],
        "git": run["git"],
        "device": run["devices"]["cuda" if run["device"] == "cuda" else "cpu"],
        "precision": run["precision"],
        "trained": trial["started"],
    }


def make_model(
    folder: Path, facts: Mapping[str, Any], device: str = "auto", precision: str = "auto"
) -> Model:
    """Make a model of fitted files and model.json. Raises InputError if they can't be used here."""
    runtime, _ = usable_runtime(RuntimeSpec(device=device, precision=precision))
    return Model(facts["name"], facts, folder, load_fitted(folder, facts, runtime))


def _explain_no_folder(place: Path) -> str:
    if place == STARTER:
        return "this installation has no starter model: install lungseg again, or give a model with --model"
    if place.exists():
        return explain_no_folder(place)
    return f"there is no model {place}: give a folder that `lungseg export` wrote, or a results directory"


def _to_unit(image: np.ndarray) -> np.ndarray:
    """Check and scale an array as `Model.predict` says."""
    values = np.asarray(image)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"the image must be H x W, and has the shape {values.shape}")
    if values.dtype.kind == "u":
        return to_unit(values, 8 if values.dtype == np.uint8 else None)
    if values.dtype.kind != "f":
        raise ValueError(f"the image must be floating point or unsigned integers, not {values.dtype}")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError("the image's values must be finite and in [0, 1]")
    return np.ascontiguousarray(values, dtype=np.float32)
