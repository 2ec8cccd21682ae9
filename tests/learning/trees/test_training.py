"""Where LightGBM grows trees for a run on a GPU: on it if the installed build can, else on the CPU."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import torch

from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels
from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.regressors.boosting import BoostingSettings, LightGBM
from lungseg.learning.trees import evaluator, training

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def probed_anew():
    training._probe_cuda.cache_clear()
    yield
    training._probe_cuda.cache_clear()


@pytest.fixture
def with_cuda(monkeypatch) -> list[dict]:
    """A build that says it can use CUDA; the parameters of every training, which is done on the CPU."""
    asked, train = [], lightgbm.train

    def train_on_cpu(parameters, *others, **keys):
        asked.append(parameters)
        return train({**parameters, "device_type": "cpu"}, *others, **keys)

    class OnCpu(lightgbm.Dataset):
        def __init__(self, *others, params, **keys):
            super().__init__(*others, params={**params, "device_type": "cpu"}, **keys)

    monkeypatch.setattr(lightgbm, "train", train_on_cpu)
    monkeypatch.setattr(lightgbm, "Dataset", OnCpu)
    return asked


def fit(runtime, new_fit_context, monkeypatch) -> LightGBM:
    def fails(*_):
        raise ImportError("no CUDA device")

    monkeypatch.setattr(evaluator, "_make_triton", fails)
    rng = np.random.default_rng(0)
    features = rng.random((300, 3), np.float32)
    table = PixelTable(features, features[:, 0].copy())
    regressor = LightGBM(BoostingSettings(rounds=2), replace(runtime, device=CUDA))
    regressor.fit(table, table, new_fit_context())
    return regressor


def test_a_build_without_cuda_grows_trees_on_the_cpu_and_says_so(
    runtime, new_fit_context, monkeypatch, capfd
):
    problem = training.why_not_on_cuda()
    if problem is None:
        pytest.skip("this LightGBM has a CUDA learner, and a device")
    assert "CUDA" in problem
    assert training.describe_learner(CUDA) == [
        f"its trees grow on the CPU: LightGBM can't use the GPU ({problem.rstrip('.')})"
    ]
    given = {"deterministic": True, "seed": 3}
    assert training.use_learner(given, CUDA) == given
    assert training.name_learner(CUDA) == "cpu"
    assert "deterministic: 1" in fit(runtime, new_fit_context, monkeypatch).text
    assert capfd.readouterr().err == ""  # the library itself writes its refusal there


def test_a_build_with_cuda_is_used_and_its_trees_said_not_to_repeat(
    with_cuda, runtime, new_fit_context, monkeypatch
):
    fit(runtime, new_fit_context, monkeypatch)
    probe, own = with_cuda
    assert probe["device_type"] == own["device_type"] == "cuda"
    assert not {"deterministic", "force_row_wise", "force_col_wise"} & set(own)
    # The probe is what fits are made of: an objective in Python, a bin a code, some rows and columns.
    assert callable(probe["objective"])
    assert (probe["max_bin"], probe["enable_bundle"]) == (255, False)
    assert (probe["bagging_fraction"], probe["feature_fraction"]) == (0.5, 0.5)
    assert training.name_learner(CUDA) == "cuda"
    assert own["objective"] == "regression"
    (sentence,) = training.describe_learner(CUDA)
    assert "may differ" in sentence
    assert len(with_cuda) == 2, "it is tried only once"


def test_a_cpu_is_not_asked_for_cuda(with_cuda):
    given = {"deterministic": True}
    assert training.use_learner(given, torch.device("cpu")) == given
    assert training.describe_learner(torch.device("cpu")) == []
    assert training.name_learner(torch.device("cpu")) == "cpu"
    assert with_cuda == []


def test_a_full_memory_is_not_taken_for_a_missing_learner(monkeypatch):
    def fails(*_, **__):
        raise lightgbm.basic.LightGBMError("[CUDA] out of memory")

    monkeypatch.setattr(lightgbm, "train", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        training.why_not_on_cuda()
    # A plan goes on, and a fit that is stored isn't taken for one by another learner.
    assert "memory is full" in training.describe_learner(CUDA)[0]
    assert training.name_learner(CUDA) == "unknown"


def test_what_grows_the_trees_is_among_the_facts_of_a_fit(with_cuda, runtime):
    on_cuda = replace(runtime, device=CUDA)
    for approach in (Vgg19Pixels, Vgg19Context):
        settings = approach.Settings(weights="random")
        assert approach.fit_facts(settings, runtime) == {"learner": "cpu"}
        assert approach.fit_facts(settings, on_cuda) == {"learner": "cuda"}
        assert approach.fit_facts(approach.Settings(weights="random", regressor="ridge"), on_cuda) == {}
