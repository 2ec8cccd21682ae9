"""The variant of timings that nobody has tuned: the network as it is, in torch's defaults."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system.runtime import Runtime

SETTINGS = TrainingSettings(size=32)
IMAGES = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))


class Operations(TorchDispatchMode):
    """Keeps the names of what is computed, and the types and layouts of what convolutions get."""

    def __init__(self):
        super().__init__()
        self.names, self.types, self.layouts = [], set(), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        if "conv" in self.names[-1]:
            self.types.add(args[0].dtype)
            self.layouts.add(args[0].is_contiguous())
        return function(*args, **(kwargs or {}))


@pytest.fixture
def network():
    torch.manual_seed(0)
    found = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    found[1].running_var.fill_(0.25)
    return found.eval()


def run(network, runtime):
    predictor = Predictor(network, SETTINGS, runtime)
    with Operations() as operations:
        logits = predictor.predict_logits(IMAGES)
    return logits, operations


def test_it_folds_no_norm_and_computes_in_contiguous_float32(network, runtime):
    untuned, operations = run(network, replace(runtime, tuned=False))
    assert sum("batch_norm" in name for name in operations.names) == 1
    assert (operations.types, operations.layouts) == ({torch.float32}, {True})
    assert torch.equal(untuned, network(IMAGES))
    tuned, operations = run(network, runtime)
    assert not any("batch_norm" in name for name in operations.names)
    torch.testing.assert_close(tuned, untuned, atol=1e-5, rtol=0)


def test_it_records_no_graph_on_a_gpu(network, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a graph is recorded")

    for name in ("CUDAGraph", "Stream", "graph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    untuned, tuned = (
        Predictor(network, SETTINGS, Runtime(torch.device("cuda"), tuned=each)) for each in (False, True)
    )
    for _ in range(2):  # tensors stay on the CPU
        assert torch.equal(untuned.predict_logits(IMAGES), network(IMAGES))
    # Only what is left out differs: the tuned program would have recorded one at its second batch.
    tuned.predict_logits(IMAGES)
    with pytest.raises(AssertionError, match="a graph is recorded"):
        tuned.predict_logits(IMAGES)


def test_it_can_be_compiled_which_is_another_row(network, runtime, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda given: seen.append(given) or given)
    run(network, replace(runtime, tuned=False, compiled=True))
    assert seen == [network]
