import copy
import itertools
import types
from dataclasses import replace

import pytest
import torch

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.learning.networks import checkpoints
from lungseg.learning.networks import training as module
from lungseg.learning.networks.checkpoints import read_checkpoint_interval
from lungseg.learning.networks.training import Training
from lungseg.learning.networks.weight_average import WeightAverage
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime
from tests.learning.networks.small_network import SmallApproach
from tests.weights import same_weights


def nothing(*_) -> None:
    pass


def test_weight_average_worked_by_hand():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 1.0)
    average = WeightAverage(network, decay=0.99)
    torch.nn.init.constant_(network.weight, 2.0)
    average.update(network)  # decay is (1 + 1) / (10 + 1)
    assert average.network.weight.item() == pytest.approx(1 * 2 / 11 + 2 * 9 / 11)


def test_statistics_of_norms_are_copied_to_the_average():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(2))
    average = WeightAverage(network, decay=0.99)
    for number, value in enumerate(network.buffers()):
        value.fill_(number + 1)
    average.update(network)
    assert [value.flatten()[0].item() for value in average.network.buffers()] == [1, 2, 3, 4, 5, 6]
    WeightAverage(torch.nn.Linear(1, 1), decay=0.5).update(torch.nn.Linear(1, 1))  # it has none


class Cut(Exception):
    pass


FAST = Runtime(torch.device("cpu"), precision="bfloat16", channels_last=True)


PLAIN, LAST = Runtime(torch.device("cpu")), Runtime(torch.device("cpu"), channels_last=True)


@pytest.mark.parametrize(
    ("steps", "approach_class", "runtime"),
    [
        (1, SmallApproach, LAST),
        (2, SmallApproach, FAST),
        (3, SmallApproach, PLAIN),
        (3, DeepLabV3PlusResNet50, LAST),
        (4, SmallApproach, LAST),
    ],
)
def test_a_training_cut_after_any_step_ends_with_the_same_bits(
    steps, approach_class, runtime, network_training, noise_images, tmp_path, monkeypatch, short_backbone
):
    # `steps` of two epochs of two.
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")
    data, path = noise_images(7, size=32), tmp_path / "last.pt"
    settings = {"size": 32, "epochs": 2, "network": {"topology": "seed", "dropout": 0.5}}
    values = {"count": 7, "runtime": runtime, "approach_class": approach_class, **settings}
    whole = network_training(**values)
    expected = [whole.run_epoch(data, nothing) for _ in range(2)]

    cut, passed = network_training(**values), itertools.count(1)

    def stop(*_) -> None:
        if next(passed) > steps:  # the step after the last one that was stored
            raise Cut

    found = []

    def two_epochs(training: Training, progress) -> None:
        while training.epoch < 2:
            found.append(training.run_epoch(data, progress, path))
            training.save(path)

    if steps == 4:
        two_epochs(cut, nothing)
    else:
        with pytest.raises(Cut):
            two_epochs(cut, stop)

    resumed = network_training(**values, seed=0)
    assert resumed.resume(path)
    assert resumed.epoch * 2 + resumed.step == steps
    found = found[: resumed.epoch]
    two_epochs(resumed, nothing)
    assert found == expected
    assert same_weights(resumed.network, whole.network)
    assert same_weights(resumed.average.network, whole.average.network)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_update_is_that_of_torchs_plain_optimiser(layout, network_training):
    runtime = Runtime(torch.device("cpu"), channels_last=layout is torch.channels_last)
    training = network_training(runtime=runtime, backbone_factor=1.0, weight_decay=0.0)
    plain = copy.deepcopy(training.network)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0, foreach=False)
    for group in training.optimiser.param_groups:
        group["lr"] = 1e-3
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for one, two in zip(training.network.parameters(), plain.parameters(), strict=True):
            gradient = torch.randn(one.shape, generator=generator)
            one.grad, two.grad = gradient.clone(memory_format=torch.preserve_format), gradient
            if one.ndim == 4:
                one.grad = gradient.contiguous(memory_format=layout)
        training.optimiser.step()
        optimiser.step()
    for one, two in zip(training.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
    assert all(each.is_contiguous() for group in training.optimiser.param_groups for each in group["params"])


def test_another_seed_gives_other_weights(network_training, noise_images):
    found = [network_training(seed=seed) for seed in (0, 0, 1)]
    for training in found:
        training.run_epoch(noise_images(), nothing)
    assert same_weights(found[0].network, found[1].network)
    assert not same_weights(found[0].network, found[2].network)


def test_a_missing_checkpoint_is_none(network_training, tmp_path):
    training = network_training()
    assert not training.resume(tmp_path / "last.pt")
    assert (training.epoch, training.step) == (0, 0)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a checkpoint"])
def test_a_damaged_checkpoint_is_none_and_is_named(damage, network_training, tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(damage)
    training = network_training()
    with pytest.warns(UserWarning, match=r"last\.pt is damaged: this training starts over"):
        assert not training.resume(path)
    assert (training.epoch, training.step) == (0, 0)


def test_a_checkpoint_that_cannot_be_read_now_is_not_thrown_away(network_training, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError(5, "Input/output error")

    path = tmp_path / "last.pt"
    training = network_training()
    training.save(path)
    monkeypatch.setattr(checkpoints, "has_digest", failing)
    with pytest.raises(InputError, match=r"last\.pt can't be read \(Input/output error\)"):
        training.resume(path)
    assert path.exists()


def test_a_slow_disk_gets_fewer_checkpoints_and_its_seconds_count_as_waiting(
    network_training, noise_images, tmp_path, monkeypatch
):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(module, "save_state", lambda state, path: setattr(clock, "now", clock.now + 10))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "60")
    training = network_training()
    saved = []
    for now in (59, 60, 140, 269, 270):
        clock.now = float(now)
        training.save_if_due(tmp_path / "last.pt")
        saved.append(clock.now - now)
    # Ten seconds of saving ended at 70: with 5 % of the time for it the next is due 200 seconds later.
    assert saved == [0, 10, 0, 0, 10]
    assert training.waited == 20
    training.run_epoch(noise_images(), nothing)
    training.run_epoch(noise_images(), nothing)
    assert training.waited == 20


def test_every_step_is_stored_if_asked_for_whatever_it_takes(network_training, tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(module, "save_state", lambda state, path: setattr(clock, "now", clock.now + 10))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")
    training = network_training()
    for _ in range(3):
        training.save_if_due(tmp_path / "last.pt")
    assert clock.now == 30


def test_a_full_disk_at_a_checkpoint_is_a_sentence(network_training, tmp_path, monkeypatch):
    def full(state, file):
        raise RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="the disk is full"):
        network_training().save(tmp_path / "last.pt")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_names_step_images_and_checkpoint(
    network_training, noise_images, tmp_path, monkeypatch
):
    data, path = noise_images(), tmp_path / "last.pt"
    training = network_training()
    training.run_epoch(data, nothing)
    training.save(path)
    before = {name: value.clone() for name, value in training.average.network.state_dict().items()}
    loss = module.segmentation_loss
    calls = itertools.count()
    monkeypatch.setattr(
        module, "segmentation_loss", lambda *words: loss(*words) * (float("nan") if next(calls) == 1 else 1.0)
    )
    with pytest.raises(InputError) as caught:
        training.run_epoch(data, nothing, path)
    sentence = str(caught.value)
    assert "the loss is nan at step 2 of epoch 2" in sentence
    assert sum(f"picture-{number}" in sentence for number in range(6)) == 3  # those of the step
    assert str(path) in sentence
    assert "lower learning_rate than 0.001" in sentence
    assert training.average.steps == 3  # the step left no trace in the weights
    assert not all(torch.equal(before[n], v) for n, v in training.average.network.state_dict().items())


def test_a_gradient_that_is_no_number_leaves_the_weights_alone(network_training, noise_images):
    training = network_training()
    training.network.head[-1].bias.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    with pytest.raises(InputError, match=r"the gradient's norm is (inf|nan) at step 1 of epoch 1"):
        training.run_epoch(noise_images(), nothing)
    for name, value in training.network.named_parameters():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("wrong", ["often", "-1", "nan"])
def test_seconds_between_checkpoints_that_are_none_are_refused(wrong, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", wrong)
    with pytest.raises(InputError, match=f"LUNGSEG_CHECKPOINT_SECONDS={wrong}"):
        read_checkpoint_interval()


def test_frozen_norms_keep_their_statistics(network_training, noise_images):
    free, frozen = network_training(), network_training(freeze_norms=True)
    start = {name: value.clone() for name, value in frozen.network.state_dict().items()}
    for training in (free, frozen):
        training.run_epoch(noise_images(), nothing)
    for name, value in frozen.network.state_dict().items():
        if "running_" in name:
            assert torch.equal(value, start[name]), name
    moved = free.network.state_dict()
    assert any(not torch.equal(moved[name], start[name]) for name in start if "running_" in name)


def test_one_training_image_is_refused(network_training):
    with pytest.raises(InputError, match="two images"):
        network_training(count=1)


def test_bfloat16_trains_in_the_layout_of_the_runtime(network_training, noise_images, runtime):
    narrow = replace(runtime, precision="bfloat16", channels_last=True)
    training = network_training(runtime=narrow)
    loss, accuracy = training.run_epoch(noise_images(), nothing)
    assert 0 < loss < 10
    assert 0 <= accuracy <= 1
    assert next(training.network.parameters()).dtype == torch.float32


def test_rates_fall_with_the_work_that_is_done(network_training, noise_images):
    sizes = {"size": 64, "small_size": 32, "small_share": 0.34}
    training = network_training(count=4, epochs=3, warmup_share=0, **sizes)
    factors = []
    for size in (32, 64, 64):  # of one step each, which cost 1, 4 and 4
        training.run_epoch(noise_images(4, size), nothing)
        factors.append(training.optimiser.param_groups[0]["lr"] / training.optimiser.top_rates[0])
    assert factors == pytest.approx([1, 1, 0.5])
