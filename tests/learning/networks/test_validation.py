"""Dice that a device counts is that of the maps that the host gets."""

import numpy as np
import pytest
import torch

from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks.image_cache import Images
from lungseg.learning.networks.validation import DeviceMasks
from lungseg.scoring.overlap import image_dice, mean_dice
from tests.learning.networks.small_network import SmallApproach

CPU = torch.device("cpu")
SHAPES = [(48, 48), (31, 77), (9, 5), (100, 60), (48, 48)]


@pytest.fixture
def masks() -> list[np.ndarray]:
    """Discs of several sizes; one mask is empty."""
    found = []
    for height, width in SHAPES:
        rows, columns = np.mgrid[:height, :width]
        found.append((rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (min(height, width) / 3) ** 2)
    found[3][:] = False
    return found


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("bias", [0.0, 0.02, -50.0])  # the last one predicts no lung at all
def test_a_device_finds_what_the_host_does(
    resident, bias, masks, noise_images, network_training, settings, runtime, new_fit_context, monkeypatch
):
    training, held = network_training(), noise_images(5)
    training.run_epoch(noise_images(), lambda *_: None)
    torch.nn.init.constant_(training.average.network.head[-1].bias, bias)
    approach = SmallApproach(settings(batch_size=3), runtime)
    context = new_fit_context(score=lambda maps: mean_dice(maps, masks))
    rows = []
    for truths in (SHAPES, DeviceMasks(masks, CPU)):
        training.history.append({})
        approach._validate(training, held, truths, context)
        rows.append(training.history.pop())
        monkeypatch.setattr(Images, "fits_on", lambda *_: resident)
    assert rows[1] == pytest.approx(rows[0], abs=1e-6)
    assert held.is_resident == resident
    assert rows[0]["validation_dice"] == pytest.approx(0.2 if bias < 0 else 0.4, abs=0.2)
    assert (rows[0]["validation_dice"] == 0.2) == (bias < 0)  # the empty mask alone agrees


@pytest.mark.parametrize("size", [1, 7, 8, 40])
def test_counts_are_those_of_the_scores(size):
    rng = np.random.default_rng(size)
    truth, values = rng.random((size, size + 3)) < 0.5, rng.random((size, size + 3), np.float32)
    values.flat[0] = 0.5  # counts as lung
    masks = DeviceMasks([truth], CPU)
    both, sums = masks.count_overlap(0, torch.from_numpy(values)[None]).tolist()
    assert both == np.count_nonzero(truth & (values >= 0.5))
    assert sums == np.count_nonzero(truth) + np.count_nonzero(values >= 0.5)
    assert [2 * both / sums] == image_dice([values], [truth]) if sums else True


def test_a_gpu_holds_masks_that_fit_unless_maps_are_finished_in_another_way(
    discs, runtime, settings, monkeypatch
):
    free = [20 * 2 * 64 * 64 // 8]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 0))
    assert not DeviceMasks.fit_on([(64, 64)], CPU)
    assert DeviceMasks.fit_on([(64, 64)] * 2, torch.device("cuda"))
    assert not DeviceMasks.fit_on([(64, 65)] * 2, torch.device("cuda"))

    class Smoothed(SmallApproach):
        def finish(self, maps, sizes):
            return super().finish(maps / 2, sizes)

    monkeypatch.setattr(DeviceMasks, "fit_on", lambda shapes, device: True)
    samples = discs(2)
    plain, other = SmallApproach(settings(), runtime), Smoothed(settings(), runtime)
    assert NetworkApproach._keep_masks(plain, samples, [(64, 64)] * 2).shapes == [(64, 64)] * 2
    assert other._keep_masks(samples, [(64, 64)] * 2) is None
