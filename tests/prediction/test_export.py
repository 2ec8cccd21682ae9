"""A row becomes a folder that says what it is, and loads without its benchmark."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lungseg.learning.weights import PACKAGED
from lungseg.prediction.export import export_model, write_card
from lungseg.prediction.models import find_row, load_model
from lungseg.results import read_table
from lungseg.system.errors import InputError
from tests.refusals import assert_refused


def test_the_folder_has_all_that_the_row_has(exported_once, finished_once):
    folder = exported_once / "pixels"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "ridge.safetensors"]
    model = load_model(folder, device="cpu")
    statistics = read_table(finished_once, "statistics")
    row = statistics[
        (statistics["approach"] == "pixels")
        & (statistics["metric"] == "dice")
        & (statistics["kind"] == "mean")
    ].iloc[0]
    score = next(score for score in model.facts["scores"] if score["metric"] == "dice")
    assert (score["value"], score["n"]) == (pytest.approx(row["value"], abs=1e-6), row["n"])


def test_the_card_says_what_a_reader_must_know(exported_once):
    card = (exported_once / "pixels" / "README.md").read_text()
    model = load_model(exported_once / "pixels", device="cpu")
    for words in (
        "For research, not for diagnosis",
        f"trained on | {model.facts['trained_on']['train']} images of `phantom`",
        model.sha256,
        "| phantom | Dice | ",
        "No patient's image was used",
        "lungseg predict THIS_FOLDER",
    ):
        assert words in card
    facts = dict(model.facts)
    facts |= {"trained_on": facts["trained_on"] | {"real": True, "dataset": "cxr704"}, "scores": []}
    facts["weights"] = {"network": "vgg19", "kind": "imagenet", "file": "a", "sha256": "b"}
    card = write_card(facts)
    for words in ("The images of cxr704 have terms of their own", "Creative Commons", "None are stored"):
        assert words in card


def test_other_frozen_weights_travel_with_the_model(finished, exported_once, tmp_path, monkeypatch):
    """Features of another VGG19 than the one that comes with lungseg, which later isn't there any more."""
    weights = tmp_path / "weights"
    weights.mkdir()
    tensors = {name: value * 0.5 for name, value in load_file(PACKAGED["vgg19"]).items()}
    save_file(tensors, weights / "vgg19.safetensors")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(weights))
    from lungseg.learning.weights import describe_weights, find_weights
    from lungseg.results import finish_run, read_run

    described = describe_weights("vgg19", find_weights("vgg19", "auto"))
    run = read_run(finished)
    entry = next(entry for entry in run["approaches"] if entry["name"] == "pixels")
    entry["settings"]["weights"] = "auto"
    entry["weights"] = {"network": "vgg19", "kind": "imagenet", "file": "f", "sha256": described.sha256}
    finish_run(finished, run)
    export_model(finished, "pixels", tmp_path / "model")
    monkeypatch.delenv("LUNGSEG_WEIGHTS")
    assert (tmp_path / "model/vgg19.safetensors").exists()
    # A file of torchvision's is a pickle: its tensors travel as safetensors.
    (weights / "vgg19.safetensors").unlink()
    torch.save(tensors, weights / "vgg19.pth")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(weights))
    entry["weights"]["sha256"] = find_weights("vgg19", "auto").sha256
    finish_run(finished, run)
    export_model(finished, "pixels", tmp_path / "of-pth")
    monkeypatch.delenv("LUNGSEG_WEIGHTS")
    assert not list((tmp_path / "of-pth").glob("*.pth"))
    features = load_model(tmp_path / "of-pth", device="cpu").approach.network
    assert features.second.equal(tensors["features.2.weight"].float())
    features = load_model(tmp_path / "model", device="cpu").approach.network
    assert features.second.equal(tensors["features.2.weight"].float())
    (tmp_path / "model/vgg19.safetensors").unlink()
    with pytest.raises(InputError, match="aren't on this machine: set LUNGSEG_WEIGHTS"):
        load_model(tmp_path / "model", device="cpu")


def test_what_cannot_be_exported(lungseg, finished_once, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    results = str(finished_once)
    assert_refused(lungseg("export", results, "pixels", "--out", str(full)), "is not empty")
    assert_refused(
        lungseg("export", results, "pixles", "--out", str(tmp_path / "a")), "did you mean 'pixels'"
    )
    assert_refused(
        lungseg("export", results, "mean-mask", "--out", str(tmp_path / "b"), "--onnx"), "no exact ONNX form"
    )
    assert not (tmp_path / "b").exists()
    done = lungseg("export", results, "mean-mask", "--out", str(tmp_path / "c"))
    assert done.returncode == 0, done.stderr


def test_a_damaged_model_is_not_exported(finished, tmp_path):
    weights = next((finished / "models/pixels/f0-s0").iterdir())
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="run the benchmark again"):
        export_model(finished, "pixels", tmp_path / "model")
    shutil.rmtree(finished / "trials/mean-mask")
    with pytest.raises(InputError, match="run the benchmark first"):
        find_row(finished, "mean-mask")
