"""A batch in parts whose gradients are summed up: what it computes, and when it is chosen."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks import training as module
from lungseg.learning.networks.step_probe import StepProbe, predict_memory
from lungseg.system.runtime import Runtime
from tests.learning.networks.small_network import ApproachWithoutDropout, SmallApproach
from tests.weights import same_weights

GIB = 2**30
CUDA = Runtime(torch.device("cuda"))
BATCH = {"count": 8, "batch_size": 8, "size": 32, "approach_class": ApproachWithoutDropout}


def nothing(*_) -> None:
    pass


def gradients(training) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in training.network.named_parameters()}


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("loss", ["both", "dice"])
def test_parts_have_the_gradient_of_the_whole_batch(parts, loss, network_training, noise_images):
    whole, split = (network_training(freeze_norms=True, loss=loss, **BATCH) for _ in range(2))
    split.accumulation_steps = parts
    expected, found = (each.run_epoch(noise_images(8, size=32), nothing) for each in (whole, split))
    assert found == pytest.approx(expected, abs=1e-6)
    for name, value in gradients(whole).items():
        assert value.abs().max() > 1e-5, name
        torch.testing.assert_close(gradients(split)[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_norms_see_each_part_by_itself(network_training, noise_images):
    whole, split = (network_training(augment=False, **BATCH) for _ in range(2))
    split.accumulation_steps = 2
    first = split.network.stem[0]
    data = noise_images(8, size=32)
    with torch.no_grad():
        (order,) = module.draw_batches(8, 8, 0, 0)
        maps = [first(data.read_batch(part.tolist())[0]) for part in order.split(4)]
        expected = torch.zeros(4)
        for each in maps:  # a norm's running mean, worked by hand
            expected = 0.9 * expected + 0.1 * each.mean(dim=(0, 2, 3))
    for training in (whole, split):
        training.run_epoch(data, nothing)
    norms = [
        next(m for m in each.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for each in (whole, split)
    ]
    assert [norm.num_batches_tracked.item() for norm in norms] == [1, 2]
    torch.testing.assert_close(norms[1].running_mean, expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(norms[0].running_mean, expected, atol=1e-5)


def fill_above(monkeypatch, most: int) -> list[int]:
    """Let the memory be full for parts of more than so many images; list the parts that were tried."""
    loss, tried = module.segmentation_loss, []

    def full(logits, *others):
        tried.append(len(logits))
        if len(logits) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(logits, *others)

    monkeypatch.setattr(module, "segmentation_loss", full)
    return tried


def test_a_full_memory_halves_the_parts_of_the_first_step_and_the_training_goes_on(
    network_training, noise_images, monkeypatch
):
    planned, halved = (network_training(**BATCH) for _ in range(2))
    planned.accumulation_steps = 4
    data = noise_images(8, size=32)
    expected = [planned.run_epoch(data, nothing) for _ in range(2)]
    tried = fill_above(monkeypatch, 2)
    with pytest.warns(UserWarning, match=r"the memory is full: gradients of [24] parts") as caught:
        found = [halved.run_epoch(data, nothing) for _ in range(2)]
    assert len(caught) == 2
    assert tried == [8, 4, *[2] * 4, *[2] * 4]
    assert found == expected
    assert same_weights(halved.network, planned.network)  # with the norms' statistics
    assert same_weights(halved.average.network, planned.average.network)


@pytest.mark.filterwarnings("ignore:the memory is full")
def test_a_size_is_tried_in_two_steps_and_a_memory_that_is_full_later_is_an_error(
    network_training, noise_images, monkeypatch
):
    training, data = network_training(**BATCH), noise_images(8, size=32)
    planned = network_training(**BATCH)
    for each in (training, planned):
        each.run_epoch(data, nothing)
    planned.accumulation_steps = 2
    expected = planned.run_epoch(data, nothing)
    tried = fill_above(monkeypatch, 4)
    assert training.run_epoch(data, nothing) == expected
    assert tried == [8, 4, 4]
    assert same_weights(training.network, planned.network)
    tried = fill_above(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        training.run_epoch(data, nothing)
    assert tried == [4]


@pytest.mark.filterwarnings("ignore:the memory is full")
@pytest.mark.parametrize(("frozen", "parts"), [(False, [8, 4, 2]), (True, [8, 4, 2, 1])])
def test_norms_that_are_not_frozen_see_two_images_or_the_memory_is_full(
    frozen, parts, network_training, noise_images, monkeypatch
):
    tried = fill_above(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        network_training(freeze_norms=frozen, **BATCH).run_epoch(noise_images(8, size=32), nothing)
    assert tried == parts


def test_seven_images_in_four_parts_are_three_parts_of_two_or_three(
    network_training, noise_images, monkeypatch, short_backbone
):
    values = {"approach_class": DeepLabV3PlusResNet50, "batch_size": 8, "size": 32}
    training = network_training(count=7, **values)
    training.accumulation_steps = 4
    tried = fill_above(monkeypatch, 7)
    training.run_epoch(noise_images(7, size=32), nothing)
    assert tried == [3, 2, 2]
    pooled = training.network.aspp.pooling[1]  # of one value an image, which one image alone has no norm of
    assert pooled.num_batches_tracked == 3


def test_a_training_that_may_not_split_says_that_the_memory_is_full(
    network_training, noise_images, monkeypatch
):
    tried = fill_above(monkeypatch, 4)
    training = network_training(may_split=False, **BATCH)
    with pytest.raises(torch.OutOfMemoryError):
        training.run_epoch(noise_images(8, size=32), nothing)
    assert (tried, training.accumulation_steps) == ([8], 1)


@pytest.mark.parametrize("optimiser", ["adamw", "adam"])
def test_moments_are_made_before_the_first_gradient_and_change_nothing(
    optimiser, network_training, noise_images, monkeypatch
):
    plain, queued = (network_training(optimiser=optimiser, **BATCH) for _ in range(2))
    queued._queued = True
    seen, compute = [], queued._compute_gradients

    def noting(batch):
        seen.append({len(own) for own in queued.optimiser.state_dict()["state"].values()})
        assert all(p.grad is None for p in queued.network.parameters())
        return compute(batch)

    monkeypatch.setattr(queued, "_compute_gradients", noting)
    for each in (plain, queued):
        each.run_epoch(noise_images(8, size=32), nothing)
    assert seen == [{3}]  # a number of steps and two moments of each parameter
    assert same_weights(queued.network, plain.network)
    one, two = (each.optimiser.state_dict()["state"] for each in (plain, queued))
    for key, own in one.items():
        for name, value in own.items():
            assert torch.equal(two[key][name], value), name
    assert len(one) == len(two)


def test_a_resumed_training_keeps_its_parts_and_loads_to_the_host(
    network_training, noise_images, tmp_path, monkeypatch
):
    training, path = network_training(**BATCH), tmp_path / "last.pt"
    training.accumulation_steps = 3
    training.run_epoch(noise_images(8, size=32), nothing)
    training.save(path)
    places, load = [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda *given, **keys: places.append(keys["map_location"]) or load(*given, **keys)
    )
    resumed = network_training(**BATCH)
    assert resumed.resume(path)
    assert places == ["cpu"]
    assert resumed.accumulation_steps == 3
    for each in (training, resumed):
        each.run_epoch(noise_images(8, size=32), nothing)
    assert same_weights(resumed.network, training.network)


@pytest.fixture
def card(monkeypatch):
    """A GPU with so much free memory; a step takes 1 GiB and half a GiB an image, if it fits."""

    def make(free: float, largest: int = 4) -> None:
        def measure(probe, count, device):
            return None if count > largest else int((1 + count / 2) * GIB)

        monkeypatch.setattr(StepProbe, "_measure_memory", measure)
        monkeypatch.setattr(torch.cuda, "empty_cache", nothing)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * GIB), 80 * GIB))

    return make


@pytest.mark.parametrize(
    ("free", "largest", "batch", "parts"),
    [
        (7.7, 4, 8, 1),  # 5 GiB and 15 % are 5.75; 25 % of the free memory are for images and masks
        (7.6, 4, 8, 2),
        (4.61, 4, 8, 2),  # four images need 3.45 GiB
        (4.59, 4, 8, 4),
        (2.0, 4, 8, 4),  # two need 2.3 GiB, and norms need two
        (0.5, 0, 8, 4),  # nothing fits, which the training will say
        (80, 2, 8, 4),  # four were tried and didn't fit
        (80, 4, 2, 1),
        (4.4, 4, 5, 2),  # parts of three images and of two
        (0.5, 0, 7, 3),
    ],
)
def test_the_fewest_parts_that_fit_are_chosen(free, largest, batch, parts, card, settings):
    card(free, largest)
    approach = SmallApproach(settings(batch_size=batch), CUDA)
    assert approach._make_probe().find_memory(batch).accumulation_steps == parts
    assert approach._find_accumulation_steps(100 * batch) == parts
    card(0.5, 0)
    frozen = SmallApproach(settings(batch_size=batch, freeze_norms=True), CUDA)
    assert frozen._make_probe().find_memory(batch).accumulation_steps == batch


def test_the_plan_says_that_a_batch_is_split_and_what_that_changes(card, settings):
    card(7.7)
    assert SmallApproach.hints(settings(batch_size=8), CUDA) == []
    card(4.8)
    (said,) = SmallApproach.hints(settings(batch_size=8), CUDA)
    assert said == (
        "a training step on 8 images needs 5.8 GiB, and 3.6 GiB of the GPU's memory can be had: gradients "
        "of 2 parts of a batch are added up, and batch norms that are not frozen see 4 images at a time"
    )
    card(0.5, 0)
    assert "needs more, and 0.4 GiB" in SmallApproach.hints(settings(batch_size=8), CUDA)[0]


def test_memory_that_torch_may_not_take_is_not_free(card, settings, monkeypatch):
    card(80)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.1)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    memory = SmallApproach(settings(), CUDA)._make_probe().find_memory(8)
    assert memory.free == pytest.approx(0.75 * (0.1 * 80 - 1) * GIB)


def test_an_estimate_says_nothing_of_a_full_memory(runtime, settings, monkeypatch, recwarn):
    tried = fill_above(monkeypatch, 2)
    assert SmallApproach(settings(), runtime).estimate(8, 2) > 0
    assert 4 in tried
    assert not [each for each in recwarn if "memory" in str(each.message)]


def test_a_hint_that_can_not_be_found_out_is_none(settings, monkeypatch):
    def fail(*_):
        raise RuntimeError("busy")

    monkeypatch.setattr(StepProbe, "_measure_memory", fail)
    assert SmallApproach.hints(settings(), CUDA) == []


def test_memory_is_that_of_two_steps_on_all_images(settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", nothing)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", nothing)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1100)
    approach = SmallApproach(settings(size=32), replace(CUDA, device=torch.device("cpu")))
    tried = fill_above(monkeypatch, 3)
    assert approach._make_probe()._measure_memory(3, CUDA.device) == 1000
    assert tried == [3, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a plan has no place for it
        assert approach._make_probe()._measure_memory(4, CUDA.device) is None
    assert tried == [3, 3, 4]
    monkeypatch.setattr(module, "segmentation_loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        approach._make_probe()._measure_memory(4, CUDA.device)


def test_no_measurement_fits_one_image_only():
    assert predict_memory({}, 1) == 0
    assert predict_memory({}, 2) == math.inf


@pytest.mark.filterwarnings("ignore:the memory is full")
def test_a_fit_reports_its_parts(discs, runtime, settings, new_fit_context, monkeypatch):
    fill_above(monkeypatch, 2)
    approach: NetworkApproach = SmallApproach(settings(epochs=2), runtime)
    report = approach.fit(discs(8), discs(2, seed=9), new_fit_context())
    assert report.accumulation_steps == 2
    assert report.busy_share is None
    # An image is tried at the full size before the small ones are trained, and the training knows its parts.
    small = settings(epochs=2, small_share=0.5, small_size=32)
    tried = fill_above(monkeypatch, 2)
    assert (
        SmallApproach(small, runtime).fit(discs(4), discs(2), new_fit_context(folder="b")).accumulation_steps
        == 2
    )
    assert tried.count(4) == 1
