import math

import numpy as np
import pytest
import torch

from lungseg.approaches.deeplabv3plus import approach as module
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.approaches.deeplabv3plus.settings import DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.training import (
    WeightAverage,
    batches,
    learning_rate_factor,
    segmentation_loss,
)
from lungseg.errors import InputError
from lungseg.scoring.overlap import mean_dice


def settings(**values) -> DeepLabV3PlusSettings:
    # The smallest of the topologies keeps the tests quick.
    chosen = {"size": 48, "epochs": 3, "batch_size": 4, "network": {"topology": "seed"}, **values}
    return DeepLabV3PlusSettings(weights="random", **chosen)


def test_losses_worked_by_hand():
    logits = torch.tensor([[[[0.0, 0.0]]]])
    masks = torch.tensor([[[[1.0, 0.0]]]])
    assert segmentation_loss(logits, masks, "cross-entropy").item() == pytest.approx(math.log(2))
    assert segmentation_loss(logits, masks, "dice").item() == pytest.approx(1 - 2 / 3)
    both = segmentation_loss(logits, masks, "both").item()
    assert both == pytest.approx(math.log(2) + 1 / 3)


def test_dice_loss_of_an_image_without_lung_falls_with_what_is_predicted():
    empty = torch.zeros(1, 1, 4, 4)
    much = segmentation_loss(torch.full((1, 1, 4, 4), 3.0), empty, "dice")
    little = segmentation_loss(torch.full((1, 1, 4, 4), -3.0), empty, "dice")
    assert much > little


@pytest.mark.parametrize(("count", "size"), [(9, 8), (17, 8), (2, 8), (16, 8), (601, 4), (9, 2)])
def test_no_batch_has_a_single_image(count, size):
    found = batches(count, size, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(found).tolist()) == list(range(count))
    assert all(2 <= len(part) <= max(size, 3) for part in found)


def test_learning_rate_rises_then_falls_to_nothing():
    s = settings(warmup_share=0.1)
    rates = [learning_rate_factor(step, 100, s) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert learning_rate_factor(50, 100, settings(schedule="constant")) == 1


def test_weight_average_worked_by_hand():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 1.0)
    average = WeightAverage(network, decay=0.99)
    torch.nn.init.constant_(network.weight, 2.0)
    average.update(network)  # decay is (1 + 1) / (10 + 1)
    assert average.network.weight.item() == pytest.approx(1 * 2 / 11 + 2 * 9 / 11)


def test_it_learns_is_stored_and_repeats_its_bits(discs, runtime, new_run, tmp_path):
    train, held = discs(12), discs(4, seed=9)
    truths, images = [s.mask() for s in held], [s.image() for s in held]
    s = settings(epochs=12, learning_rate=3e-3, backbone_factor=1.0, batch_size=4)

    def fitted(folder):
        run = new_run(folder=folder, score=lambda maps: mean_dice(maps, truths))
        network = DeepLabV3PlusResNet50(s, runtime)
        return network, network.fit(train, held, run), run

    first, report, run = fitted("one")
    maps = first.predict(images)
    assert mean_dice(maps, truths) > 0.8
    dice = [row["validation_dice"] for row in run.rows]
    assert mean_dice(maps, truths) == pytest.approx(max(dice), abs=1e-6)
    assert report.best_step == int(np.argmax(dice)) + 1
    assert [row["step"] for row in run.rows] == list(range(1, 13))

    first.save(tmp_path)
    loaded = DeepLabV3PlusResNet50.load(tmp_path, s, runtime)
    second, _, _ = fitted("two")
    for other in (loaded, second):
        for one, two in zip(maps, other.predict(images), strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_cut_training_ends_with_the_same_bits(discs, runtime, new_run, monkeypatch):
    train, held = discs(9), discs(2, seed=3)
    whole = DeepLabV3PlusResNet50(settings(), runtime)
    whole_run = new_run(folder="whole")
    whole.fit(train, held, whole_run)

    class Cut(Exception):
        pass

    def cut_in_second_epoch(self, training, data, run):
        if training.epoch == 1:
            training.run_epoch(data, lambda step, steps, loss: (_ for _ in ()).throw(Cut))
        return uncut(self, training, data, run)

    uncut = DeepLabV3PlusResNet50._train_epoch
    monkeypatch.setattr(module.DeepLabV3PlusResNet50, "_train_epoch", cut_in_second_epoch)
    with pytest.raises(Cut):
        DeepLabV3PlusResNet50(settings(), runtime).fit(train, held, new_run(folder="cut"))
    monkeypatch.setattr(module.DeepLabV3PlusResNet50, "_train_epoch", uncut)

    resumed, resumed_run = DeepLabV3PlusResNet50(settings(), runtime), new_run(folder="cut")
    fitted = resumed.fit(train, held, resumed_run)
    assert fitted.seconds_before > 0  # it did go on, and did not start over
    assert resumed_run.rows == whole_run.rows
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_damaged_checkpoint_costs_its_epochs_not_the_run(discs, runtime, new_run):
    run = new_run()
    (run.checkpoints / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    fitted = DeepLabV3PlusResNet50(settings(epochs=1), runtime).fit(discs(4), discs(2), run)
    assert fitted.best_step == 1


def test_a_full_disk_at_a_checkpoint_is_a_sentence(discs, runtime, new_run, monkeypatch):
    def full(state, file):
        raise RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed")

    monkeypatch.setattr(torch, "save", full)
    run = new_run()
    with pytest.raises(InputError, match="the disk is full"):
        DeepLabV3PlusResNet50(settings(epochs=1), runtime).fit(discs(4), discs(2), run)
    assert not list(run.checkpoints.glob("*.part"))


def test_one_training_image_is_refused(discs, runtime, new_run):
    with pytest.raises(InputError, match="two images"):
        DeepLabV3PlusResNet50(settings(), runtime).fit(discs(1), discs(1), new_run())


def test_a_loss_that_is_not_finite_is_named(discs, runtime, new_run):
    wild = settings(learning_rate=1e30, augment=False, warmup_share=0.0)
    with pytest.raises(InputError, match="learning_rate") as caught:
        DeepLabV3PlusResNet50(wild, runtime).fit(discs(6), discs(2), new_run())
    assert "epoch" in str(caught.value)
