import multiprocessing
import sys

import lightgbm
import numpy as np
import pytest
import torch

from lungseg.learning.trees import evaluator as trees
from lungseg.learning.trees import llvm as trees_llvm
from lungseg.learning.trees.coded import encode_forest
from lungseg.learning.trees.evaluator import make_evaluator
from lungseg.learning.trees.forest import Forest, round_down
from lungseg.system.errors import InputError

QUIET = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0}


def table(rows: int = 1500, columns: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns)).astype(np.float32)
    features[:, 0] = np.maximum(features[:, 0], 0)  # as after a ReLU: LightGBM splits it at 1e-35
    features[:, 1] *= 1e30
    features[:, 2] *= 1e-30
    score = (
        features[:, 0] * features[:, 3] + features[:, 1] / 1e30 + (features[:, 2] > 1e-31) + features[:, 4]
    )
    return features, score


def fitted(trees: int = 8, **parameters) -> lightgbm.Booster:
    features, target = table()
    parameters = {"objective": "regression", **QUIET, **parameters}
    return lightgbm.train(parameters, lightgbm.Dataset(features, target), trees)


def text_of(*trees: str, columns: int = 1) -> str:
    names = " ".join(f"c{k}" for k in range(columns))
    head = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
    head += f"max_feature_idx={columns - 1}\n"
    head += f"objective=regression\nfeature_names={names}\nfeature_infos={' '.join(['[0:1]'] * columns)}\n\n"
    return head + "\n".join(f"Tree={k}\n{tree}" for k, tree in enumerate(trees)) + "\nend of trees\n"


def stump(threshold: object, left: float = -1.0, right: float = 1.0) -> str:
    return (
        f"num_leaves=2\nnum_cat=0\nsplit_feature=0\nthreshold={threshold}\ndecision_type=2\n"
        f"left_child=-1\nright_child=-2\nleaf_value={left} {right}\nis_linear=0\nshrinkage=1\n"
    )


@pytest.mark.parametrize("engine", ["llvm", "lightgbm"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"num_leaves": 63},
        {"num_leaves": 256, "max_depth": 8},
        {"num_leaves": 40, "learning_rate": 1.0, "feature_fraction": 0.4},  # deep and unbalanced
        {"num_leaves": 2},
        {"num_leaves": 31, "max_bin": 1000},  # more thresholds in a column than 8 bits can count
    ],
)
def test_raw_scores_are_lightgbms(parameters, engine):
    booster = fitted(**parameters)
    rows = table(1100, seed=1)[0]
    raw = make_evaluator(booster.model_to_string(), engine=engine).predict_raw(torch.from_numpy(rows))
    assert raw.dtype == torch.float64
    np.testing.assert_allclose(raw.numpy(), booster.predict(rows, raw_score=True), rtol=0, atol=1e-12)


def test_a_column_with_more_thresholds_than_a_byte_counts_is_coded_in_parts():
    text = text_of(*(stump(value, left=value) for value in range(600)))
    coded = encode_forest(Forest.from_text(text))
    assert np.diff(coded.bounds).tolist() == [255, 255, 90]
    rows = np.arange(-2, 603, dtype=np.float32)[:, None]
    expected = lightgbm.Booster(model_str=text).predict(rows, raw_score=True)
    np.testing.assert_array_equal(
        make_evaluator(text, engine="llvm").predict_raw(torch.from_numpy(rows)), expected
    )


@pytest.mark.parametrize("count", [1, 63, 512, 513, 5000])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_count_of_rows_any_strides_and_threads_give_the_same(count, threads):
    booster = fitted(num_leaves=15)
    rows = table(count, seed=2)[0]
    expected = booster.predict(rows, raw_score=True)
    ready = make_evaluator(booster.model_to_string(), threads=threads, engine="llvm")
    by_row = torch.from_numpy(rows)
    by_column = torch.from_numpy(np.ascontiguousarray(rows.T)).T
    spread = torch.zeros(count * 2, 9)
    spread[::2, 3:] = by_row
    for same in (by_row, by_column, spread[::2, 3:]):
        np.testing.assert_allclose(ready.predict_raw(same), expected, rtol=0, atol=1e-12)


def test_a_row_at_a_threshold_or_next_to_it_takes_lightgbms_branch():
    single = np.float32(0.1)
    exact = [
        float(single),
        np.nextafter(float(single), 1),
        np.nextafter(float(single), 0),
        0.0,
        -0.0,
        1.0000000180025095e-35,
        -1.0000000180025095e-35,
        -1e-45,
        1e-46,
        3.4028234663852886e38,
        1e300,
        -1e300,
        16777217.0,
    ]
    near, inf = round_down(exact), np.float32(np.inf)
    with np.errstate(over="ignore"):
        values = [near, np.nextafter(near, inf), np.nextafter(near, -inf), -near, [0, -0.0, inf, -inf]]
    rows = np.concatenate(values).astype(np.float32)[:, None]
    text = text_of(*(stump(repr(float(t)), left=2.0**k) for k, t in enumerate(exact)))
    expected = lightgbm.Booster(model_str=text).predict(rows, raw_score=True)
    for engine in ("llvm", "lightgbm"):
        raw = make_evaluator(text, engine=engine).predict_raw(torch.from_numpy(rows))
        np.testing.assert_array_equal(raw.numpy(), expected)


def test_thresholds_are_rounded_down_to_float32():
    above = np.float64(np.float32(0.1))
    found = round_down([above, np.nextafter(above, 0), np.nextafter(above, 1), 1e300, -1e300])
    below = np.nextafter(np.float32(0.1), np.float32(0))
    largest = np.finfo(np.float32).max
    assert found.tolist() == [above, float(below), above, largest, -np.inf]


def test_nan_counts_as_zero_as_it_does_in_lightgbm():
    booster = fitted(num_leaves=31)
    rows = table(700, seed=3)[0]
    rows[::3, 0] = rows[1::7, 4] = np.nan
    rows[::5, 3], rows[1::5, 3] = np.inf, -np.inf
    raw = make_evaluator(booster.model_to_string(), engine="llvm").predict_raw(torch.from_numpy(rows))
    np.testing.assert_allclose(raw.numpy(), booster.predict(rows, raw_score=True), rtol=0, atol=1e-12)


def test_trees_of_a_single_leaf_add_their_value():
    constant = "num_leaves=1\nnum_cat=0\nleaf_value=0.25\nis_linear=0\nshrinkage=1\n"
    rows = torch.tensor([[0.0], [1.0]])
    for engine in ("llvm", "lightgbm"):
        mixed = make_evaluator(text_of(constant, stump(0.5), constant), engine=engine)
        assert mixed.predict_raw(rows).tolist() == [-0.5, 1.5]
        assert make_evaluator(text_of(constant), engine=engine).predict_raw(rows).tolist() == [0.25, 0.25]


def test_the_columns_that_trees_read():
    forest = Forest.from_text(fitted(num_leaves=8, interaction_constraints=[[1, 3, 4]]).model_to_string())
    read = forest.list_columns_read()
    assert set(read) <= {1, 3, 4}
    assert set(read) == set(forest.feature)
    assert (np.diff(read) > 0).all()


def test_a_written_forest_is_read_back_as_it_was():
    forest = Forest.from_text(fitted(num_leaves=20, trees=3).model_to_string())
    again = Forest.from_text(forest.to_text())
    for name in ("feature", "threshold", "left", "right", "first", "leaves"):
        np.testing.assert_array_equal(getattr(again, name), getattr(forest, name))
    assert again.columns == 6


def with_nan(features: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(features))[:, None] % 3 == 0, np.nan, features)


@pytest.mark.parametrize(
    ("parameters", "change", "words"),
    [
        ({"min_data_per_group": 1}, np.abs, "categorical"),
        ({}, with_nan, "missing values"),
        ({"zero_as_missing": True}, np.abs, "missing values"),
        ({"linear_tree": True}, np.abs, "linear"),
        ({"objective": "multiclass", "num_class": 3}, np.abs, "several classes"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, np.abs, "random forest"),
    ],
)
def test_models_it_would_get_wrong_are_refused(parameters, change, words):
    features = table()[0] / np.float32([1, 1e30, 1e-30, 1, 1, 1])
    features[:, 4] = np.arange(len(features)) % 7
    target = np.arange(len(features)) % 7 % 3
    parameters = {"objective": "regression", **QUIET, **parameters}
    categorical = [4] if words == "categorical" else []
    rows = lightgbm.Dataset(change(features), target, categorical_feature=categorical)
    booster = lightgbm.train(parameters, rows, 3)
    with pytest.raises(InputError, match=words):
        make_evaluator(booster.model_to_string())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=1 ", "left_child=0 "),  # a loop
        ("left_child=1 ", "left_child=7 "),
        ("split_feature=0 1", "split_feature=0 2"),
        ("split_feature=0 1", "split_feature=0 -1"),
        ("threshold=0.5 0.5", "threshold=0.5 nan"),
        ("threshold=0.5 0.5", "threshold=0.5"),
        ("leaf_value=1 2 3", "leaf_value=1 2"),
        ("leaf_value=1 2 3", "leaf_value=1 2 inf"),
        ("leaf_value=1 2 3", "leaf_value=1 2 x"),
        ("right_child=-3 -2", "right_child=-3 -3"),
        ("right_child=-3 -2", "right_child=-3 -9"),
        ("end of trees", ""),
        ("max_feature_idx=1\n", ""),
        ("Tree=0", ""),
    ],
)
def test_damaged_text_is_refused(old, new):
    tree = "num_leaves=3\nnum_cat=0\nsplit_feature=0 1\nthreshold=0.5 0.5\ndecision_type=2 2\n"
    tree += "left_child=1 -1\nright_child=-3 -2\nleaf_value=1 2 3\nis_linear=0\nshrinkage=1\n"
    text = text_of(tree, columns=2)
    assert make_evaluator(text).predict_raw(torch.tensor([[0.0, 1.0]])).tolist() == [2.0]
    assert old in text
    with pytest.raises(InputError, match="damaged"):
        make_evaluator(text.replace(old, new))


def test_lightgbm_takes_over_where_a_leafs_number_is_no_byte():
    booster = fitted(trees=2, num_leaves=300)
    text = booster.model_to_string()
    ready = make_evaluator(text)
    assert ready.engine == "lightgbm"
    rows = table(50)[0]
    np.testing.assert_allclose(
        ready.predict_raw(torch.from_numpy(rows)), booster.predict(rows, raw_score=True), rtol=0, atol=1e-12
    )
    with pytest.raises(InputError, match="256 leaves"):
        make_evaluator(text, engine="llvm")


def test_lightgbm_takes_over_without_llvmlite(monkeypatch):
    trees_llvm._compile_once.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    text = text_of(stump(0.5))
    found = make_evaluator(text)
    assert found.engine == "lightgbm"
    assert [reason for reason in found.passed_over if "install llvmlite" in reason]
    with pytest.raises(InputError, match=r"llvm.*install llvmlite"):
        make_evaluator(text, engine="llvm")
    monkeypatch.undo()
    assert (make_evaluator(text).engine, make_evaluator(text).passed_over) == ("llvm", ())


def test_the_cpu_takes_over_where_triton_cannot_compile(monkeypatch):
    def fails(*_):
        raise ImportError("Failed to find C compiler")

    monkeypatch.setattr(trees, "_make_triton", fails)
    found = make_evaluator(text_of(stump(0.5)), "cuda")
    assert (found.engine, found.device.type) == ("llvm", "cpu")
    assert found.predict_raw(torch.tensor([[0.0], [1.0]])).tolist() == [-1.0, 1.0]
    (reason,) = found.passed_over
    assert "Failed to find C compiler" in reason
    assert reason.endswith("install triton, a C compiler and Python's headers")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    rows = torch.from_numpy(table(4000)[0])
    ready = make_evaluator(fitted(num_leaves=15).model_to_string(), threads=3, engine="llvm")
    expected = ready.predict_raw(rows)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(ready.predict_raw(rows).numpy()), daemon=True)
    child.start()
    try:
        assert receiving.poll(30), "the child waits for threads that only its parent has"
        np.testing.assert_array_equal(receiving.recv(), expected)
    finally:
        child.kill()


def test_unknown_engines_and_rows_of_another_shape_are_refused():
    text = text_of(stump(0.5))
    with pytest.raises(InputError, match="llvm, lightgbm"):
        make_evaluator(text, engine="fast")
    with pytest.raises(InputError, match="CUDA"):
        make_evaluator(text, engine="triton")
    ready = make_evaluator(text)
    assert ready.predict_raw(torch.zeros(0, 1)).shape == (0,)
    for rows in (torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 1, dtype=torch.float64)):
        with pytest.raises(ValueError, match="N x 1"):
            ready.predict_raw(rows)
