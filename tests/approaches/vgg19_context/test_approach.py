import json
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lungseg.approaches.vgg19_context import resumable_fit
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.cascade import run_cascade
from lungseg.approaches.vgg19_context.code_tables import CodeTables
from lungseg.approaches.vgg19_context.context_planes import compute_context_planes
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes
from lungseg.approaches.vgg19_context.stage_models import BoostedStage
from lungseg.harness.run import benchmark
from lungseg.learning.regressors.base import as_rows
from lungseg.report.contents import read_contents
from lungseg.results import read_table
from lungseg.scoring.overlap import mean_dice
from lungseg.spec import read_spec
from lungseg.system.errors import InputError

GREY = {"features": False}  # quicker, for what isn't about the network's features


def assert_same(one: list[np.ndarray], two: list[np.ndarray]) -> None:
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)


def differ(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return not all(map(np.array_equal, one, two))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"layers": ("relu1_2", "relu2_2"), "components": 0, "scales": (32,), "contexts": 0},
        {"regressor": "ridge", **GREY},
        {"regressor": "sklearn.tree:ExtraTreeRegressor", "contexts": 0, **GREY},
        {"regressor": "mlp", "contexts": 0, **GREY},
        {"contexts": 0, **GREY},
        {"contexts": 2, **GREY},
        {"shape_prior": False, **GREY},
        {"copies": 0, **GREY},
    ],
    ids=json.dumps,
)
def test_it_learns_and_is_stored(values, shared, discs, runtime, tmp_path):
    approach, fit_context = shared(**values)
    samples = discs(3, seed=5)
    images = [sample.image() for sample in samples]
    maps = approach.predict(images)
    assert mean_dice(maps, (sample.mask() for sample in samples)) > 0.8
    assert [row["step"] for row in fit_context.rows] == list(range(1, approach.settings.contexts + 2))
    for row in fit_context.rows:
        assert row["unit"] == "stage"
        assert 0 < row["validation_dice"] <= 1
        assert np.isfinite([row["train_loss"], row["validation_loss"]]).all()
    assert fit_context.report.unit == "rows"
    assert (fit_context.report.parameters is None) == (":" in approach.settings.regressor)
    assert fit_context.report.parameters is None or fit_context.report.parameters > 0
    approach.save(tmp_path / "model")
    assert_same(Vgg19Context.load(tmp_path / "model", approach.settings, runtime).predict(images), maps)


@pytest.mark.parametrize("regressor", ["lightgbm", "ridge", "sklearn.tree:ExtraTreeRegressor", "mlp"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(regressor, shared, fitted, images):
    values = {"regressor": regressor, "contexts": 1 if regressor == "ridge" else 0, **GREY}
    maps = shared(**values)[0].predict(images)
    assert_same(fitted(**values)[0].predict(images), maps)
    assert differ(fitted(seed=1, folder="other", **values)[0].predict(images), maps)


def test_the_number_of_threads_has_no_part_in_what_is_fitted(small, discs, runtime, new_fit_context):
    texts = []
    for threads in (1, 3):
        approach = Vgg19Context(small(**GREY), replace(runtime, threads=threads))
        approach.fit(discs(6), discs(2, seed=9), new_fit_context(folder=str(threads)))
        texts.append([stage.model.text for stage in approach.cascade])
    trees = [[text[: text.index("parameters:")] for text in each] for each in texts]
    assert trees[0] == trees[1]


def test_coordinates_alone_know_where_lungs_usually_are(fitted, discs, images):
    approach, _ = fitted(features=False, grey=False, shape_prior=False)
    maps = approach.predict(images)
    truth = np.mean([sample.mask() for sample in discs(6)], axis=0)
    assert np.corrcoef(maps[0].ravel(), truth.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    "values",
    [
        {"size": 48, "grid": 24, "coarse": 12, "scales": (48,), "shape_prior": False},
        {"size": 96, "grid": 48, "coarse": 24, "scales": (48,), "shape_prior": False},
        {"size": 128, "grid": 128, "coarse": 64, "scales": (16,)},
        {"size": 32, "grid": 16, "coarse": 8, "scales": (16, 8)},
        {"features": False, "grey": False, "shape_prior": False},
    ],
    ids=lambda values: str(values.get("size", "fewer planes")),
)
def test_unusual_settings_can_be_fitted(values, fitted, images):
    approach, _ = fitted(**values, contexts=0, layers=("relu1_2",), components=2)
    assert [each.shape for each in approach.predict(images)] == [each.shape for each in images]


def test_maps_are_at_the_images_own_sizes_and_do_not_depend_on_the_batch(shared):
    approach, _ = shared()
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (97, 140), (30, 51), (64, 64), (200, 33)]
    images = [rng.random(shape, np.float32) for shape in shapes]
    maps = approach.predict(images)
    assert [each.shape for each in maps] == shapes
    assert all(each.dtype == np.float32 and 0 <= each.min() <= each.max() <= 1 for each in maps)
    for one, image in zip(maps, images, strict=True):
        # The network's sums may come in another order, and a pixel's code then be the next one.
        assert np.abs(one - approach.predict([image])[0]).mean() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_image_without_contrast_is_no_trouble(value, shared):
    approach, _ = shared(**GREY)
    (found,) = approach.predict([np.full((50, 40), value, np.float32)])
    assert found.shape == (50, 40)
    assert np.isfinite(found).all()


@torch.inference_mode()
@pytest.mark.parametrize("values", [{"contexts": 2}, {"shape_prior": False}], ids=str)
def test_prediction_is_what_the_stages_learnt_on(values, fitted, images, monkeypatch):
    """Values at prediction, codes in training: the same maps on either way."""
    fit, models, spied, rows = BoostedStage.fit, [], resumable_fit.make_stage_rows, []
    monkeypatch.setattr(BoostedStage, "fit", lambda model, *rest: (models.append(model), fit(model, *rest)))
    monkeypatch.setattr(BoostedStage, "fits_in_parallel", False)  # else in whatever order
    monkeypatch.setattr(resumable_fit, "make_stage_rows", lambda *rest: rows.append(spied(*rest)) or rows[-1])
    approach, fit_context = fitted(**values)
    bins = CodeTables(fit_context.checkpoints / "tables").bins
    of_all = models[2::3]  # two folds, then all of them; the last stage is fitted once
    of_all += models[-1:]
    shared = approach.image_planes(approach.prepare(images))
    earlier = [] if shared.prior is None else [shared.prior]
    for stage, own, model in zip(approach.cascade, rows, of_all, strict=True):
        codes = bins.encode(as_rows(shared.planes[stage.grid][:, : shared.image_count]))
        if earlier:
            context = own.context_bins.encode(as_rows(compute_context_planes(earlier, stage.grid)))
            codes = torch.cat([codes, context], 1)
        values = torch.from_numpy(model.predict_codes(codes.numpy()))
        earlier.append(values.view(len(images), 1, stage.grid, stage.grid).clamp(0, 1))
    found = run_cascade(approach.cascade, shared)[-1]
    torch.testing.assert_close(found, earlier[-1], atol=1e-5, rtol=0)


def test_the_recorded_dice_is_that_of_what_it_predicts(shared, discs):
    approach, fit_context = shared(**GREY)
    held = discs(2, seed=9)
    maps = approach.predict([sample.image() for sample in held])
    assert fit_context.rows[-1]["validation_dice"] == mean_dice(maps, (sample.mask() for sample in held))


def test_rows_of_validation_images_are_not_counted_as_learnt_from(fitted):
    values = {"contexts": 0, "copies": 0, **GREY}
    few, many = (fitted(folder=str(held), held=held, **values)[1].report for held in (1, 4))
    assert few.items == many.items == 6 * 300


def test_stages_before_the_last_can_have_other_trees(fitted, runtime, images, tmp_path):
    values = {"contexts": 2, "context_boosting": {"rounds": 3, "leaves": 4, "min_leaf": 10}, **GREY}
    approach, _ = fitted(**values)
    text = [stage.model.text for stage in approach.cascade]
    trees = [lightgbm.Booster(model_str=each).num_trees() for each in text]
    assert trees == [3, 3, 12]
    approach.save(tmp_path / "model")
    again = Vgg19Context.load(tmp_path / "model", approach.settings, runtime)
    assert_same(again.predict(images), approach.predict(images))


def test_fitting_again_replaces_what_was_fitted(fitted, small, discs, runtime, new_fit_context, images):
    approach, _ = fitted(train=3, **GREY)
    train, held = discs(4, seed=3), discs(2, seed=9)
    fresh = Vgg19Context(approach.settings, runtime)
    for each, folder in ((approach, "second"), (fresh, "fresh")):
        each.fit(train, held, new_fit_context(folder=folder))
    assert len(approach.cascade) == 2
    assert_same(approach.predict(images), fresh.predict(images))


def test_a_single_training_image_is_enough_without_folds_and_refused_with_them(fitted, images):
    with pytest.raises(InputError, match="two patients"):
        fitted(train=1, **GREY)
    approach, _ = fitted(train=1, contexts=0, **GREY)
    assert all(np.isfinite(each).all() for each in approach.predict(images))


def test_weights_feature_maps_and_estimate(small, shared, runtime, images):
    approach, _ = shared()
    assert approach.weights().kind == "random"
    assert Vgg19Context(small(**GREY), runtime).weights() is None
    planes = approach.feature_maps(images[0])
    assert planes.shape == (len(approach.image_planes.names) + 1, 32, 32)  # and the shape prior's map
    assert len(ImagePlanes(small(), runtime).names) == 2 * 6 + 3 + 5
    for values in ({}, {"regressor": "ridge"}, {"regressor": "mlp"}, {"contexts": 0}):
        short, long = (Vgg19Context(small(**values), runtime).estimate(count, 2) for count in (10, 10_000))
        assert 0 < short < long


@torch.inference_mode()
@pytest.mark.parametrize("values", [{"contexts": 2, **GREY}, {"shape_prior": False, **GREY}], ids=json.dumps)
def test_the_map_after_each_stage_is_what_the_next_one_reads(values, shared, images):
    """Each stage alone, on planes of maps that were made before: the map that is shown of it."""
    approach, _ = shared(**values)
    planes = approach.image_planes(approach.prepare(images[:1]))
    maps = [] if planes.prior is None else [planes.prior]
    for stage in approach.cascade:
        own = [planes.planes[stage.grid][:, : planes.image_count]]
        own += [compute_context_planes(maps, stage.grid)] if maps else []
        found = stage.model.predict_rows(as_rows(torch.cat(own, 1)))
        maps.append(found.view(1, 1, stage.grid, stage.grid).clamp(0, 1))
    shown = approach.stage_maps(images[0])
    stages = [f"stage {number}" for number in range(1, len(approach.cascade) + 1)]
    assert [title for title, _ in shown] == ["shape prior"] * ("shape_prior" not in values) + stages
    assert_same([found for _, found in shown], [each[0, 0].numpy() for each in maps])
    final = approach.finish(torch.from_numpy(shown[-1][1])[None, None], [images[0].shape])
    assert_same(final, approach.predict(images[:1]))


def test_a_single_map_is_not_shown_by_stages(shared, fitted, images):
    assert len(shared(contexts=0, **GREY)[0].stage_maps(images[0])) == 2
    alone, _ = fitted(contexts=0, shape_prior=False, features=False, grey=False)
    assert alone.stage_maps(images[0]) == []


def test_importance_is_each_columns_share_of_its_stages_gain(shared):
    approach, _ = shared(contexts=2, **GREY)
    rows = approach.importance()
    for number, stage in enumerate(approach.cascade, start=1):
        own = {column: share for name, column, share in rows if name == f"stage {number}"}
        gains = lightgbm.Booster(model_str=stage.model.text).feature_importance("gain")
        np.testing.assert_allclose(list(own.values()), gains / gains.sum(), rtol=1e-6)
    assert list(own)[: len(approach.image_planes.names)] == approach.image_planes.names
    context = list(own)[len(approach.image_planes.names) :]
    assert {column.split(":")[0] for column in context} == {"map 1", "map 2"}
    assert shared(regressor="ridge", **GREY)[0].importance() == []


def test_bfloat16_is_close_to_float32(shared, runtime, images, tmp_path):
    approach, _ = shared()
    approach.save(tmp_path / "model")
    half = replace(runtime, precision="bfloat16", channels_last=True)
    maps = Vgg19Context.load(tmp_path / "model", approach.settings, half).predict(images)
    for one, two in zip(maps, approach.predict(images), strict=True):
        assert np.abs(one - two).mean() < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_fits_stores_and_predicts_as_the_cpu_does(
    shared, small, discs, runtime, new_fit_context, tmp_path
):
    on_cpu, _ = shared()
    device = replace(runtime, device=torch.device("cuda"))
    held = discs(2, seed=9)
    approach = Vgg19Context(small(), device)
    approach.fit(discs(6), held, new_fit_context(folder="cuda"))
    approach.save(tmp_path / "model")
    maps = Vgg19Context.load(tmp_path / "model", approach.settings, device).predict([s.image() for s in held])
    for one, two in zip(maps, on_cpu.predict([s.image() for s in held]), strict=True):
        assert np.abs(one - two).mean() < 0.05


SPEC = """
name = "context"
seeds = [0]
runtime = { device = "cpu" }
[data]
dataset = "phantom"
count = 12
size = 48
[[approach]]
use = "vgg19-context"
weights = "random"
size = 32
grid = 16
coarse = 8
scales = [32]
layers = ["relu1_2"]
components = 4
copies = 1
boosting = { rounds = 10, leaves = 15, learning_rate = 0.3 }
[timing]
enabled = false
"""


def test_a_benchmark_of_it(tmp_path, without_figures):
    (tmp_path / "context.toml").write_text(SPEC)
    spec = read_spec(tmp_path / "context.toml", ["approach.vgg19-context.contexts=1"])
    benchmark(spec, tmp_path / "out")
    assert "vgg19-context" in (tmp_path / "out/summary.md").read_text()
    history = read_table(tmp_path / "out", "history")
    assert list(history["unit"]) == ["stage", "stage"]
    scores = read_table(tmp_path / "out", "scores")
    assert scores["dice"].mean() > 0.5
    (file,) = (tmp_path / "out/predictions/stages").iterdir()
    with np.load(file) as stored:
        assert stored["titles"].tolist() == ["shape prior", "stage 1", "stage 2"]
        assert [stored[f"map_{index}"].shape for index in range(3)] == [(64, 64), (8, 8), (16, 16)]
        # What is scored of the last map is what scores.csv has.
        own = scores.loc[scores["image_id"] == str(stored["image_id"]), "dice"]
        assert own.tolist() == pytest.approx([stored["dice"][2]])
    assert f"stages/{file.name}" in read_contents(tmp_path / "out").pictures


def test_weights_that_end_before_the_deepest_layer_are_refused_in_a_sentence(
    small, runtime, tmp_path, monkeypatch
):
    widths = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {f"features.{layer}.weight": torch.zeros(*width, 3, 3) for layer, width in widths.items()}
    state |= {f"features.{layer}.bias": torch.zeros(width[0]) for layer, width in widths.items()}
    path = tmp_path / "vgg19.safetensors"
    save_file(state, path)
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(tmp_path))
    approach = Vgg19Context(small(weights="imagenet", layers=("relu1_2", "relu3_1")), runtime)
    with pytest.raises(InputError, match=r'features\.10.*layers = \["relu1_2"\]') as refusal:
        approach.weights()
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    fewer = Vgg19Context(small(weights="imagenet", layers=("relu1_2", "relu2_2")), runtime)
    assert fewer.weights().kind == "imagenet"
