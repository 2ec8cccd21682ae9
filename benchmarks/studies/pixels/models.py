"""What `pixel_speed.py` times: a stored fit of `vgg19-context` or a small one, and images as files."""

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

from benchmarks.studies.images import PHANTOM, all_images, split_of
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.cascade import Stage
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.data.loading import find_dataset
from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext
from lungseg.learning.images.resize import to_batch
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.regressors.boosting import BoostingSettings, boosting_parameters
from lungseg.learning.trees.evaluator import Evaluator, evaluator
from lungseg.learning.vgg19.features import PixelFeatures, extract
from lungseg.scoring.overlap import mean_dice
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_grey
from lungseg.system.plugins import validate
from lungseg.system.runtime import Runtime

USE = "vgg19-context"
OURS = {"cpu": "llvm", "cuda": "triton"}
SMALL_FIT = (16, 4)  # phantoms that a small model learns from, and is validated on
FOREST_ROWS = 4000  # pixels of an image that the plain forest learns from


@dataclass(frozen=True)
class Stored:
    """A fitted `vgg19-context` as `save` left it, its settings, and what a reader should know of it."""

    directory: Path
    settings: Vgg19ContextSettings
    said: str

    def load(self, runtime: Runtime) -> Vgg19Context:
        """Raises InputError if it is damaged, or its regressor isn't made of trees that engines evaluate."""
        if self.settings.regressor != "lightgbm":
            raise InputError(
                f'{self.directory} has the regressor {self.settings.regressor!r}: name one of "lightgbm"'
            )
        return Vgg19Context.load(self.directory, self.settings, runtime)


def first_fit(results: Path) -> Path:
    """Where a benchmark run stored the first fit of `vgg19-context`. Raises InputError if there is none."""
    for row in _rows(results):
        fits = sorted((results / "models" / row["name"]).glob("f*-s*"))
        if fits:
            return fits[0]
    raise InputError(f"{results} holds no fitted {USE}: name the results of a run that has one")


def stored_fit(model: Path) -> Stored:
    """A fit that a benchmark run stored, RESULTS/models/NAME/f0-s0, with the settings of its run.json.

    Raises:
        InputError: no such folder, or it isn't part of a run's results.
    """
    model = model.absolute()
    if len(model.parts) < 4 or not model.is_dir():
        raise InputError(f"there is no fitted model {model}: name a folder RESULTS/models/NAME/f0-s0")
    for row in _rows(model.parents[2]):
        if row["name"] == model.parent.name:
            settings = validate(Vgg19ContextSettings, row["settings"], str(model))
            run = read_json(model.parents[2] / "run.json")["name"]
            return Stored(model, settings, f"Model: {row['name']}, {model.name}, of the run {run!r}.")
    raise InputError(f"{model} is no fit of {USE}: name a folder RESULTS/models/NAME/f0-s0 of one")


def _rows(results: Path) -> list[dict[str, Any]]:
    path = results / "run.json"
    if not path.is_file():
        raise InputError(f"{path} is missing: name the folder of a benchmark run's results")
    return [row for row in read_json(path)["approaches"] if row["use"] == USE]


def fit_small(changes: dict[str, Any], runtime: Runtime, folder: Path) -> Stored:
    """Fits a model on a few phantoms into a folder; `changes` are keys of its settings.

    Raises InputError for a key or value that can't be used.
    """
    settings = validate(Vgg19ContextSettings, {"copies": 0, "pixels_per_image": 400, **changes}, "--set")
    learnt, held = SMALL_FIT
    phantoms = find_dataset("phantom", {"count": learnt + held}, None).samples()
    train, validation = phantoms[:learnt], phantoms[learnt:]
    run = FitContext(
        seed=0,
        checkpoints=make_folder(folder / "checkpoints"),
        history=lambda **_: None,
        progress=lambda *_: None,
        score=lambda maps: mean_dice(maps, (sample.mask() for sample in validation)),
    )
    approach = Vgg19Context(settings, runtime)
    approach.fit(train, validation, run)
    approach.save(make_folder(folder / "model"))
    said = f"Model: a small model fitted on {learnt} phantoms, not a published one."
    return Stored(folder / "model", settings, said)


class EngineStage:
    """A fitted stage's trees, evaluated by a named engine; stands in a cascade for the stage's model."""

    def __init__(self, text: str, runtime: Runtime, engine: str) -> None:
        self.evaluator = evaluator(text, runtime.device, runtime.threads, engine)

    @property
    def on_device(self) -> bool:
        """As of `StageModel`."""
        return self.evaluator.engine == "triton"

    def of_rows(self, rows: Tensor) -> Tensor:
        return self.evaluator.raw(rows).float()


class Recorder:
    """Keeps the rows that a stage is given."""

    def __init__(self, model: EngineStage) -> None:
        self.model = model
        self.on_device = model.on_device
        self.rows = torch.empty(0)

    def of_rows(self, rows: Tensor) -> Tensor:
        self.rows = rows.clone()  # the next stage writes where these lie
        return self.model.of_rows(rows)


def with_engine(approach: Vgg19Context, engine: str) -> Vgg19Context:
    """The same fitted approach, its trees evaluated by a named engine; the frozen network is shared.

    Raises InputError if the engine doesn't work on the approach's device.
    """
    other = copy.copy(approach)
    other.cascade = [
        Stage(stage.grid, EngineStage(stage.model.text, approach.runtime, engine))
        for stage in approach.cascade
    ]
    return other


def recorded_rows(approach: Vgg19Context, images: Sequence[np.ndarray]) -> list[tuple[Evaluator, Tensor]]:
    """Of each stage of an approach `with_engine`: its trees, and the rows of a prediction of the images."""
    other = copy.copy(approach)
    recorders = [Recorder(stage.model) for stage in approach.cascade]
    other.cascade = [
        Stage(stage.grid, recorder) for stage, recorder in zip(approach.cascade, recorders, strict=True)
    ]
    other.predict(images, len(images))
    return [(recorder.model.evaluator, recorder.rows) for recorder in recorders]


def chosen_samples(count: int) -> tuple[str, list[Sample]]:
    """Samples and what they are: validation images of real ones if there are, or phantoms."""
    name, samples = all_images(count, 512)
    if name == PHANTOM:
        return "phantoms", samples
    by_id, validation = {sample.id: sample for sample in samples}, split_of(name, samples).validation
    places = np.linspace(0, len(validation) - 1, min(count, len(validation))).astype(int)
    return f"chest X-rays (validation images of {name})", [by_id[validation[place]] for place in places]


def write_files(samples: Sequence[Sample], size: int, folder: Path) -> list[Path]:
    """The images as 8-bit PNG files of size x size pixels."""
    files = [make_folder(folder) / f"{index}.png" for index in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        write_grey(file, to_batch([sample.image()], size)[0, 0].numpy())
    return files


def plain_model(
    samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int, trees: int, leaves: int
) -> str:
    """LightGBM's text of a model with the plain approach's parameters: it was fitted on the 64 features of
    relu1_2 of a few images' pixels."""
    table = build_table(samples, network, runtime, size, FOREST_ROWS, 0)
    settings = BoostingSettings(rounds=trees, leaves=leaves)
    parameters = {
        **boosting_parameters(settings, 0),
        "num_threads": runtime.threads,
        "objective": "regression",
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(table.features, table.targets, params=parameters)
    return lightgbm.train(parameters, rows, trees).model_to_string(num_iteration=-1)


def pixel_rows(samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int) -> Tensor:
    """Rows float32 N x 64 of all pixels of images at size x size, a column's values side by side."""
    batches = [to_batch([sample.image()], size, runtime.device) for sample in samples]
    return as_rows(torch.cat([extract(network, batch, runtime) for batch in batches]))
