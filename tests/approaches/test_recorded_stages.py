"""Which stages run from a CUDA graph and when. The graph is a fake one, which computes anew on the CPU."""

import weakref
from dataclasses import replace

import pytest
import torch

from lungseg.approaches.recorded_stages import RecordedStages
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels, Vgg19PixelsSettings
from lungseg.learning import cuda_graphs
from lungseg.learning.cuda_graphs import MOST_SHAPES

CUDA = torch.device("cuda")


@pytest.fixture
def graphs(monkeypatch) -> list:
    """What each graph has recorded; a replay writes its new result into the memory of the first."""
    made = []

    def record(call, pool):
        assert pool is None  # a stage's result stays until the next stage has read it
        result = call()
        made.append(result)

        def replay():
            made.append("replay")
            result.copy_(call())

        return result, replay

    monkeypatch.setattr(cuda_graphs, "record_graph", record)
    return made


def two_stages(stages: RecordedStages, batch: torch.Tensor) -> torch.Tensor:
    return stages.run("second", lambda v: v + 1, stages.run("first", lambda v: v * 2, batch), last=True)


def test_a_shape_is_recorded_at_its_second_batch_and_replayed_on_new_values(graphs, runtime):
    stages = RecordedStages(replace(runtime, device=CUDA))
    batches = [torch.rand(2, 3) for _ in range(4)]
    found = [two_stages(stages, batches[0])]
    assert (graphs, stages.describe()) == ([], "none")
    found += [two_stages(stages, batch) for batch in batches[1:]]
    assert stages.describe() == "replayed"
    assert len(graphs) == 2 + 6  # both stages' graphs, and three replays of each
    for batch, maps in zip(batches, found, strict=True):  # earlier maps are the caller's own
        assert torch.equal(maps, batch * 2 + 1)
    assert torch.equal(two_stages(stages, torch.ones(5, 3)), torch.full((5, 3), 3.0))  # another shape
    assert stages.describe() == "none"


def test_dropped_graphs_give_back_their_memory_and_are_recorded_anew_at_once(graphs, runtime):
    stages, batch = RecordedStages(replace(runtime, device=CUDA)), torch.ones(2, 3)
    for _ in range(2):
        two_stages(stages, batch)
    kept = [weakref.ref(each) for each in graphs if isinstance(each, torch.Tensor)]
    graphs.clear()
    assert all(each() is not None for each in kept)
    stages.drop()
    assert [each() for each in kept] == [None, None]
    assert two_stages(stages, batch).tolist() == [[3.0] * 3] * 2
    assert len(graphs) == 4
    assert stages.describe() == "replayed"


def test_graphs_are_kept_of_the_shapes_that_were_used_last(graphs, runtime):
    stages = RecordedStages(replace(runtime, device=CUDA))

    def is_recorded(count: int) -> bool:
        graphs.clear()
        assert two_stages(stages, torch.ones(count, 3)).tolist() == [[3.0] * 3] * count
        return graphs != ["replay", "replay"]

    for count in range(1, MOST_SHAPES + 1):
        two_stages(stages, torch.ones(count, 3))
        assert is_recorded(count)
    assert not is_recorded(1)  # now 2 is the one not used for longest
    two_stages(stages, torch.ones(MOST_SHAPES + 1, 3))
    assert is_recorded(MOST_SHAPES + 1)
    assert [is_recorded(count) for count in (1, 3, 2)] == [False, False, True]
    assert len(stages._shapes) == MOST_SHAPES


@pytest.mark.parametrize("change", [{}, {"device": CUDA, "tuned": False}], ids=["cpu", "untuned"])
def test_without_a_gpu_or_tuning_nothing_is_recorded(change, graphs, runtime):
    stages = RecordedStages(replace(runtime, **change))
    for _ in range(3):
        two_stages(stages, torch.ones(1, 2))
    assert (graphs, stages.describe()) == ([], "none")


def test_large_batches_are_not_recorded(graphs, runtime):
    stages = RecordedStages(replace(runtime, device=CUDA))
    for _ in range(3):
        two_stages(stages, torch.ones(9, 2))
    assert (graphs, stages.describe()) == ([], "none")


def test_stages_that_can_not_be_recorded_run_without_and_are_named_as_failed(runtime, monkeypatch):
    def fails(call, pool):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "record_graph", fails)
    stages = RecordedStages(replace(runtime, device=CUDA))
    two_stages(stages, torch.ones(1, 2))
    with pytest.warns(UserWarning, match=r"no CUDA graph \(operation not permitted"):
        assert two_stages(stages, torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
    assert two_stages(stages, torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
    assert stages.describe() == "failed: operation not permitted when stream is capturing"


def test_a_full_memory_is_not_taken_for_a_stage_that_can_not_be_recorded(runtime, monkeypatch):
    def fails(call, pool):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(cuda_graphs, "record_graph", fails)
    stages = RecordedStages(replace(runtime, device=CUDA))
    two_stages(stages, torch.ones(1, 2))
    with pytest.raises(torch.OutOfMemoryError):
        two_stages(stages, torch.ones(1, 2))


@pytest.mark.parametrize(("regressor", "stages"), [("mlp", 2), ("ridge", 1)])
def test_pixels_are_predicted_alike_from_graphs_of_what_stays_on_the_device(
    regressor, stages, graphs, discs, runtime, new_fit_context
):
    keys = {"weights": "random", "size": 24, "regressor": regressor, "mlp": {"epochs": 1, "hidden": 8}}
    approach = Vgg19Pixels(Vgg19PixelsSettings(**keys), runtime)
    approach.fit(discs(2), discs(2, seed=1), new_fit_context())
    images = [sample.image() for sample in discs(3, seed=2)]
    expected = approach.predict(images, 1)
    assert approach.execution_facts() == {"graph": "none", "folded": "no"}
    approach.recorded = RecordedStages(replace(runtime, device=CUDA))
    for found, plain in zip(approach.predict(images, 1), expected, strict=True):
        assert (found == plain).all()
    assert graphs.count("replay") == 2 * stages
    assert approach.execution_facts()["graph"] == ("replayed" if stages == 2 else "in part")
    approach.counted = True
    approach.predict(images, 1)
    assert graphs.count("replay") == 2 * stages
    assert approach.recorded._shapes
    approach.drop_graphs()
    assert not approach.recorded._shapes
