import copy
import itertools
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.learning.networks import checkpoints
from lungseg.learning.networks import training as training_module
from lungseg.learning.networks.checkpoints import load_state
from lungseg.learning.networks.step_probe import StepProbe
from lungseg.learning.networks.training import Training
from lungseg.scoring.overlap import mean_dice
from lungseg.system.errors import InputError
from lungseg.system.interrupts import Interrupted
from tests.learning.networks.small_network import SmallApproach
from tests.weights import same_weights


def same_maps(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(map(np.array_equal, one, two))


def test_it_learns_and_is_stored(discs, runtime, settings, new_fit_context, tmp_path, short_backbone):
    train, held = discs(12), discs(4, seed=9)
    truths, images = [s.mask() for s in held], [s.image() for s in held]
    s = settings(epochs=8, learning_rate=3e-3, backbone_factor=1.0)
    fit_context = new_fit_context(score=lambda maps: mean_dice(maps, truths))
    approach = DeepLabV3PlusResNet50(s, runtime)
    report = approach.fit(train, held, fit_context)
    maps = approach.predict(images)
    assert mean_dice(maps, truths) > 0.8
    dice = [row["validation_dice"] for row in fit_context.rows]
    assert mean_dice(maps, truths) == pytest.approx(max(dice), abs=1e-4)
    assert report.best_step == int(np.argmax(dice)) + 1
    assert 0 <= report.wait_share < 1
    assert [row["step"] for row in fit_context.rows] == list(range(1, 9))
    approach.save(tmp_path)
    assert same_maps(DeepLabV3PlusResNet50.load(tmp_path, s, runtime).predict(images), maps)


def test_a_fit_repeats_its_bits(discs, runtime, settings, new_fit_context):
    images, maps = [sample.image() for sample in discs(2, seed=9)], []
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        approach = SmallApproach(settings(epochs=2, learning_rate=0.02), runtime)
        approach.fit(discs(6), discs(2, seed=9), new_fit_context(seed, folder))
        maps.append(approach.predict(images))
    assert same_maps(maps[0], maps[1])
    assert not same_maps(maps[0], maps[2])


def test_a_fit_goes_on_from_its_checkpoint(discs, runtime, settings, new_fit_context, monkeypatch):
    train, held = discs(9), discs(2, seed=3)
    whole, whole_context = SmallApproach(settings(), runtime), new_fit_context(folder="whole")
    whole.fit(train, held, whole_context)
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")

    class Cut(Exception):
        pass

    save = Training.save

    def cut_after_second_epoch(training, path):
        save(training, path)
        if training.epoch == 2:
            raise Cut

    monkeypatch.setattr(Training, "save", cut_after_second_epoch)
    with pytest.raises(Cut):
        SmallApproach(settings(), runtime).fit(train, held, new_fit_context(folder="cut"))
    monkeypatch.setattr(Training, "save", save)

    resumed, resumed_context = SmallApproach(settings(), runtime), new_fit_context(folder="cut")
    fitted = resumed.fit(train, held, resumed_context)
    assert fitted.seconds_before > 0  # it did go on, and did not start over
    assert resumed_context.rows == whole_context.rows
    assert same_weights(whole.network, resumed.network)


def test_small_images_come_first_and_the_best_epoch_is_one_at_the_full_size(
    discs, runtime, settings, new_fit_context, monkeypatch
):
    s = settings(epochs=5, small_share=0.4, small_size=32)
    seen, averages, dice = [], [], iter([0.9, 0.95, 0.5, 0.7, 0.6])
    epoch, validate = Training.run_epoch, SmallApproach._validate

    def run_epoch(training, data, *others):
        seen.append(("train", data.read_batch([0])[0].shape[-1]))
        return epoch(training, data, *others)

    def validated(approach, training, held, *others):
        seen.append(("validate", held.read_batch([0])[0].shape[-1]))
        averages.append(copy.deepcopy(training.average.network))
        return validate(approach, training, held, *others)

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    monkeypatch.setattr(SmallApproach, "_validate", validated)

    def score(maps) -> float:
        assert {each.shape for each in maps} == {(64, 64)}  # the images' own size, whatever the network saw
        return next(dice)

    fit_context, approach = new_fit_context(score=score), SmallApproach(s, runtime)
    fitted = approach.fit(discs(6), discs(2, seed=3), fit_context)
    assert seen.pop(0) == ("train", 48)  # to see that it fits
    assert seen == [(step, size) for size in (32, 32, 48, 48, 48) for step in ("train", "validate")]
    assert fitted.best_step == 4
    assert [same_weights(approach.network, each) for each in averages] == [False, False, False, True, False]
    assert [row["validation_dice"] for row in fit_context.rows] == [0.9, 0.95, 0.5, 0.7, 0.6]


def test_a_fit_cut_before_or_after_the_size_changes_goes_on(
    discs, runtime, settings, new_fit_context, monkeypatch
):
    s = settings(epochs=4, small_share=0.5, small_size=32)
    train, held = discs(9), discs(2, seed=3)
    whole, whole_context = SmallApproach(s, runtime), new_fit_context(folder="whole")
    whole.fit(train, held, whole_context)
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")

    class Cut(Exception):
        pass

    save = Training.save
    for epochs in (1, 2, 3):

        def cut(training, path, epochs=epochs):
            save(training, path)
            if training.epoch == epochs:
                raise Cut

        monkeypatch.setattr(Training, "save", cut)
        with pytest.raises(Cut):
            SmallApproach(s, runtime).fit(train, held, new_fit_context(folder=f"cut {epochs}"))
        monkeypatch.setattr(Training, "save", save)
        resumed, resumed_context = SmallApproach(s, runtime), new_fit_context(folder=f"cut {epochs}")
        fitted = resumed.fit(train, held, resumed_context)
        assert fitted.seconds_before > 0  # it did go on, and did not start over
        assert resumed_context.rows == whole_context.rows
        assert same_weights(whole.network, resumed.network)


def test_a_fit_cut_within_the_first_epoch_at_the_full_size_goes_on(
    discs, runtime, settings, new_fit_context, monkeypatch
):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")
    s = settings(epochs=2, small_share=0.5, small_size=32)
    whole = SmallApproach(s, runtime)
    whole.fit(discs(9), discs(2, seed=3), new_fit_context(folder="whole"))

    class Cut(Exception):
        pass

    def progress(done: int, total: int, text: str) -> None:
        if text.startswith("epoch 2") and done > total / 2:  # not the first of its three steps
            raise Cut

    fit_context = new_fit_context(folder="cut")
    with pytest.raises(Cut):
        SmallApproach(s, runtime).fit(discs(9), discs(2, seed=3), replace(fit_context, progress=progress))
    resumed = SmallApproach(s, runtime)
    assert resumed.fit(discs(9), discs(2, seed=3), fit_context).seconds_before > 0
    assert same_weights(whole.network, resumed.network)


def test_a_size_that_fails_does_so_before_the_smaller_one_is_trained(
    discs, runtime, settings, new_fit_context, monkeypatch
):
    epoch, seen = Training.run_epoch, []

    def run_epoch(training, data, *others):
        seen.append(data.read_batch([0])[0].shape[-1])
        if seen[-1] == 48:
            raise MemoryError
        return epoch(training, data, *others)

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    approach = SmallApproach(settings(small_share=0.5, small_size=32), runtime)
    with pytest.raises(InputError, match=r"lower batch_size = 4 or size = 48"):
        approach.fit(discs(9), discs(2, seed=3), new_fit_context())
    assert seen == [48]


def test_the_best_epoch_may_be_before_the_cut(discs, runtime, settings, new_fit_context, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")
    networks = {}
    for folder, validations in (("whole", 3), ("cut", 2)):
        dice = iter([0.9, 0.5, 0.6])
        passed = itertools.count(1)

        def score(maps, dice=dice, passed=passed, validations=validations) -> float:
            if next(passed) > validations:
                raise KeyboardInterrupt
            list(maps)
            return next(dice)

        networks[folder] = SmallApproach(settings(epochs=3), runtime)
        fit_context = new_fit_context(folder=folder, score=score)
        if folder == "cut":
            with pytest.raises(KeyboardInterrupt):
                networks[folder].fit(discs(6), discs(2), fit_context)
            fit_context = new_fit_context(folder=folder, score=lambda maps: 0.6 * len(list(maps)) / 2)
        fitted = networks[folder].fit(discs(6), discs(2), fit_context)
        assert fitted.best_step == 1
    assert fitted.seconds_before > 0
    assert same_weights(networks["whole"].network, networks["cut"].network)


def test_a_state_is_not_stored_before_it_is_due(discs, runtime, settings, new_fit_context, monkeypatch):
    saved, save = [], Training.save

    def counted(training, path):
        saved.append((training.epoch, training.step))
        save(training, path)

    monkeypatch.setattr(Training, "save", counted)
    SmallApproach(settings(epochs=3), runtime).fit(discs(6), discs(2), new_fit_context())
    assert saved == [(3, 0)]


def test_a_state_is_stored_each_time_it_is_due(discs, runtime, settings, new_fit_context, monkeypatch):
    # Three steps an epoch; the clock moves by 25 s a step, and a state is due after 60.
    clock, saved, save = [0.0], [], Training.save
    for module in (training_module, checkpoints):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def counted(training, path):
        saved.append((training.epoch, training.step))
        save(training, path)

    def progress(done, total, text) -> None:
        clock[0] += 25 * text.startswith("epoch")

    monkeypatch.setattr(Training, "save", counted)
    fit_context = replace(new_fit_context(), progress=progress)
    SmallApproach(settings(epochs=3), runtime).fit(discs(9), discs(2), fit_context)
    assert saved == [(0, 3), (1, 3), (2, 3), (3, 0)]


def test_no_copy_is_kept_of_what_larger_images_replace(network_training):
    training = network_training(epochs=4, small_share=0.5, small_size=32)
    kept = []
    for epoch in range(1, 5):
        training.epoch = epoch
        training.history.append({"step": epoch, "validation_dice": 1 / epoch})
        training.keep_best()
        kept.append(training.best is not None)
    assert kept == [False, False, True, True]
    assert training.best_epoch == 3


def test_what_a_device_refuses_is_no_damaged_file(
    discs, runtime, settings, new_fit_context, tmp_path, monkeypatch
):
    approach = SmallApproach(settings(epochs=1), runtime)
    approach.fit(discs(4), discs(2), new_fit_context())
    approach.save(tmp_path)

    def busy(*_, **__):
        raise RuntimeError("all CUDA-capable devices are busy or unavailable")

    with monkeypatch.context() as patch:
        patch.setattr("torch.nn.Module.to", busy)
        with pytest.raises(RuntimeError, match="busy"):
            SmallApproach.load(tmp_path, approach.settings, runtime)
    (tmp_path / approach.FILE).write_bytes(b"")
    with pytest.raises(InputError, match="is missing or damaged: run its benchmark again, which fits anew"):
        SmallApproach.load(tmp_path, approach.settings, runtime)


def test_a_damaged_checkpoint_costs_its_epochs_not_the_run(discs, runtime, settings, new_fit_context):
    fit_context = new_fit_context()
    (fit_context.checkpoints / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.warns(UserWarning, match="damaged"):
        fitted = SmallApproach(settings(epochs=1), runtime).fit(discs(4), discs(2), fit_context)
    assert fitted.best_step == 1


def test_one_training_image_is_refused(discs, runtime, settings, new_fit_context):
    with pytest.raises(InputError, match="two images"):
        SmallApproach(settings(), runtime).fit(discs(1), discs(1), new_fit_context())


def test_a_wild_learning_rate_is_named(discs, runtime, settings, new_fit_context):
    wild = settings(learning_rate=1e30, augment=False, warmup_share=0.0)
    with pytest.raises(InputError, match="learning_rate") as caught:
        SmallApproach(wild, runtime).fit(discs(6), discs(2), new_fit_context())
    assert "epoch" in str(caught.value)
    assert "disc-00" in str(caught.value)


def test_averaging_with_the_mirror_image(discs, runtime, settings, new_fit_context):
    plain = SmallApproach(settings(epochs=1), runtime)
    plain.fit(discs(6), discs(2), new_fit_context())
    both = SmallApproach(settings(epochs=1, test_time="flip"), runtime)
    both.network = plain.network
    batch = plain.prepare([sample.image() for sample in discs(3, seed=4)])
    logits = [plain.stages()[0].run(each).logit() for each in (batch, batch.flip(-1))]
    expected = ((logits[0] + logits[1].flip(-1)) / 2).sigmoid()
    torch.testing.assert_close(both.stages()[0].run(batch), expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:the memory is full")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_a_full_memory_says_what_to_lower(error, discs, runtime, settings, new_fit_context, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(training_module, "segmentation_loss", fail)
    with pytest.raises(InputError, match=r"lower batch_size = 4 or size = 48"):
        SmallApproach(settings(), runtime).fit(discs(4), discs(2), new_fit_context())


def test_another_error_is_not_taken_for_a_full_memory(discs, runtime, settings, new_fit_context, monkeypatch):
    def fail(*_):
        raise RuntimeError("of another cause")

    monkeypatch.setattr(training_module, "segmentation_loss", fail)
    with pytest.raises(RuntimeError, match="of another cause"):
        SmallApproach(settings(), runtime).fit(discs(4), discs(2), new_fit_context())
    assert SmallApproach(settings(), runtime).estimate(10, 2) is None


def test_an_estimate_is_made_without_data(runtime, settings):
    approach = SmallApproach(settings(epochs=2), runtime)
    short, long = approach.estimate(10, 2), approach.estimate(10_000, 2)
    assert 0 < short < long


def test_an_estimate_counts_the_epochs_of_each_size(runtime, settings, monkeypatch):
    approach = SmallApproach(settings(epochs=10, small_share=0.7, small_size=32), runtime)
    seconds = {32: 1.0, 48: 5.0}
    monkeypatch.setattr(StepProbe, "_time_step", lambda *given: seconds[given[2]])
    # Batches of four; a validation image is a third of a training one.
    assert approach.estimate(8, 12) == pytest.approx((7 * 1.0 + 3 * 5.0) / 4 * (8 + 12 / 3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_whose_state_is_stored(
    discs, runtime, settings, new_fit_context, number
):
    samples, held = discs(6), discs(2, seed=1)
    own = settings(epochs=3, batch_size=2)
    whole = SmallApproach(own, runtime)
    whole.fit(samples, held, new_fit_context(folder="whole"))
    context, moves = new_fit_context(), []

    def stop_in_the_second_epoch(done, total, text):
        if "epoch" in text:
            moves.append(done)
            if len(moves) == 5:
                signal.raise_signal(number)

    former = {each: signal.signal(each, raise_interrupted) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        cut = replace(context, progress=stop_in_the_second_epoch)
        with pytest.raises(Interrupted):
            SmallApproach(own, runtime).fit(samples, held, cut)
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
    assert len(moves) == 5
    state = load_state(context.checkpoints / "last.pt")
    assert (state["epoch"], state["step"]) == (1, 2)
    again = SmallApproach(own, runtime)
    again.fit(samples, held, context)
    assert same_weights(again.network, whole.network)


def raise_interrupted(number, frame):
    raise Interrupted(number)
