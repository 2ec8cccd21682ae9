import numpy as np
import pytest

from lungseg.approaches.baselines import BaselineSettings, MeanMask, Threshold, find_best_band
from lungseg.scoring.overlap import mean_dice
from lungseg.system.errors import InputError


def test_mean_mask_is_the_mean_whatever_the_image(discs, runtime, new_fit_context):
    samples = discs(5, size=64)
    approach = MeanMask(BaselineSettings(size=64), runtime)
    approach.fit(samples, samples[:1], new_fit_context())
    (one,) = approach.predict([np.zeros((64, 64), np.float32)])
    np.testing.assert_allclose(one, np.mean([s.mask() for s in samples], axis=0), atol=1e-6)


def test_threshold_finds_dark_discs(discs, runtime, new_fit_context):
    approach = Threshold(BaselineSettings(size=64), runtime)
    approach.fit(discs(10), discs(2), new_fit_context())
    held = discs(4, seed=7)
    assert mean_dice(approach.predict([s.image() for s in held]), [s.mask() for s in held]) > 0.8


def test_best_band_against_trying_all():
    rng = np.random.default_rng(0)
    pixels = rng.integers(5, 50, 12).astype(float)
    lung = pixels * np.array([0, 0.1, 0.2, 0.7, 0.9, 0.8, 0.6, 0.1, 0, 0, 0.3, 0])
    tried = {
        (low, high): 2 * lung[low:high].sum() / (pixels[low:high].sum() + lung.sum())
        for low in range(12)
        for high in range(low + 1, 13)
    }
    assert find_best_band(lung, pixels) == max(tried, key=tried.get)


@pytest.mark.parametrize("approach_class", [MeanMask, Threshold])
def test_a_stored_baseline_predicts_the_same(approach_class, discs, runtime, new_fit_context, tmp_path):
    approach = approach_class(BaselineSettings(size=32), runtime)
    approach.fit(discs(3), discs(1), new_fit_context())
    approach.save(tmp_path)
    loaded = approach_class.load(tmp_path, approach.settings, runtime)
    image = [discs(1, seed=4)[0].image()]
    np.testing.assert_array_equal(approach.predict(image)[0], loaded.predict(image)[0])
    (tmp_path / approach_class.FILE).unlink()
    with pytest.raises(InputError, match="missing"):
        approach_class.load(tmp_path, approach.settings, runtime)
