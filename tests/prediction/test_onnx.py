"""A model as ONNX gives the same maps in ONNX Runtime, or isn't written."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from benchmarks.studies.deeplab import onnx_agreement
from lungseg.approaches.registry import APPROACHES
from lungseg.learning.images.resize import to_batch
from lungseg.learning.regressors.mlp import Mlp, MlpSettings
from lungseg.prediction import onnx as module
from lungseg.prediction.export import export_model
from lungseg.prediction.models import load_model
from lungseg.system.errors import InputError
from tests.learning.networks.small_network import SmallApproach


@pytest.fixture(scope="module")
def exported(finished_once, tmp_path_factory):
    """The folder of a ridge regression on VGG19 features with its ONNX file."""
    folder = tmp_path_factory.mktemp("onnx") / "model"
    said = export_model(finished_once, "pixels", folder, onnx=True)
    assert "checked with ONNX Runtime" in said[-1]
    return folder


def test_onnx_runtime_gives_the_maps_of_the_model(exported):
    model = load_model(exported, device="cpu")
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["lungseg.sha256"] == model.sha256
    size = int(metadata["lungseg.size"])
    rng = np.random.default_rng(1)
    for count in (1, 2, 5):  # the number of images is free
        images = [rng.random((40, 56), np.float32) for _ in range(count)]
        (maps,) = session.run(["maps"], {"images": to_batch(images, size).numpy()})
        found = model.approach.finish(torch.from_numpy(maps), [image.shape for image in images])
        np.testing.assert_allclose(found, model.predict_all(images), atol=1e-5)


def test_the_study_finds_no_difference(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(onnx_agreement.PHANTOMS, "count", 2)
    assert onnx_agreement.main([str(exported), "--out", str(tmp_path)]) == 0
    row = pd.read_csv(tmp_path / "table.csv").iloc[0]
    assert (row["images"], row["pixels"]) == (2, 2 * 256**2)
    assert row["largest difference of a probability"] < 1e-5


def test_a_form_that_differs_is_not_written(exported, finished_once, tmp_path, monkeypatch):
    converted = (exported / "model.onnx").read_bytes()  # seconds, if it were done again
    monkeypatch.setattr(module, "_convert", lambda *_: converted)
    monkeypatch.setattr(module, "_compare", lambda *_: 0.01)
    with pytest.raises(InputError, match=r"differs from it by 0\.01 in a probability"):
        export_model(finished_once, "pixels", tmp_path / "model", onnx=True)
    assert not (tmp_path / "model").exists()


def test_a_pixel_on_the_other_side_of_the_threshold_counts_as_a_difference():
    class Approach:
        def prepare(self, images):
            return torch.zeros(1, 1, 2, 2)

        def predict(self, images, count):
            return [np.full((2, 2), 0.6, np.float32)]

        def finish(self, maps, sizes):
            return list(maps[:, 0].numpy())

    class Session:
        def __init__(self, value):
            self.value = np.full((1, 1, 2, 2), value, np.float32)

        def run(self, *_):
            return (self.value,)

    images = [np.zeros((2, 2), np.float32)]
    assert module._compare(Session(0.59995), Approach(), images, 0.5) == pytest.approx(5e-5, abs=1e-6)
    assert module._compare(Session(0.4), Approach(), images, 0.5) == np.inf


def test_an_mlp_as_a_module_predicts_the_same(runtime, new_fit_context):
    from lungseg.learning.regressors.base import PixelTable

    rng = np.random.default_rng(0)
    table = PixelTable(rng.random((200, 5), np.float32), rng.random(200).astype(np.float32))
    mlp = Mlp(MlpSettings(epochs=1, hidden=8), runtime)
    mlp.fit(table, table, new_fit_context())
    found = mlp.to_module().eval()(torch.from_numpy(table.features)).detach().numpy()
    np.testing.assert_allclose(found, mlp.predict(table.features), atol=1e-6)


def test_trees_have_no_exact_form(runtime):
    from lungseg.system.plugins import load_class

    approach_class = load_class("vgg19-pixels", APPROACHES, object, "approach")
    approach = approach_class(approach_class.Settings(weights="random", regressor="lightgbm"), runtime)
    assert approach.to_module() is None


def test_a_network_gives_the_same_maps_in_onnx_runtime(settings, runtime):
    approach = SmallApproach(settings(), runtime)
    approach._use_network(approach.make_network(0))
    images = [np.random.default_rng(seed).random((40, 56), np.float32) for seed in range(4)]
    session = onnxruntime.InferenceSession(
        module._convert(approach.to_module().eval(), approach.prepare(images))
    )
    for count in (1, 4):
        assert module._compare(session, approach, images[:count], 0.5) < 1e-5


def test_a_network_that_flips_is_one_module(settings, runtime):
    approach = SmallApproach(settings(test_time="flip"), runtime)
    approach._use_network(approach.make_network(0))
    batch = torch.rand(2, 1, 48, 48)
    whole = approach.to_module().eval()(batch).detach()
    stages = batch
    for stage in approach.stages():
        stages = stage.run(stages)
    torch.testing.assert_close(whole, stages, atol=1e-5, rtol=0)
