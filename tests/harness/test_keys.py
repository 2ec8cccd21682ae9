"""When a stored fit, or its scores, may be used again."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lungseg
from lungseg.approaches.baselines import MeanMask
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels, Vgg19PixelsSettings
from lungseg.harness import keys
from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.spec import read_spec
from lungseg.system import hashing
from tests.tiny import NO_TIMING, SPEC

pytestmark = pytest.mark.usefixtures("without_figures")
ROOT = Path(lungseg.__file__).parent
NET = '[[approach]]\nuse = "deeplabv3plus-resnet50"\nname = "net"\nweights = "random"\nrecipe = "cpu"\n'


@pytest.fixture
def edited(monkeypatch):
    """A function that makes a module of this package read as if it had been edited."""
    parse, stamp = hashing._parse, hashing._stamp

    def edit(module: str, old: str, new: str) -> None:
        edited_file = ROOT / module
        text = edited_file.read_text("utf-8")
        assert re.search(old, text), f"{module} has no {old}"
        tree = ast.parse(re.sub(old, new, text, count=1))
        later = hash((module, old, new))
        monkeypatch.setattr(hashing, "_parse", lambda file: tree if file == edited_file else parse(file))
        monkeypatch.setattr(hashing, "_stamp", lambda file: later if file == edited_file else stamp(file))

    return edit


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    spec = tmp_path_factory.mktemp("plan") / "spec.toml"
    spec.write_text(SPEC.replace("[timing]", f"{NET}[timing]"))
    return make_plan(read_spec(spec, ["seeds=[0]"]))


def test_a_fit_beside_a_gpu_depends_on_the_processor_too_which_trains_the_trees(plan, monkeypatch):
    monkeypatch.setattr(keys, "find_gpu_name", lambda: "a GPU")
    entry = replace(plan.entries[0], runtime=replace(plan.runtime, device=torch.device("cuda")))
    found = []
    for cpu in ("one", "another"):
        monkeypatch.setattr(keys, "describe_cpu", lambda cpu=cpu: cpu)
        found.append(keys.facts_of_fit(entry)["machine"])
    assert found[0] != found[1]
    assert all("a GPU" in machine for machine in found)


def code_of_fits(plan) -> dict[str, str]:
    return {entry.name: keys.facts_of_fit(entry)["code"] for entry in plan.entries}


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("learning/images/augmentation.py", r'^"""', '"""Reworded. ', set()),
        ("learning/images/augmentation.py", r'"""Smallest', '"""Reworded', set()),
        ("learning/images/augmentation.py", r"\bimport math\n", "import math\nMORE = 1\n", {"net"}),
        ("learning/networks/losses.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"net"}),
        ("learning/regressors/ridge.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"pixels"}),
        ("learning/trees/llvm_ir.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"pixels"}),  # imported when needed
        ("approaches/baselines.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"mean-mask"}),
        ("learning/images/resize.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"mean-mask", "pixels", "net"}),
        ("data/datasets/phantom.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"mean-mask", "pixels", "net"}),
        ("scoring/overlap.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"mean-mask", "pixels", "net"}),
        ("data/memory.py", r"\n\n\n", "\n\n\nMORE = 1\n", {"mean-mask", "pixels", "net"}),
        ("data/datasets/cxr704.py", r"\n\n\n", "\n\n\nMORE = 1\n", set()),
        ("scoring/distances.py", r"\n\n\n", "\n\n\nMORE = 1\n", set()),
        ("approaches/registry.py", r"\n\n\n?", "\n\nMORE = 1\n", set()),
        ("results.py", r"\n\n\n", "\n\n\nMORE = 1\n", set()),
        ("report/tables/summary.py", r"\n\n\n", "\n\n\nMORE = 1\n", set()),
    ],
)
def test_a_change_of_code_fits_anew_what_reaches_it_and_nothing_else(plan, edited, module, old, new, changes):
    before = code_of_fits(plan)
    edited(module, old, new)
    after = code_of_fits(plan)
    assert {name for name in before if before[name] != after[name]} == changes


def test_approaches_reach_different_code():
    reached = {
        each: {name.removeprefix("lungseg.") for name in hashing.find_reached_modules(each)}
        for each in (MeanMask, Vgg19Pixels, Vgg19Context, DeepLabV3PlusResNet50)
    }
    assert "learning.trees.evaluator" in reached[Vgg19Pixels] & reached[Vgg19Context]
    assert "learning.networks.training" in reached[DeepLabV3PlusResNet50]
    for each, foreign in (
        (MeanMask, ("learning.trees", "learning.networks", "learning.vgg19")),
        (Vgg19Pixels, ("learning.networks", "approaches.vgg19_context")),
        (DeepLabV3PlusResNet50, ("learning.trees", "learning.regressors", "learning.vgg19")),
    ):
        assert not [name for name in reached[each] if name.startswith(foreign)]
    for each in reached.values():
        assert not [
            name for name in each if name.startswith(("harness", "report", "scoring", "timing", "spec"))
        ]


def test_the_key_of_scores_takes_in_all_code_that_makes_them():
    reached = hashing.find_reached_modules(keys.SCORE_CODE)
    for name in ("metrics", "overlap", "distances", "lungs", "calibration"):
        assert f"lungseg.scoring.{name}" in reached
    foreign = ("scoring.statistics", "learning.networks", "learning.trees", "spec", "harness.plan", "report")
    assert not [name for name in reached if name.removeprefix("lungseg.").startswith(foreign)]


def test_two_classes_of_one_module_and_their_settings_have_different_keys(tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    keys_of = [
        make_plan(read_spec(spec, [f"approach.mean-mask.use={use}"])).trials[0].keys.fit
        for use in ("mean-mask", "threshold")
    ]
    assert keys_of[0] != keys_of[1]


def test_a_changed_metric_scores_again_and_fits_nothing(spec_file, tmp_path, monkeypatch, edited):
    out = tmp_path / "out"
    spec = read_spec(spec_file, NO_TIMING)
    benchmark(spec, out)
    before = (out / "scores.csv").read_bytes()
    (out / "scores.csv").unlink()
    scored = {trial.label: trial.keys for trial in make_plan(spec).trials}
    edited("scoring/distances.py", r"\n\n\n", "\n\n\nMORE = 1\n")
    for trial in make_plan(spec).trials:
        assert trial.keys.fit == scored[trial.label].fit
        assert trial.keys.score != scored[trial.label].score
    monkeypatch.setattr(
        "lungseg.harness.evaluate.fit_trial", lambda *_: pytest.fail("fitted what was fitted already")
    )
    benchmark(spec, out)
    assert (out / "scores.csv").read_bytes() == before


def test_whether_predictions_are_compiled_changes_no_fit(spec_file, monkeypatch):
    monkeypatch.setattr("lungseg.system.usable_runtime.why_not_compiled", lambda device: None)
    plain, compiled = (
        make_plan(read_spec(spec_file, [f"runtime.compiled={value}"])).trials for value in ("false", "true")
    )
    assert [trial.keys.fit for trial in plain] == [trial.keys.fit for trial in compiled]
    assert not {trial.keys.score for trial in plain} & {trial.keys.score for trial in compiled}


def test_a_class_that_settings_name_counts():
    assert list(keys._class_names({"a": ["theirs.module:Class", "text"], "b": "lightgbm"})) == [
        "theirs.module"
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"regressor": "ridge", "size": 16, "pixels_per_image": 256}, False),
        ({"regressor": "ridge", "size": 16, "pixels_per_image": 255}, True),
        ({"regressor": "lightgbm", "size": 16, "pixels_per_image": 256}, True),
        ({"regressor": "mlp", "size": 16, "pixels_per_image": 256}, True),
    ],
)
def test_only_ridge_on_every_pixel_has_nothing_random(settings, expected):
    assert Vgg19Pixels.depends_on_seed(Vgg19PixelsSettings(**settings)) is expected
