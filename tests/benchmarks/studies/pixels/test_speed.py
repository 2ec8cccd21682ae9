"""The script `benchmarks/studies/pixels/speed.py`, run tiny; what it says is fast is not tested."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies import ceilings, study, turns
from benchmarks.studies.pixels import floor, models, speed
from lungseg.system.runtime import Runtime

TINY = {
    "weights": "random",
    "size": 64,
    "scales": [64, 32],
    "components": 4,
    "grid": 32,
    "coarse": 16,
    "contexts": 2,
    "boosting": {"rounds": 4, "leaves": 7},
    "pixels_per_image": 60,
}
FOLDERS = ("images", "trees", "floor")
QUICK = ["--device", "cpu", "--threads", "1", "--repeats", "2", "--images", "2", "--sizes", "48"]
QUICK += ["--batches", "1", "2", "--forest", "3", "5"]


pytestmark = pytest.mark.usefixtures("quick_ceilings")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> models.Stored:
    cpu = Runtime(torch.device("cpu"), threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SMALL_FIT", (6, 2))
        return models.fit_small(TINY, cpu, tmp_path_factory.mktemp("fit"))


@pytest.fixture
def results(fitted, tmp_path) -> Path:
    """A run's results as far as the script reads them."""
    row = {"name": "context", "use": "vgg19-context", "settings": fitted.settings.model_dump(mode="json")}
    other = {"name": "mean-mask", "use": "mean-mask", "settings": {}}
    (tmp_path / "run.json").write_text(json.dumps({"name": "a-run", "approaches": [other, row]}))
    (tmp_path / "models" / "context").mkdir(parents=True)
    (tmp_path / "models" / "context" / "f0-s1").symlink_to(fitted.directory)
    return tmp_path


def test_a_stored_fit_is_timed_with_both_engines_and_they_agree(results, tmp_path, capsys):
    speed.main(["--results", str(results), *QUICK, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "Model: context, f0-s1, of the run 'a-run'." in said
    assert "phantoms." in said
    images, trees, floors = (pd.read_csv(tmp_path / "out" / n / "table.csv") for n in FOLDERS)
    assert images["engine"].tolist() == ["lightgbm", "llvm"] * 2
    assert images["batch"].tolist() == [1, 1, 2, 2]
    ours = images[images["engine"] == "llvm"]
    assert (ours["pixels of masks that differ"] == 0).all()
    assert (ours["largest difference of maps"] < 1e-6).all()
    assert (trees["largest difference of raw scores"] < 1e-6).all()
    assert trees["rows"].tolist() == [2 * (2 * 16**2 + 32**2)] * 2 + [2 * 48**2] * 2
    assert floors[floors["work"] == "trees"]["batch"].tolist() == [1, 2]


def test_lightgbms_own_prediction_can_be_left_out(results, tmp_path, capsys):
    words = ["--results", str(results), *QUICK, "--batches", "1", "--no-lightgbm"]
    speed.main([*words, "--out", str(tmp_path / "out")])
    assert "left out" in capsys.readouterr().out
    images, trees, floors = (pd.read_csv(tmp_path / "out" / n / "table.csv") for n in FOLDERS)
    assert images["engine"].tolist() == ["llvm"]
    assert trees["engine"].tolist() == ["llvm", "llvm"]
    assert "times as fast" not in {*images, *trees}
    assert trees["floor / measured"].notna().all()
    assert "trees" in set(floors["work"])


@pytest.mark.parametrize(("there", "device", "missing"), [(True, "cuda", 0), (False, "cpu", 1)])
def test_where_there_is_a_gpu_it_alone_is_measured(there, device, missing, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    runtimes, rows = study.resolve_runtimes("auto", 1)
    assert [runtime.device.type for runtime in runtimes] == [device]
    assert len(rows) == missing


def test_the_copy_that_the_ceiling_is_measured_on_is_not_of_zeros(monkeypatch):
    copied = []
    monkeypatch.setattr(ceilings, "time_chain", lambda _, value, *__: copied.append(value) or {"copy": [1.0]})
    monkeypatch.setattr(ceilings, "measure_product_speed", lambda *_: 1.0)
    monkeypatch.setattr(ceilings, "_measure_visits", lambda _: None)
    ceilings.measure_ceilings(Runtime(torch.device("cpu")), lambda: None)
    (source,) = copied
    assert source.unique().numel() > 0.9 * source.numel()


def test_a_fit_is_found_by_its_own_folder_and_as_the_first_of_its_run(results):
    model = results / "models" / "context" / "f0-s1"
    assert models.find_first_fit(results) == model
    found = models.read_fit(model)
    assert found.directory == model
    assert found.settings.grid == TINY["grid"]


def test_without_a_model_a_small_one_is_fitted_and_the_missing_gpu_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(models, "SMALL_FIT", (6, 2))
    changes = [f"{key}={json.dumps(value)}" for key, value in TINY.items() if key != "boosting"]
    changes += ["boosting.rounds=2"]
    words = [*QUICK, "--device", "auto", "--batches", "1", "--set", *changes]
    speed.main([*words, "--out", str(tmp_path / "out")])
    assert "a small model fitted on 6 phantoms" in capsys.readouterr().out
    for folder in FOLDERS:
        last = pd.read_csv(tmp_path / "out" / folder / "table.csv").iloc[-1]
        assert (last["device"], last["why empty"]) == ("cuda", "no CUDA device")


def test_recorded_rows_are_those_that_each_stage_was_given(fitted, monkeypatch):
    """Stages of one grid write to the same memory, one after the other."""
    approach = models.use_engine(fitted.load(Runtime(torch.device("cpu"), threads=1)), "lightgbm")
    given, predict_rows = [], models.EngineStage.predict_rows
    monkeypatch.setattr(
        models.EngineStage,
        "predict_rows",
        lambda stage, rows: given.append(rows.clone()) or predict_rows(stage, rows),
    )
    recorded = models.record_rows(approach, [np.random.default_rng(0).random((50, 50), np.float32)])
    assert len(recorded) == len(given) == 3
    for (_, rows), expected in zip(recorded, given, strict=True):
        assert torch.equal(rows, expected)
        assert rows.stride() == expected.stride()
    assert not any(stage.model.on_device for stage in approach.cascade)


def test_operations_are_those_that_torch_counts(fitted):
    approach = fitted.load(Runtime(torch.device("cpu"), threads=1))
    batch = approach.prepare([np.zeros((48, 48), np.float32)] * 3)
    with FlopCounterMode(display=False) as counter:
        approach.image_planes.projection(
            approach.image_planes.compute_features(batch), approach.image_planes.grids[0]
        )
    counted = sum(layer.operations for layer in floor.list_convolutions(approach))
    assert 3 * counted == counter.get_total_flops()


def test_the_floor_is_the_longest_of_the_three_times(fitted):
    approach = models.use_engine(fitted.load(Runtime(torch.device("cpu"), threads=1)), "lightgbm")
    own = ceilings.Ceilings(gflops=1.0, gbytes=1e9, visits=1e-3)
    rows = floor.make_floor_rows(approach, 2, own, {"features": 50.0, "trees": 100.0})
    found = {row["work"]: row for row in rows}
    nodes = [len(stage.model.evaluator.forest.feature) for stage in approach.cascade]
    visits = 2 * (16**2 * sum(nodes[:2]) + 32**2 * nodes[2])
    assert found["trees"]["floor ms"] == pytest.approx(visits / 1e3)
    assert found["trees"]["floor / measured"] == f"{visits / 1e5:.0%}"
    levels = sum(row["GFLOP"] for work, row in found.items() if work.startswith("features:"))
    assert found["features"]["floor ms"] == pytest.approx(1e3 * levels)


def test_each_turn_of_every_way_starts_from_the_same_value(monkeypatch):
    monkeypatch.setattr(turns, "ROUNDS", 2)
    seen = {"a": [], "b": []}
    chains = {name: [("step", seen[name].append)] for name in seen}
    found = turns.take_turns(chains, lambda turn: turn, 6)
    assert [set(seen["a"]), set(seen["b"])] == [{0, 1}] * 2
    assert [len(one.seconds["whole"]) for one in found.values()] == [6, 6]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sizes", "0"], "--sizes are at least 16"),
        (["--batches", "1", "0"], "--batches and the TREES of --forest are at least 1"),
        (["--forest", "0", "63"], "the TREES of --forest are at least 1"),
        (["--forest", "3", "1"], "the LEAVES of --forest at least 2"),
    ],
)
def test_a_number_that_can_not_be_measured_ends_in_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        speed.main([*QUICK, *words])
    assert sentence in capsys.readouterr().err


def test_a_model_that_can_not_be_timed_ends_in_a_sentence(results, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    wrong = {
        "--results": (tmp_path / "empty", "run.json is missing"),
        "--model": (results / "models" / "context" / "f9-s9", "there is no fitted model"),
    }
    for option, (path, sentence) in wrong.items():
        with pytest.raises(SystemExit):
            speed.main([option, str(path), *QUICK])
        assert sentence in capsys.readouterr().err
