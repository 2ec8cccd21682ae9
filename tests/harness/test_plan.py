"""What a plan holds, and what it refuses before anything is computed."""

import pytest
import torch

from lungseg.harness.announce import list_hints
from lungseg.harness.plan import make_plan, require_fits
from lungseg.harness.record import label_rows
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import HEAD, PIXELS, SPEC


def test_one_approach_can_be_trained_fewer_times(spec_file):
    changes = ["seeds=[3, 4]", "approach.pixels.trainings=1"]
    fewer = make_plan(read_spec(spec_file, changes)).trials
    assert [trial.seed for trial in fewer if trial.entry.name == "pixels"] == [3]
    everyone = make_plan(read_spec(spec_file, changes[:1])).trials
    assert [trial.seed for trial in everyone if trial.entry.name == "pixels"] == [3, 4]
    assert {trial.keys.score for trial in fewer} < {
        trial.keys.score for trial in everyone
    }  # what is stored is used again
    with pytest.raises(InputError, match="trainings"):
        read_spec(spec_file, ["approach.pixels.trainings=0"])


def test_training_on_one_dataset_and_testing_on_another(spec_file, tmp_path):
    text = SPEC + '[training_data]\ndataset = "phantom"\ncount = 20\nsize = 64\nseed = 5\n'
    spec_file.write_text(text)
    plan = make_plan(read_spec(spec_file))
    trial = plan.trials[0]
    assert (len(trial.fold.train), len(trial.fold.validation)) == (18, 2)
    assert {sample.image().shape for sample in trial.fold.train} == {(64, 64)}
    assert {sample.image().shape for sample in trial.fold.evaluated} == {(48, 48)}
    held = make_plan(read_spec(spec_file, ["evaluate_on=validation"])).trials[0]
    assert not {s.id for s in held.fold.evaluated} & {s.id for s in trial.fold.evaluated}


def test_few_validation_images_are_noted_with_what_helps(spec_file):
    def notes(*changes):
        return make_plan(read_spec(spec_file, changes)).notes

    (single,) = notes()
    assert single.startswith("only 1 validation image: what is chosen by so few")
    assert single.endswith('Use more data, or split = "kfold", which averages over folds')
    (folds,) = notes("data.split=kfold", "data.folds=3")
    assert folds.endswith("Use more data, or a larger validation_share")
    other = {"dataset": "phantom", "count": 20, "size": 48, "seed": 5}
    (trained,) = notes(*(f"training_data.{key}={value}" for key, value in other.items()))
    assert trained.startswith("only 2 validation images")
    assert trained.endswith("Use more data, or a larger validation_share")
    assert notes("data.count=24", "data.fractions=[0.4, 0.42, 0.18]") == []  # ten


def test_a_split_that_leaves_a_side_empty(spec_file):
    with pytest.raises(InputError, match=r"leaves the .* side empty"):
        make_plan(read_spec(spec_file, ["data.count=2"]))


def test_cuda_without_cuda(spec_file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        make_plan(read_spec(spec_file), "cuda")


def test_an_unknown_key_of_dataset_or_split(spec_file):
    with pytest.raises(InputError, match="unknown key 'colour'"):
        make_plan(read_spec(spec_file, ["data.colour=3"]))
    with pytest.raises(InputError, match="folds"):
        make_plan(read_spec(spec_file, ["data.folds=1"]))


def test_a_network_with_the_recipe_for_a_gpu_on_a_cpu_is_told_before_it_trains(spec_file):
    entry = '[[approach]]\nuse = "deeplabv3plus-resnet50"\nname = "net"\nweights = "random"\n'
    for keys, told in (("", True), ('recipe = "cpu"\n', False), ("size = 32\n", False)):
        spec_file.write_text(SPEC.replace("[timing]", f"{entry}{keys}[timing]"))
        said = list_hints(make_plan(read_spec(spec_file)))
        assert [hint.startswith("net: its recipe is one for a GPU") for hint in said] == [True] * told


def test_what_a_network_can_not_do_with_several_processes_is_said_before_anything_is_fitted(
    spec_file, monkeypatch
):
    entry = '[[approach]]\nuse = "deeplabv3plus-resnet50"\nname = "net"\nweights = "random"\nrecipe = "cpu"\n'
    spec_file.write_text(SPEC.replace("[timing]", f"{entry}[timing]"))
    require_fits(make_plan(read_spec(spec_file)))
    monkeypatch.setattr("lungseg.system.distributed.world_size", lambda: 3)
    for changes, said in (
        ([], "approach 'net': several processes can't share a batch norm on CPUs: set freeze_norms = true"),
        (
            ["approach.net.batch_size=2"],
            "approach 'net': batch_size = 2 makes batches of 2 images, fewer than",
        ),
    ):
        with pytest.raises(InputError, match=said):
            require_fits(make_plan(read_spec(spec_file, changes)))


def test_rows_have_plain_labels_unless_these_would_be_alike(spec_file):
    head, pixels = (text.replace('label = "', '# "') for text in (HEAD, PIXELS))
    again = pixels.replace('name = "pixels"', 'name = "again"').replace("ridge", "lightgbm")
    own = pixels.replace('name = "pixels"', 'name = "own"\nlabel = "My pixels"')
    spec_file.write_text(head + pixels + again + own)
    assert label_rows(make_plan(read_spec(spec_file)).entries) == {
        "mean-mask": "Mean of the training masks",
        "pixels": "A · Pixels, ridge, 16 px",
        "again": "A · Pixels, LightGBM, 16 px",
        "own": "My pixels",
    }
    spec_file.write_text(head + pixels + pixels.replace('name = "pixels"', 'name = "twin"'))
    labels = label_rows(make_plan(read_spec(spec_file)).entries)
    assert (labels["pixels"], labels["twin"]) == ("pixels", "twin")
    grouped = read_spec(spec_file, ["approach.pixels.group=parts"])
    assert label_rows(make_plan(grouped).entries)["pixels"] == "pixels"
