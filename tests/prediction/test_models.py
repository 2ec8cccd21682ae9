"""A model is loaded as it was stored, or refused with one sentence; a pickle is never opened."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

import lungseg
from lungseg.data.files.images import read_image
from lungseg.prediction.models import find_row, load_model, load_models
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from lungseg.system.stored import write_record


def stored_map(results, row, name):
    return np.asarray(Image.open(results / "predictions/maps" / row / "f0-s0" / f"{name}.png")) / 255


def test_a_row_of_results_and_its_export_predict_what_the_benchmark_stored(finished_once, exported_once):
    image = sorted((finished_once / "predictions/images").glob("*.png"))[0]
    stored = stored_map(finished_once, "pixels", image.stem)
    first, second = load_models([(finished_once, "pixels"), (exported_once / "pixels", None)], "cpu")
    # The stored picture has 8 bits, and so has the stored map.
    assert np.abs(first.predict(read_image(image)) - stored).max() < 0.02
    np.testing.assert_array_equal(first.predict(read_image(image)), second.predict(read_image(image)))
    assert first.sha256 == second.sha256
    assert (first.name, second.name) == ("pixels", "pixels-2")


def test_three_lines_of_python(exported_once):
    model = lungseg.load(exported_once / "pixels")
    image = np.linspace(0, 1, 40 * 30).reshape(40, 30)
    probability = model.predict(image)
    assert (probability.shape, probability.dtype) == ((40, 30), np.float32)
    np.testing.assert_array_equal(model.segment(image), probability >= 0.5)


def test_integers_are_scaled_by_their_type(exported_once):
    model = load_model(exported_once / "pixels", device="cpu")
    eight = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    np.testing.assert_array_equal(model.predict(eight), model.predict(eight / np.float32(255)))
    sixteen = eight.astype(np.uint16) * 257
    np.testing.assert_allclose(model.predict(sixteen), model.predict(eight), atol=1e-6)
    twelve = (eight.astype(np.uint32) * 4095 // 255).astype(
        np.uint16
    )  # as a detector's 12 bits, which `predict` reads so too
    np.testing.assert_allclose(model.predict(twelve), model.predict(twelve / np.float32(4095)), atol=1e-6)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3)), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.full((4, 4), 2.0), r"in \[0, 1\]"),
        (np.full((4, 4), np.nan), "finite"),
        (np.zeros((4, 4), int), "unsigned"),
        (np.zeros((4, 4), bool), "unsigned"),
    ],
)
def test_arrays_that_are_no_image(exported_once, image, words):
    with pytest.raises(ValueError, match=words):
        load_model(exported_once / "mean-mask", device="cpu").predict(image)


def test_a_changed_weight_is_found(exported_once, tmp_path):
    folder = shutil.copytree(exported_once / "pixels", tmp_path / "model")
    weights = folder / "ridge.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"ridge\.safetensors has another content"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"ridge\.safetensors is missing"):
        load_model(folder)


def test_a_changed_card_of_facts_and_another_version_are_refused(exported_once, tmp_path):
    folder = shutil.copytree(exported_once / "pixels", tmp_path / "model")
    facts = read_json(folder / "model.json")
    (folder / "model.json").write_text(json.dumps(facts | {"threshold": 0.1}))
    with pytest.raises(InputError, match="was changed after it was written"):
        load_model(folder)
    del facts["sha256"]
    for change, words in (
        ({"format": 99}, "is of format 99"),
        ({"name": "../../elsewhere"}, "isn't one of lungseg's"),
        ({"use": "os:System"}, "isn't one of lungseg's"),
    ):
        write_record(folder / "model.json", facts | change)
        with pytest.raises(InputError, match=words):
            load_model(folder)


def test_a_pickle_is_never_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(InputError, match="a model is a folder"):
        load_model(path)
    assert not (tmp_path / "harmed").exists()


def test_places_without_a_model(finished_once, exported_once, tmp_path, monkeypatch):
    for place, row, words in (
        (tmp_path / "gone", None, "there is no model"),
        (tmp_path, None, "holds no model"),
        (finished_once, None, "several rows: choose one with --approach, of mean-mask, pixels"),
        (finished_once, "pixel", "did you mean 'pixels'"),
        (exported_once / "pixels", "pixels", "leave it out"),
    ):
        with pytest.raises(InputError, match=words):
            load_model(place, row)
    monkeypatch.setattr("lungseg.prediction.models.STARTER", tmp_path / "starter")
    with pytest.raises(InputError, match="no starter model"):
        load_model()


def test_results_without_models_say_so(finished):
    shutil.rmtree(finished / "models")
    with pytest.raises(InputError, match="a published result has no models"):
        find_row(finished, "pixels")


def test_facts_say_where_a_model_comes_from(finished_once):
    _, facts = find_row(finished_once, "pixels")
    run = read_json(finished_once / "run.json")
    assert facts["trained_on"]["train"] == run["splits"][0]["train"]
    assert facts["trained_on"]["sha256"] == run["data"]["sha256"]
    assert (facts["trained_on"]["seed"], facts["trained_on"]["folds"]) == (0, 1)
    assert facts["threshold"] == 0.5
