"""The Triton kernels: in Triton's interpreter on the CPU, and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import torch

from lungseg.learning.trees.evaluator import make_evaluator
from lungseg.system.errors import InputError

# Before any test sets TRITON_INTERPRET, which is read now.
trees_triton = pytest.importorskip("lungseg.learning.trees.triton", reason="triton isn't installed")

# The variable is read when triton is imported, so the interpreter needs a process of its own.
INTERPRETED = """
import sys
import numpy as np
import torch
from lungseg.learning.trees.evaluator import make_evaluator

model, rows, scores = sys.argv[1:]
values = torch.from_numpy(np.load(rows))
trees = make_evaluator(open(model).read(), engine="triton")
assert trees.engine == "triton"
by_column = values.T.contiguous().T
np.save(scores, np.stack([trees.predict_raw(values).numpy(), trees.predict_raw(by_column).numpy()]))
"""


@pytest.fixture(scope="module")
def model() -> tuple[lightgbm.Booster, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(900, 5)).astype(np.float32)
    target = (rows[:, 0] * rows[:, 1] > 0) + rows[:, 2]
    parameters = {"verbosity": -1, "num_threads": 1, "max_bin": 600, "min_data_in_bin": 1}
    parameters |= {"num_leaves": 24, "min_data_in_leaf": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), 6)
    thresholds = [split for split in booster.trees_to_dataframe()["threshold"].dropna()][:200]
    rows[: len(thresholds), 0] = thresholds
    rows[:5, 1] = np.nan, np.inf, -np.inf, 1e-35, -1e-36
    return booster, rows


def test_interpreted_kernels_give_lightgbms_raw_scores(model, tmp_path):
    booster, rows = model
    booster.save_model(tmp_path / "model.txt")
    np.save(tmp_path / "rows.npy", rows)
    paths = [str(tmp_path / name) for name in ("model.txt", "rows.npy", "scores.npy")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, *paths],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[3],
        timeout=300,
    )
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter can't count loops with this NumPy")
    assert done.returncode == 0, done.stderr
    expected = booster.predict(rows, raw_score=True)
    scores = np.load(tmp_path / "scores.npy")
    np.testing.assert_allclose(scores, np.stack([expected, expected]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore"),
        OSError("cuda_utils.so: cannot open shared object file"),
        subprocess.CalledProcessError(1, ["gcc", "main.c"]),
        trees_triton.TritonError("no such instruction"),
        RuntimeError(),
    ],
)
def test_what_triton_raises_while_it_compiles_is_told_before_any_row_comes(model, error, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(trees_triton.TritonForest, "_run_pass", fails)
    with pytest.raises(InputError, match="install triton, a C compiler") as told:
        make_evaluator(model[0].model_to_string(), engine="triton")
    reason = str(error).split("\n")[0] or "RuntimeError"
    assert f"(Triton can't compile or run its kernels: {reason})" in str(told.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_lightgbms_raw_scores(model):
    booster, rows = model
    trees = make_evaluator(booster.model_to_string(), "cuda")
    assert trees.engine == "triton"
    raw = trees.predict_raw(torch.from_numpy(rows).cuda())
    assert raw.device.type == "cuda"
    np.testing.assert_allclose(raw.cpu(), booster.predict(rows, raw_score=True), rtol=0, atol=1e-12)
