from dataclasses import replace
from types import SimpleNamespace

import lightgbm
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.models import vgg19

from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels, Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.sampling import build_table, sample_pixels
from lungseg.harness.announce import list_hints
from lungseg.learning.regressors.base import PixelTable, compute_column_moments
from lungseg.learning.regressors.boosting import BoostingSettings, LightGBM
from lungseg.learning.regressors.mlp import Dropout
from lungseg.learning.regressors.ridge import RidgeRegressor, RidgeSettings
from lungseg.learning.trees import training
from lungseg.learning.vgg19.features import IMAGENET_MEAN, IMAGENET_SD, PixelFeatures, make_random_weights
from lungseg.scoring.overlap import mean_dice
from lungseg.system.errors import InputError
from lungseg.system.plugins import validate

REGRESSORS = ("lightgbm", "ridge", "sklearn.tree:ExtraTreeRegressor", "mlp")
SMALL = {"boosting": {"rounds": 15}, "mlp": {"epochs": 3, "hidden": 32, "learning_rate": 0.01}}


def settings(**values) -> Vgg19PixelsSettings:
    return Vgg19PixelsSettings(weights="random", size=24, **SMALL, **values)


def test_maps_are_those_of_torchvisions_vgg19_up_to_its_second_relu():
    network = vgg19(weights=None).features[:4].eval()
    state = make_random_weights(seed=3)
    network.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    ours = PixelFeatures("random", seed=3)
    images = torch.rand(2, 1, 17, 23)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    sd = torch.tensor(IMAGENET_SD).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = network((images.expand(-1, 3, -1, -1) - mean) / sd)
        torch.testing.assert_close(ours(images), expected, atol=2e-5, rtol=1e-4)


def test_sampled_pixels_keep_the_share_of_each_stratum():
    target = np.zeros((20, 20), np.float32)
    target[:, 10:] = 1  # half lung
    target[:, 9] = 0.3  # one column of 20 along the edge
    chosen = sample_pixels(target, 100, np.random.default_rng(0))
    values = target.ravel()[chosen]
    assert len(np.unique(chosen)) == 100
    assert (values == 1).sum() == 50
    assert (values == np.float32(0.3)).sum() == 5


def test_all_pixels_are_taken_when_there_are_no_more_than_asked_for():
    assert sample_pixels(np.zeros((3, 4), np.float32), 12, np.random.default_rng(0)).tolist() == list(
        range(12)
    )


def test_a_row_of_the_table_is_the_pixel_it_names(discs, runtime):
    samples = discs(3, size=24)
    network = PixelFeatures("random")
    table = build_table(samples, network, runtime, size=24, pixels_per_image=24 * 24, seed=0)
    with torch.inference_mode():
        maps = network(torch.from_numpy(samples[1].image())[None, None])[0]
    row, column = 5, 7
    place = 24 * 24 + row * 24 + column
    np.testing.assert_allclose(table.features[place], maps[:, row, column].numpy(), atol=1e-5)
    assert table.targets[place] == samples[1].mask()[row, column]


def test_shrunken_masks_are_learnt_as_area_shares(discs, runtime):
    table = build_table(discs(1, size=96), PixelFeatures("random"), runtime, 24, 24 * 24, seed=0)
    assert ((table.targets > 0) & (table.targets < 1)).any()
    assert table.targets.mean() == pytest.approx(discs(1, size=96)[0].mask().mean(), abs=1e-5)


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_every_regressor_learns_is_stored_and_repeats_its_bits(
    regressor, discs, runtime, new_fit_context, tmp_path
):
    train, held = discs(8), discs(3, seed=9)
    truths = [sample.mask() for sample in held]
    images = [sample.image() for sample in held]
    fit_context = new_fit_context()
    approach = Vgg19Pixels(settings(regressor=regressor), runtime)
    fitted = approach.fit(train, held, fit_context)
    maps = approach.predict(images)
    assert mean_dice(maps, truths) > 0.8
    assert all(m.shape == t.shape and m.dtype == np.float32 for m, t in zip(maps, truths, strict=True))
    assert fit_context.rows[0]["step"] == 1
    assert all(
        np.isfinite(row["validation_loss"]) and 0 <= row["train_accuracy"] <= 1 for row in fit_context.rows
    )
    assert fitted.parameters is None if ":" in regressor else fitted.parameters > 0

    approach.save(tmp_path)
    loaded = Vgg19Pixels.load(tmp_path, approach.settings, runtime)
    again = Vgg19Pixels(approach.settings, runtime)
    again.fit(train, held, new_fit_context(folder="again"))
    for other in (loaded, again):
        for one, two in zip(maps, other.predict(images), strict=True):
            np.testing.assert_array_equal(one, two)


def test_lightgbm_keeps_the_round_with_the_least_validation_loss(discs, runtime, new_fit_context):
    fit_context = new_fit_context()
    approach = Vgg19Pixels(settings(regressor="lightgbm"), runtime)
    fitted = approach.fit(discs(4), discs(2, seed=5), fit_context)
    losses = [row["validation_loss"] for row in fit_context.rows]
    assert fitted.best_step == int(np.argmin(losses)) + 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_are_what_lightgbm_predicts_from_the_stored_file(
    layout, discs, runtime, new_fit_context, tmp_path
):
    approach = Vgg19Pixels(settings(regressor="lightgbm"), runtime)
    approach.fit(discs(4), discs(2, seed=5), new_fit_context())
    approach.save(tmp_path)
    stored = lightgbm.Booster(model_file=tmp_path / "lightgbm.txt")
    features, regression = approach.stages()
    maps = features.run(approach.prepare([sample.image() for sample in discs(3, seed=7)]))
    found = regression.run(maps.contiguous(memory_format=layout))
    expected = stored.predict(maps.permute(0, 2, 3, 1).reshape(-1, 64).numpy()).clip(0, 1)
    assert (found.shape, found.dtype) == ((3, 1, 24, 24), torch.float32)
    np.testing.assert_allclose(found.flatten(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("regressor", ["ridge", "sklearn.tree:ExtraTreeRegressor", "mlp"])
def test_each_pixel_of_a_map_is_the_prediction_of_its_row(regressor, discs, runtime, new_fit_context):
    approach = Vgg19Pixels(settings(regressor=regressor), runtime)
    approach.fit(discs(4), discs(2, seed=5), new_fit_context())
    features, regression = approach.stages()
    maps = features.run(approach.prepare([sample.image() for sample in discs(3, seed=7)]))
    rows = np.stack([maps[image, :, y, x].numpy() for image, y, x in np.ndindex(3, 24, 24)])
    expected = approach.regressor.predict(rows).clip(0, 1)
    np.testing.assert_allclose(regression.run(maps).flatten(), expected, rtol=0, atol=1e-6)


def test_a_model_without_a_split_and_one_of_large_trees_are_evaluated_too(runtime, new_fit_context, tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 3)).astype(np.float32)
    targets = (features[:, 0] > 0).astype(np.float32) + rng.random(3000).astype(np.float32)
    for table, leaves in (
        (PixelTable(np.ones_like(features), targets), 4),
        (PixelTable(features, targets), 300),  # more than the CPU's faster engine takes
    ):
        regressor = LightGBM(BoostingSettings(rounds=5, leaves=leaves, min_leaf=1), runtime)
        regressor.fit(table, table, new_fit_context())
        regressor.save(tmp_path)
        expected = lightgbm.Booster(model_file=tmp_path / "lightgbm.txt").predict(table.features)
        loaded = LightGBM.load(tmp_path, regressor.settings, runtime)
        assert loaded.parameters == regressor.parameters > 0
        for one in (regressor, loaded):
            np.testing.assert_allclose(one.predict(table.features), expected, rtol=0, atol=1e-6)


def test_features_that_are_no_numbers_are_refused_before_trees_grow(runtime, new_fit_context):
    features = np.ones((100, 2), np.float32)
    features[7, 1] = np.nan
    table, fit_context = PixelTable(features, np.ones(100, np.float32)), new_fit_context()
    with pytest.raises(InputError, match="NaN or infinite"):
        LightGBM(BoostingSettings(), runtime).fit(table, table, fit_context)
    assert fit_context.rows == []


def test_a_gpus_time_includes_copies_only_where_the_regressor_leaves_it(discs, runtime, new_fit_context):
    elsewhere = replace(runtime, device=torch.device("cuda"))
    copies = {}
    for regressor in ("lightgbm", "ridge", "mlp"):
        approach = Vgg19Pixels(settings(regressor=regressor), runtime)
        approach.fit(discs(2), discs(2, seed=1), new_fit_context())
        approach.runtime = approach.regressor.runtime = elsewhere
        copies[regressor] = [stage.copies for stage in approach.stages()]
    assert copies == {"lightgbm": [False, True], "ridge": [False, True], "mlp": [False, False]}


@pytest.mark.parametrize(
    "bad",
    [
        {"boosting": {"rounds": 0}},
        {"boosting": {"leaves": 1}},
        {"ridge": {"alpha": -1}},
        {"mlp": {"dropout": 1.5}},
        {"mlp": {"epochs": 0}},
        {"size": 2},
    ],
)
def test_settings_out_of_range_are_refused_before_anything_runs(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        validate(Vgg19PixelsSettings, bad, "approach 'x'")


def test_dropout_drops_its_share_and_keeps_the_mean():
    layer = Dropout(0.3).train()
    layer.seed(1, 2)
    units = torch.ones(1000, 512)
    dropped = layer(units)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    layer.seed(1, 2)
    assert torch.equal(layer(units), dropped)
    assert torch.equal(layer.eval()(units), units)


def test_column_moments_agree_with_numpy():
    table = (np.random.default_rng(0).normal(1000, 0.01, (5000, 3))).astype(np.float32)
    mean, sd = compute_column_moments(table)
    np.testing.assert_allclose(mean, table.astype(np.float64).mean(0), rtol=1e-9)
    np.testing.assert_allclose(sd, table.astype(np.float64).std(0), rtol=1e-6)


def test_ridge_agrees_with_scikit_learns_pipeline(runtime, new_fit_context):
    rng = np.random.default_rng(0)
    features = rng.gamma(2, 3, (4000, 64)).astype(np.float32)
    features[:, 5] = 0  # a map that never fires
    targets = (features[:, 0] / 12 + rng.normal(0, 0.1, 4000)).astype(np.float32)
    table = PixelTable(features, targets)
    ours = RidgeRegressor(RidgeSettings(alpha=10.0), runtime)
    ours.fit(table, table, new_fit_context())
    theirs = make_pipeline(StandardScaler(), Ridge(alpha=10.0)).fit(features.astype(np.float64), targets)
    np.testing.assert_allclose(ours.predict(features), theirs.predict(features), atol=2e-4)


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_a_damaged_model_is_refused_in_a_sentence(regressor, discs, runtime, new_fit_context, tmp_path):
    approach = Vgg19Pixels(settings(regressor=regressor), runtime)
    approach.fit(discs(2), discs(2, seed=1), new_fit_context())
    approach.save(tmp_path / "checkpoints")
    (file,) = (tmp_path / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="damaged"):
        Vgg19Pixels.load(tmp_path / "checkpoints", approach.settings, runtime)


def test_feature_maps_for_the_picture(discs, runtime):
    maps = Vgg19Pixels(settings(), runtime).feature_maps(discs(1)[0].image())
    assert maps.shape == (64, 24, 24)
    assert F.relu(torch.from_numpy(maps)).equal(torch.from_numpy(maps))


@pytest.mark.parametrize("approach_class", [Vgg19Pixels, Vgg19Context])
def test_the_plan_says_what_is_other_on_a_gpu(approach_class, runtime, monkeypatch):
    monkeypatch.setattr(training, "why_not_on_cuda", lambda: "CUDA Tree Learner was not enabled.")
    on_gpu = replace(runtime, device=torch.device("cuda"), precision="bfloat16")
    rounded, trees = approach_class.hints(approach_class.Settings(), on_gpu)
    assert "in bfloat16" in rounded
    assert "grow on the CPU" in trees
    assert "not enabled" in trees
    assert approach_class.hints(approach_class.Settings(regressor="mlp"), on_gpu) == [rounded]
    assert approach_class.hints(approach_class.Settings(), runtime) == []
    entries = [SimpleNamespace(name="a", skipped=None, approach_class=approach_class, settings=None)]
    entries[0].settings = approach_class.Settings()
    plan = SimpleNamespace(entries=entries, runtime=on_gpu, not_compiled=None)
    assert list_hints(plan) == [f"a: {rounded}", f"a: {trees}"]
