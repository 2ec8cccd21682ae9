from pathlib import Path

import lightgbm
import numpy as np
import pytest
import torch

from lungseg.approaches.vgg19_context.stage_models import make_stage_model
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.training import CodedRows
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder

REGRESSORS = ("lightgbm", "ridge", "sklearn.tree:ExtraTreeRegressor", "mlp")


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray, Bins]:
    """Rows of six columns, a target that trees and lines can learn, and the bins of a part of the rows."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (3000, 6)).astype(np.float32)
    rows[:, 3] = np.maximum(rows[:, 3], 0)
    targets = 1 / (1 + np.exp(-2 * rows[:, 0] - rows[:, 3]))
    return rows, targets.astype(np.float32), Bins.from_sample(rows[:1500])


@pytest.fixture
def fit(table, small, runtime, new_fit_context):
    """A fitted stage; its rows are in two tables side by side, as those of a stage with context are."""
    rows, targets, bins = table
    codes = bins.encode(rows)
    tables = [codes[:, :2].copy(), codes[:, 2:].copy()]

    def make(regressor: str, seed: int = 0):
        model = make_stage_model(small(regressor=regressor), runtime, last=True)
        train, held = np.arange(3000) < 2500, np.arange(3000) >= 2500
        learnt, kept = CodedRows(tables, targets, train), CodedRows(tables, targets, held)
        model.fit(learnt, kept, bins, new_fit_context(seed), threads=1)
        return model

    return make


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path / "model")


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_a_stage_learns_and_predicts_alike_from_codes_and_from_values(regressor, fit, table):
    rows, targets, bins = table
    model = fit(regressor)
    from_codes, from_rows = model.predict_codes(bins.encode(rows)), model.predict_rows(torch.from_numpy(rows))
    assert from_rows.dtype == torch.float32
    np.testing.assert_allclose(from_codes, from_rows.numpy(), atol=1e-6)
    held = slice(2500, None)
    assert np.mean((from_codes[held] - targets[held]) ** 2) < 0.4 * targets[held].var()
    assert model.parameters is None if ":" in regressor else model.parameters > 0


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_a_stored_stage_predicts_the_same(regressor, fit, table, small, runtime, folder):
    rows = torch.from_numpy(table[0])
    model, stored = fit(regressor), make_stage_model(small(regressor=regressor), runtime, last=True)
    model.save(folder)
    stored.read(folder)
    assert torch.equal(stored.predict_rows(rows), model.predict_rows(rows))
    assert stored.parameters == model.parameters


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_rows_of_other_strides_are_read_alike(regressor, fit, table):
    rows, model = torch.from_numpy(table[0]), fit(regressor)
    assert torch.equal(model.predict_rows(rows.T.contiguous().T), model.predict_rows(rows))


@pytest.mark.parametrize("regressor", ["lightgbm", "sklearn.tree:ExtraTreeRegressor", "mlp"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(regressor, fit, table):
    rows = torch.from_numpy(table[0])
    first, same, other = (fit(regressor, seed).predict_rows(rows) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_boosted_trees_are_those_that_lightgbm_reads_from_the_file(fit, table, folder):
    rows, model = table[0], fit("lightgbm")
    model.save(folder)
    (file,) = folder.iterdir()
    expected = lightgbm.Booster(model_file=str(file)).predict(rows)
    np.testing.assert_allclose(model.predict_rows(torch.from_numpy(rows)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("regressor", REGRESSORS)
def test_a_damaged_file_is_named(regressor, share, fit, small, runtime, folder):
    fit(regressor).save(folder)
    for file in list(folder.iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="damaged") as refusal:
            make_stage_model(small(regressor=regressor), runtime, last=True).read(folder)
        assert str(file) in str(refusal.value)
        file.unlink()
        with pytest.raises(InputError, match="missing") as refusal:
            make_stage_model(small(regressor=regressor), runtime, last=True).read(folder)
        assert str(file) in str(refusal.value)
        file.write_bytes(whole)


@pytest.mark.parametrize("regressor", ["lightgbm", "ridge"])
def test_noise_in_place_of_a_model_is_refused(regressor, fit, small, runtime, folder):
    fit(regressor).save(folder)
    for file in folder.iterdir():
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(InputError, match="damaged"):
        make_stage_model(small(regressor=regressor), runtime, last=True).read(folder)
