"""Provides what `speed.py` times: a stored fit of `vgg19-context` or a small one, and images as files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.images import PHANTOM, find_images, make_split
from lungseg.approaches.recorded_stages import RecordedStages
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.cascade import CascadeStage
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.data.loading import find_dataset
from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext
from lungseg.learning.images.resize import to_batch
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.regressors.boosting import BoostingSettings, make_boosting_parameters
from lungseg.learning.trees.evaluator import Evaluator, make_evaluator
from lungseg.learning.vgg19.features import PixelFeatures, extract_features
from lungseg.scoring.overlap import mean_dice
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_grey
from lungseg.system.plugins import validate
from lungseg.system.runtime import Runtime

USE = "vgg19-context"
OURS = {"cpu": "llvm", "cuda": "triton"}
SMALL_FIT = (16, 4)  # phantoms that a small model learns from, and is validated on
FOREST_ROWS = 4000  # pixels of each image that the plain forest learns from


@dataclass(frozen=True)
class Stored:
    """A fitted `vgg19-context` as `save` stored it, its settings, and a sentence on it for readers."""

    directory: Path
    settings: Vgg19ContextSettings
    note: str

    def load(self, runtime: Runtime) -> Vgg19Context:
        """Return the fitted approach.

        Raises:
            InputError: it is damaged, or its regressor isn't made of trees that engines evaluate.
        """
        if self.settings.regressor != "lightgbm":
            raise InputError(
                f'{self.directory} has the regressor {self.settings.regressor!r}: name one of "lightgbm"'
            )
        return Vgg19Context.load(self.directory, self.settings, runtime)


def find_first_fit(results: Path) -> Path:
    """Return the folder of the first fit of `vgg19-context` in a run's results.

    Raises:
        InputError: there is none.
    """
    for row in _read_entries(results):
        fits = sorted((results / "models" / row["name"]).glob("f*-s*"))
        if fits:
            return fits[0]
    raise InputError(f"{results} holds no fitted {USE}: name the results of a run that has one")


def read_fit(model: Path) -> Stored:
    """Return the fit in RESULTS/models/NAME/f0-s0, with its settings from the run's run.json.

    Raises:
        InputError: no such folder, or it isn't part of a run's results.
    """
    model = model.absolute()
    if len(model.parts) < 4 or not model.is_dir():
        raise InputError(f"there is no fitted model {model}: name a folder RESULTS/models/NAME/f0-s0")
    for row in _read_entries(model.parents[2]):
        if row["name"] == model.parent.name:
            settings = validate(Vgg19ContextSettings, row["settings"], str(model))
            run = read_json(model.parents[2] / "run.json")["name"]
            return Stored(model, settings, f"Model: {row['name']}, {model.name}, of the run {run!r}.")
    raise InputError(f"{model} is no fit of {USE}: name a folder RESULTS/models/NAME/f0-s0 of one")


def _read_entries(results: Path) -> list[dict[str, Any]]:
    path = results / "run.json"
    if not path.is_file():
        raise InputError(f"{path} is missing: name the folder of a benchmark run's results")
    return [row for row in read_json(path)["approaches"] if row["use"] == USE]


def fit_small(changes: dict[str, Any], runtime: Runtime, folder: Path) -> Stored:
    """Fit a model on a few phantoms and store it in a folder.

    Args:
        changes: keys of its settings.

    Raises:
        InputError: a key or value can't be used.
    """
    settings = validate(Vgg19ContextSettings, {"copies": 0, "pixels_per_image": 400, **changes}, "--set")
    count = SMALL_FIT[0]
    phantoms = find_dataset("phantom", {"count": sum(SMALL_FIT)}, None).samples()
    train, validation = phantoms[:count], phantoms[count:]
    context = FitContext(
        seed=0,
        checkpoints=make_folder(folder / "checkpoints"),
        history=lambda **_: None,
        progress=lambda *_: None,
        score=lambda maps: mean_dice(maps, (sample.mask() for sample in validation)),
    )
    approach = Vgg19Context(settings, runtime)
    approach.fit(train, validation, context)
    approach.save(make_folder(folder / "model"))
    note = f"Model: a small model fitted on {count} phantoms, not a published one."
    return Stored(folder / "model", settings, note)


class EngineStage:
    """A fitted stage's trees, evaluated by a named engine; takes the place of the stage's model."""

    def __init__(self, text: str, runtime: Runtime, engine: str) -> None:
        self.evaluator = make_evaluator(text, runtime.device, runtime.threads, engine)

    @property
    def on_device(self) -> bool:
        """As in `StageModel`."""
        return self.evaluator.engine == "triton"

    can_be_recorded = on_device

    def predict_rows(self, rows: Tensor) -> Tensor:
        return self.evaluator.predict_raw(rows).float()


class Recorder:
    """A stage's model that keeps the rows that it is given."""

    def __init__(self, model: EngineStage) -> None:
        self.model = model
        self.on_device, self.can_be_recorded = model.on_device, False
        self.rows = torch.empty(0)

    def predict_rows(self, rows: Tensor) -> Tensor:
        self.rows = rows.clone()  # the next stage writes to the same memory
        return self.model.predict_rows(rows)


def use_engine(approach: Vgg19Context, engine: str) -> Vgg19Context:
    """Return the fitted approach with its trees evaluated by a named engine; the frozen network is shared.

    Raises:
        InputError: the engine doesn't work on the approach's device.
    """
    other = copy.copy(approach)
    other.recorded = RecordedStages(approach.runtime)
    other.cascade = [
        CascadeStage(stage.grid, EngineStage(stage.model.text, approach.runtime, engine))
        for stage in approach.cascade
    ]
    return other


def record_rows(approach: Vgg19Context, images: Sequence[np.ndarray]) -> list[tuple[Evaluator, Tensor]]:
    """Return each stage's trees, and the rows that they get in a prediction of the images.

    Args:
        approach: as `use_engine` returns it.
    """
    other = copy.copy(approach)
    other.recorded = RecordedStages(approach.runtime)
    recorders = [Recorder(stage.model) for stage in approach.cascade]
    other.cascade = [
        CascadeStage(stage.grid, recorder)
        for stage, recorder in zip(approach.cascade, recorders, strict=True)
    ]
    other.predict(images, len(images))
    return [(recorder.model.evaluator, recorder.rows) for recorder in recorders]


def choose_samples(count: int) -> tuple[str, list[Sample]]:
    """Return what the samples are, and the samples: validation images of real X-rays, or else phantoms."""
    name, samples = find_images(count, 512)
    if name == PHANTOM:
        return "phantoms", samples
    by_id, validation = {sample.id: sample for sample in samples}, make_split(name, samples).validation
    places = np.linspace(0, len(validation) - 1, min(count, len(validation))).astype(int)
    return f"chest X-rays (validation images of {name})", [by_id[validation[place]] for place in places]


def write_files(samples: Sequence[Sample], size: int, folder: Path) -> list[Path]:
    """Write the images into a folder, as 8-bit PNG files of size x size pixels."""
    files = [make_folder(folder) / f"{index}.png" for index in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        write_grey(file, to_batch([sample.image()], size)[0, 0].numpy())
    return files


def fit_plain_model(
    samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int, trees: int, leaves: int
) -> str:
    """Fit the plain approach's boosted trees on the 64 features of relu1_2 of a few images' pixels.

    Returns:
        LightGBM's text of the model.
    """
    table = build_table(samples, network, runtime, size, FOREST_ROWS, 0)
    settings = BoostingSettings(rounds=trees, leaves=leaves)
    parameters = {
        **make_boosting_parameters(settings, 0),
        "num_threads": runtime.threads,
        "objective": "regression",
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(table.features, table.targets, params=parameters)
    return lightgbm.train(parameters, rows, trees).model_to_string(num_iteration=-1)


def compute_pixel_rows(
    samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int
) -> Tensor:
    """Return rows float32 N x 64 of all pixels of images at size x size, a column's values side by side."""
    batches = [to_batch([sample.image()], size, runtime.device) for sample in samples]
    return as_rows(torch.cat([extract_features(network, batch, runtime) for batch in batches]))
