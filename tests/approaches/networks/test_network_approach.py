import numpy as np
import pytest
import torch
from weights import same_weights

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.approaches.networks import training as training_module
from lungseg.approaches.networks.training import Training
from lungseg.errors import InputError
from lungseg.scoring.overlap import mean_dice


def test_it_learns_is_stored_and_repeats_its_bits(discs, runtime, settings, new_run, tmp_path):
    train, held = discs(12), discs(4, seed=9)
    truths, images = [s.mask() for s in held], [s.image() for s in held]
    s = settings(epochs=12, learning_rate=3e-3, backbone_factor=1.0)

    def fitted(folder):
        run = new_run(folder=folder, score=lambda maps: mean_dice(maps, truths))
        network = DeepLabV3PlusResNet50(s, runtime)
        return network, network.fit(train, held, run), run

    first, report, run = fitted("one")
    maps = first.predict(images)
    assert mean_dice(maps, truths) > 0.8
    dice = [row["validation_dice"] for row in run.rows]
    assert mean_dice(maps, truths) == pytest.approx(max(dice), abs=1e-4)
    assert report.best_step == int(np.argmax(dice)) + 1
    assert 0 <= report.wait_share < 1
    assert [row["step"] for row in run.rows] == list(range(1, 13))

    first.save(tmp_path)
    loaded = DeepLabV3PlusResNet50.load(tmp_path, s, runtime)
    second, _, _ = fitted("two")
    for other in (loaded, second):
        for one, two in zip(maps, other.predict(images), strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_fit_goes_on_from_its_checkpoint(discs, runtime, settings, new_run, monkeypatch):
    train, held = discs(9), discs(2, seed=3)
    whole, whole_run = DeepLabV3PlusResNet50(settings(), runtime), new_run(folder="whole")
    whole.fit(train, held, whole_run)

    class Cut(Exception):
        pass

    save = Training.save

    def cut_after_second_epoch(training, path):
        save(training, path)
        if training.epoch == 2:
            raise Cut

    monkeypatch.setattr(Training, "save", cut_after_second_epoch)
    with pytest.raises(Cut):
        DeepLabV3PlusResNet50(settings(), runtime).fit(train, held, new_run(folder="cut"))
    monkeypatch.setattr(Training, "save", save)

    resumed, resumed_run = DeepLabV3PlusResNet50(settings(), runtime), new_run(folder="cut")
    fitted = resumed.fit(train, held, resumed_run)
    assert fitted.seconds_before > 0  # it did go on, and did not start over
    assert resumed_run.rows == whole_run.rows
    assert same_weights(whole.network, resumed.network)


def test_without_the_best_weights_it_starts_over(discs, runtime, settings, new_run):
    run = new_run()
    first = DeepLabV3PlusResNet50(settings(epochs=2), runtime)
    first.fit(discs(6), discs(2), run)
    (best,) = run.checkpoints.glob("best-*.safetensors")
    best.unlink()
    run.rows.clear()
    again = DeepLabV3PlusResNet50(settings(epochs=2), runtime)
    again.fit(discs(6), discs(2), run)
    assert [row["step"] for row in run.rows] == [1, 2]
    assert same_weights(first.network, again.network)


def test_a_damaged_checkpoint_costs_its_epochs_not_the_run(discs, runtime, settings, new_run):
    run = new_run()
    (run.checkpoints / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.warns(UserWarning, match="damaged"):
        fitted = DeepLabV3PlusResNet50(settings(epochs=1), runtime).fit(discs(4), discs(2), run)
    assert fitted.best_step == 1


def test_one_training_image_is_refused(discs, runtime, settings, new_run):
    with pytest.raises(InputError, match="two images"):
        DeepLabV3PlusResNet50(settings(), runtime).fit(discs(1), discs(1), new_run())


def test_a_wild_learning_rate_is_named(discs, runtime, settings, new_run):
    wild = settings(learning_rate=1e30, augment=False, warmup_share=0.0)
    with pytest.raises(InputError, match="learning_rate") as caught:
        DeepLabV3PlusResNet50(wild, runtime).fit(discs(6), discs(2), new_run())
    assert "epoch" in str(caught.value)
    assert "disc-00" in str(caught.value)


def test_averaging_with_the_mirror_image(discs, runtime, settings, new_run):
    plain = DeepLabV3PlusResNet50(settings(epochs=1), runtime)
    plain.fit(discs(6), discs(2), new_run())
    both = DeepLabV3PlusResNet50(settings(epochs=1, test_time="flip"), runtime)
    both.network = plain.network
    batch = plain.prepare([sample.image() for sample in discs(3, seed=4)])
    logits = [plain.stages()[0].run(each).logit() for each in (batch, batch.flip(-1))]
    expected = ((logits[0] + logits[1].flip(-1)) / 2).sigmoid()
    torch.testing.assert_close(both.stages()[0].run(batch), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_a_full_memory_says_what_to_lower(error, discs, runtime, settings, new_run, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(training_module, "segmentation_loss", fail)
    with pytest.raises(InputError, match=r"lower batch_size = 4 or size = 48"):
        DeepLabV3PlusResNet50(settings(), runtime).fit(discs(4), discs(2), new_run())


def test_another_error_is_not_taken_for_a_full_memory(discs, runtime, settings, new_run, monkeypatch):
    def fail(*_):
        raise RuntimeError("of another kind")

    monkeypatch.setattr(training_module, "segmentation_loss", fail)
    with pytest.raises(RuntimeError, match="of another kind"):
        DeepLabV3PlusResNet50(settings(), runtime).fit(discs(4), discs(2), new_run())
    assert DeepLabV3PlusResNet50(settings(), runtime).estimate(10, 2) is None


def test_an_estimate_is_made_without_data(runtime, settings):
    approach = DeepLabV3PlusResNet50(settings(epochs=2), runtime)
    short, long = approach.estimate(10, 2), approach.estimate(10_000, 2)
    assert 0 < short < long
