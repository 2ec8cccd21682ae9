import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50, DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, NetworkSettings
from lungseg.learning.networks.inference import Predictor, fold_norms
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system.runtime import Runtime, keep_float32_precision


def lived_in(network: nn.Module) -> nn.Module:
    """Batch norms with statistics and scales of their own, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in (
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.running_mean, -0.5),
                (module.bias.data, -0.5),
            ):
                values.copy_(torch.rand(values.shape, generator=generator) + low)
    return network.eval()


NETWORKS = ({"topology": "seed"}, {"topology": "seed", "separable": True}, {"topology": "smp"})


@pytest.fixture(params=NETWORKS, ids=str)
def network(request, short_backbone) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(DeepLabV3Plus(NetworkSettings(**request.param)))


@torch.inference_mode()
def test_folding_leaves_no_norm_and_the_same_logits(network):
    images = torch.rand(2, 1, 48, 48)
    expected = network(images)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    scale = expected.std()
    torch.testing.assert_close(found(images) / scale, expected / scale, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_that_reads_something_else_is_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    assert isinstance(fold_norms(network)[2], nn.BatchNorm2d)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))

    def forward(self, images):
        return self.layers(images)


def test_a_compiler_that_fails_costs_a_warning(runtime, monkeypatch):
    def broken(network):
        def call(images):
            raise RuntimeError("no compiler here\nand a page of reasons")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(), replace(runtime, compiled=True))
    images = torch.rand(1, 1, 8, 8)
    with pytest.warns(UserWarning, match=r"failed \(no compiler here\): the network runs without it"):
        first = predictor.predict_logits(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(predictor.predict_logits(images), first)  # it is not tried again
    assert predictor.compile_seconds is None
    torch.testing.assert_close(first, network(images), atol=1e-5, rtol=0)


def test_the_time_to_compile_is_kept_apart(runtime, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    predictor = Predictor(lived_in(Small()), TrainingSettings(), replace(runtime, compiled=True))
    predictor.predict_logits(torch.rand(1, 1, 8, 8))
    assert predictor.compile_seconds > 0


def test_a_shape_that_can_not_be_compiled_costs_a_warning_too(runtime, monkeypatch):
    def only_of_one(network):
        def call(images):
            if len(images) > 1:
                raise RuntimeError("no code for this shape")
            return network(images)

        return call

    monkeypatch.setattr(torch, "compile", only_of_one)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(), replace(runtime, compiled=True))
    predictor.predict_logits(torch.rand(1, 1, 8, 8))
    assert predictor.not_compiled is None
    images = torch.rand(2, 1, 8, 8)
    with pytest.warns(UserWarning, match="no code for this shape"):
        found = predictor.predict_logits(images)
    assert predictor.not_compiled == "no code for this shape"
    torch.testing.assert_close(found, network(images), atol=1e-5, rtol=0)


class Deceiving(nn.Module):
    """By their names the norm follows the convolution; it doesn't."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)

    def forward(self, images):
        return self.conv1(self.bn1(images).relu())


def test_a_network_that_folding_would_change_is_left_as_it_is(runtime):
    network = lived_in(Deceiving())
    network.bn1.running_mean.fill_(0.4)
    settings = TrainingSettings(size=32)
    with pytest.warns(UserWarning, match="can't be folded"):
        predictor = Predictor(network, settings, runtime)
    assert not predictor.folded
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(predictor.predict_logits(images), network(images), atol=1e-6, rtol=0)


def test_bfloat16_predicts_what_float32_does(runtime, short_backbone):
    torch.manual_seed(0)  # how far single logits go apart depends on the weights
    network = lived_in(DeepLabV3Plus(NetworkSettings()))
    settings = TrainingSettings(size=64)
    images = torch.rand(2, 1, 64, 64)
    wide, narrow = (
        Predictor(network, settings, each).predict_logits(images)
        for each in (runtime, replace(runtime, precision="bfloat16", channels_last=True))
    )
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow / wide.std(), wide / wide.std(), atol=0.2, rtol=0)


def test_while_operations_are_counted_nothing_compiled_is_called(runtime, monkeypatch):
    def compiler(network):
        return lambda images: torch.zeros_like(images)

    monkeypatch.setattr(torch, "compile", compiler)
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(size=32), replace(runtime, compiled=True))
    images = torch.rand(1, 1, 8, 8)
    assert predictor.predict_logits(images).abs().max() == 0
    torch.testing.assert_close(
        predictor.predict_logits(images, counted=True), network(images), atol=1e-5, rtol=0
    )


class Recorder:
    """A stand-in for CUDA graphs on a machine without: a replay calls again, and shapes are kept."""

    def __init__(self, monkeypatch, error=None):
        self.shapes, self.pools, self.replays = [], [], 0

        def record(call, pool):
            if error is not None:
                raise error
            result = call()
            self.shapes.append(tuple(result.shape))
            self.pools.append(pool)

            def replay():
                self.replays += 1
                result.copy_(call())

            return result, replay

        monkeypatch.setattr("lungseg.learning.cuda_graphs.record_graph", record)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))


GPU = Runtime(torch.device("cuda"))  # the tensors of these tests stay on the CPU


@torch.inference_mode()
def test_a_shape_is_recorded_at_its_second_batch_in_memory_that_all_share(monkeypatch):
    recorder, network = Recorder(monkeypatch), lived_in(Small())
    predictor = Predictor(network, TrainingSettings(size=32), GPU)
    assert (predictor.graph, predictor.folded) == ("none", True)
    kept, how = [], []
    for count in (3, 3, 1, 3, 1):
        images = torch.rand(count, 1, 8, 8)
        kept.append((predictor.predict_logits(images), network(images)))
        how.append(predictor.graph)
    for found, expected in kept:  # a later replay hasn't changed what an earlier one returned
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (recorder.shapes, recorder.replays) == ([(3, 1, 8, 8), (1, 1, 8, 8)], 3)
    assert set(recorder.pools) == {(0, 1)}
    assert how == ["none", "replayed", "none", "replayed", "replayed"]


def test_dropped_graphs_are_recorded_anew_in_another_pool(monkeypatch, runtime):
    recorder, handles = Recorder(monkeypatch), iter([(0, 1), (0, 2)])
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    approach = DeepLabV3PlusResNet50(DeepLabV3PlusSettings(size=32, weights="random"), runtime)
    approach.drop_graphs()  # nothing was predicted yet
    approach.network = lived_in(Small())
    approach._predictor = Predictor(approach.network, approach.settings, GPU)
    batch = torch.rand(1, 1, 8, 8)
    (stage,) = approach.stages()
    for _ in range(2):
        stage.run(batch)
    approach.drop_graphs()
    stage.run(batch)
    assert recorder.pools == [(0, 1), (0, 2)]


def test_full_memory_while_recording_is_an_error_and_no_slower_row(monkeypatch):
    Recorder(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    predictor = Predictor(lived_in(Small()), TrainingSettings(size=32), GPU)
    predictor.predict_logits(torch.rand(1, 1, 8, 8))
    with pytest.raises(torch.OutOfMemoryError):
        predictor.predict_logits(torch.rand(1, 1, 8, 8))
    assert predictor.graph == "none"


def test_a_network_that_can_not_be_recorded_says_so(monkeypatch):
    Recorder(monkeypatch, RuntimeError("operation not permitted when stream is capturing"))
    network = lived_in(Small())
    predictor = Predictor(network, TrainingSettings(size=32), GPU)
    images = torch.rand(2, 1, 8, 8)
    predictor.predict_logits(images)
    with pytest.warns(UserWarning, match=r"no CUDA graph \(operation not permitted"):
        found = predictor.predict_logits(images)
    torch.testing.assert_close(found, network(images), atol=1e-5, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict_logits(images)  # it is not tried again
    assert predictor.graph == "failed: operation not permitted when stream is capturing"


def test_folding_is_checked_in_full_float32_and_the_precision_is_put_back(runtime, monkeypatch):
    class Noting(Small):
        def forward(self, images):
            seen.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
            return super().forward(images)

    seen = []
    with keep_float32_precision():
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        predictor = Predictor(lived_in(Noting()), TrainingSettings(size=32), runtime)
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert seen == [("ieee", "ieee")] * 2
    assert predictor.folded


def test_an_approach_says_how_its_prediction_ran(runtime):
    approach = DeepLabV3PlusResNet50(DeepLabV3PlusSettings(size=32, weights="random"), runtime)
    assert approach.execution_facts() == {}
    approach._use_network(lived_in(Small()))
    approach.stages()
    assert approach.execution_facts() == {"graph": "none", "folded": "yes"}
