"""What a GPU is asked for: how many operations a prediction has, and that no number comes from the host."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.approaches.recorded_stages import RecordedStages
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.cascade import CascadeStage
from lungseg.approaches.vgg19_context.image_planes import SharedPlanes
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape_prior import MASK_SIDE, SIDE, ShapePrior
from lungseg.learning import cuda_graphs

# Of the 686 of the first version that could be timed: convolutions and their ReLU alone are 57.
MOST_OPERATIONS = 310
NO_WORK = ("_unsafe_view", "transpose_", "squeeze_", "unsqueeze_", "detach_", "empty")


class Operations(TorchDispatchMode):
    """Counts operations that a device would be given, down to those that are not made of others."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        with self:
            parts = function.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        name = function.overloadpacket.__name__
        if not function.is_view and not name.startswith(NO_WORK):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


class Mean:
    """A stage's model: the mean of its columns."""

    on_device = can_be_recorded = True

    def predict_rows(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.mean(1)


@pytest.fixture(scope="module")
def make():
    """The approach with its default settings and constant fitted values, as on a GPU or as on a CPU."""

    def build(runtime, at_once: bool) -> Vgg19Context:
        approach = Vgg19Context(Vgg19ContextSettings(weights="random"), runtime)
        approach.image_planes = planes = approach._make_image_planes()
        generator = torch.Generator().manual_seed(0)
        planes.shape = ShapePrior(3)
        planes.shape.pictures = torch.randn(3, SIDE**2, generator=generator)
        planes.shape.coefficients = torch.rand(3, MASK_SIDE**2, generator=generator) / 4
        planes.shape.width = torch.tensor(4000.0)
        for value in planes.projection.buffers():
            value.copy_(torch.randn(value.shape, generator=generator) / 20)
        planes.at_once = at_once
        approach.cascade = [CascadeStage(grid, Mean()) for grid in approach.settings.stage_grids]
        return approach

    return build


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(1))


def predict(approach: Vgg19Context, batch: torch.Tensor) -> torch.Tensor:
    for stage in approach.stages():
        batch = stage.run(batch)
    return batch


def test_a_prediction_has_few_operations_and_takes_no_number_from_the_host(make, batch, runtime):
    approach = make(runtime, at_once=True)
    predict(approach, batch)  # matrices are made at the first call
    with Operations() as seen:
        predict(approach, batch)
    assert seen.counts.total() <= MOST_OPERATIONS
    assert not {"lift_fresh", "linspace", "arange", "scalar_tensor"} & set(seen.counts)
    assert seen.counts["_local_scalar_dense"] <= 1  # torch.quantile looks at its levels, on a CPU only


def test_planes_made_at_once_are_those_made_one_by_one(make, batch, runtime):
    with torch.inference_mode():
        expected, found = (make(runtime, at_once).image_planes(batch) for at_once in (False, True))
    for grid, planes in expected.planes.items():
        known = slice(0, expected.image_count)
        torch.testing.assert_close(found.planes[grid][:, known], planes[:, known], atol=1e-5, rtol=1e-5)
    assert torch.equal(found.prior, expected.prior)


def test_both_stages_replay_what_they_compute(make, batch, runtime, monkeypatch):
    replays = []

    def record(call, pool):
        result = call()

        def replay():
            replays.append(result)
            anew = call()
            if isinstance(result, SharedPlanes):
                for grid, planes in anew.planes.items():
                    result.planes[grid].copy_(planes)
                result.prior.copy_(anew.prior)
            else:
                result.copy_(anew)

        return result, replay

    monkeypatch.setattr(cuda_graphs, "record_graph", record)
    approach = make(runtime, at_once=True)
    batches = [batch, batch.flip(-1), batch**2]
    expected = [predict(approach, each) for each in batches]
    approach.recorded = RecordedStages(replace(runtime, device=torch.device("cuda")))
    found = [predict(approach, each) for each in batches]
    assert all(map(torch.equal, found, expected))
    assert [type(each) for each in replays] == [SharedPlanes, torch.Tensor] * 2
    assert approach.execution_facts() == {"graph": "replayed", "folded": "no"}
