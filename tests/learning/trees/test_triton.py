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
from lungseg.learning.trees import triton as trees_triton
from lungseg.learning.trees.evaluator import make_evaluator

trees_triton.BUSY_WARPS, trees_triton.LEAST_TREES = 5, 1  # 513 rows are many; up to 511 are few, in groups
model, rows, scores = sys.argv[1:]
values = torch.from_numpy(np.load(rows))
trees = make_evaluator(open(model).read(), engine="triton")
assert trees.engine == "triton"
found = {}
for count in (1, 17, 511, 513):
    found[f"rows {count}"] = trees.predict_raw(values[:count]).numpy()
found["columns"] = trees.predict_raw(values[:200].T.contiguous().T).numpy()
np.savez(scores, **found)
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
    rows[1:6, 1] = np.nan, np.inf, -np.inf, 1e-35, -1e-36
    return booster, rows


def test_interpreted_kernels_give_lightgbms_raw_scores(model, tmp_path):
    booster, rows = model
    booster.save_model(tmp_path / "model.txt")
    np.save(tmp_path / "rows.npy", rows)
    paths = [str(tmp_path / name) for name in ("model.txt", "rows.npy", "scores.npz")]
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
    with np.load(tmp_path / "scores.npz") as found:
        assert sorted(map(len, found.values())) == [1, 17, 200, 511, 513]
        for scores in found.values():
            np.testing.assert_allclose(scores, expected[: len(scores)], rtol=0, atol=1e-12)


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


def test_a_full_memory_is_told_as_such_and_no_other_engine_hides_it(model, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(trees_triton.TritonForest, "_run_pass", fails)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        make_evaluator(model[0].model_to_string(), engine="triton")


def test_both_layouts_and_sizes_of_programs_are_compiled_before_any_row_comes(model, monkeypatch):
    called = []
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(
        trees_triton.TritonForest,
        "_run_pass",
        lambda _, rows, scores, launch: called.append((rows.stride(), launch.block)),
    )
    make_evaluator(model[0].model_to_string(), engine="triton")
    count = trees_triton.WARM_UP_ROWS
    assert set(called) == {(stride, block) for stride in ((1, count), (5, 1)) for block in (128, 512)}


@pytest.mark.parametrize(
    ("rows", "trees", "expected"),
    [
        (4096, 300, (128, 66)),  # 32 warps of rows, where 132 multiprocessors want 16 each
        (16384, 2000, (128, 17)),
        (4096, 7, (128, 1)),
        (1, 1, (128, 1)),
        (1 << 20, 300, (512, 1)),
    ],
)
def test_few_rows_are_cut_so_that_a_large_gpu_is_filled(rows, trees, expected):
    launch = trees_triton.choose_launch(rows, trees, multiprocessors=132)
    assert (launch.block, launch.groups) == expected


POINTERS = {"x": "*fp32", "columns": "*i32", "bounds": "*i32", "thresholds": "*fp32", "codes": "*u8"}
POINTERS |= {"nodes": "*i64", "first": "*i32", "first_leaf": "*i32", "leaves": "*fp64", "partial": "*fp64"}
POINTERS |= {"constant": "*fp64", "scores": "*fp64"}


@pytest.mark.parametrize("capability", [75, 80, 90, 100, 120])
def test_the_kernels_compile_to_machine_code_without_a_gpu(capability, tmp_path, monkeypatch):
    triton, compiler = pytest.importorskip("triton"), pytest.importorskip("triton.backends.compiler")
    try:
        nvidia = pytest.importorskip("triton.backends.nvidia.compiler", reason="no NVIDIA back end")
        nvidia.get_ptxas(capability)
    except RuntimeError as error:
        pytest.skip(f"no ptxas here: {error}")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in (trees_triton._code, trees_triton._descend, trees_triton._add):
        for warps in trees_triton.WARPS.values():
            fixed = {"BLOCK": warps * 128, "UNROLL": 4, "ZERO": 1e-35}
            kinds = {n: "constexpr" if n in fixed else POINTERS.get(n, "i32") for n in kernel.arg_names}
            source = triton.compiler.ASTSource(
                kernel, kinds, {name: value for name, value in fixed.items() if name in kinds}
            )
            target = compiler.GPUTarget("cuda", capability, 32)
            assert triton.compile(source, target, options={"num_warps": warps}).asm["cubin"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_lightgbms_raw_scores(model):
    booster, rows = model
    trees = make_evaluator(booster.model_to_string(), "cuda")
    assert trees.engine == "triton"
    expected = booster.predict(rows, raw_score=True)
    by_row = torch.from_numpy(rows).cuda()
    for values in (by_row, by_row.T.contiguous().T, by_row[:17]):
        raw = trees.predict_raw(values)
        assert raw.device.type == "cuda"
        np.testing.assert_allclose(raw.cpu(), expected[: len(raw)], rtol=0, atol=1e-12)
