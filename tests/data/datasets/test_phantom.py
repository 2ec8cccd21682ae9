"""Properties of phantoms that benchmarks rely on."""

import hashlib

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from lungseg.data.datasets.phantom import SITES, PhantomDataset, render
from lungseg.data.datasets.radiography.beam import CORTICAL_BONE, ENERGIES, SOFT_TISSUE, Technique, expose
from lungseg.data.datasets.radiography.canvas import (
    Canvas,
    Curve,
    Frame,
    blur,
    chord,
    segment_distance,
    smooth_field,
)


@pytest.fixture(scope="module")
def phantoms():
    return [render(3, index, 96) for index in range(40)]


def test_picture_and_mask_have_the_promised_form(phantoms):
    for image, mask in phantoms:
        assert image.dtype == np.float32
        assert image.shape == mask.shape == (96, 96)
        assert mask.dtype == bool
        assert np.isfinite(image).all()
        assert image.min() >= 0.0
        assert image.max() <= 1.0
        assert image.std() > 0.05


def test_repeats_are_byte_identical_and_others_differ():
    first, again, other = render(5, 2, 64), render(5, 2, 64), render(5, 3, 64)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert hashlib.sha256(first[0]).digest() != hashlib.sha256(other[0]).digest()
    assert not np.array_equal(first[0], render(6, 2, 64)[0])


def test_another_size_shows_the_same_patient():
    for index in range(6):
        small_image, small = render(0, index, 64)
        large_image, large = render(0, index, 192)
        shrunk = large.reshape(64, 3, 64, 3).mean((1, 3)) >= 0.5
        dice = 2 * (shrunk & small).sum() / (shrunk.sum() + small.sum())
        assert dice > 0.95
        means = large_image.reshape(64, 3, 64, 3).mean((1, 3))
        assert np.corrcoef(means.ravel(), small_image.ravel())[0, 1] > 0.95


def test_an_odd_and_the_smallest_size_work():
    for size in (32, 101):
        image, mask = render(1, 1, size)
        assert image.shape == (size, size)
        assert 0.05 < mask.mean() < 0.6


def test_nearly_every_mask_is_two_large_lungs(phantoms):
    two = 0
    for _, mask in phantoms:
        labels, count = ndimage.label(mask)
        areas = ndimage.sum_labels(mask, labels, range(1, count + 1)) / mask.size
        two += int((areas > 0.03).sum() == 2)
    assert two >= 38


def test_lungs_fill_as_much_of_the_picture_as_real_ones(phantoms):
    shares = np.array([mask.mean() for _, mask in phantoms])
    assert 0.22 < shares.mean() < 0.29
    assert 0.03 < shares.std() < 0.09


def test_lungs_are_darker_than_the_mediastinum(phantoms):
    darker = 0
    for image, mask in phantoms:
        left = np.flatnonzero(mask.any(0))[0]
        right = np.flatnonzero(mask.any(0))[-1]
        middle = (left + right) // 2
        rows = np.flatnonzero(mask[:, left:right].any(1))
        between = np.zeros_like(mask)
        between[rows[len(rows) // 3] : rows[2 * len(rows) // 3], middle - 4 : middle + 5] = True
        darker += image[mask].mean() + 0.05 < image[between & ~mask].mean()
    assert darker >= 38


def test_the_left_lung_is_smaller_because_of_the_heart():
    """On the picture's right; a mirrored phantom would teach a network a wrong anatomy."""
    masks = np.mean([render(8, index, 64)[1] for index in range(24)], axis=0)
    assert masks[:, :32].sum() > 1.05 * masks[:, 32:].sum()


def test_dataset_keeps_the_contract():
    dataset = PhantomDataset(PhantomDataset.Settings(count=5, size=48, seed=4), None)
    samples = dataset.samples()
    assert dataset.real is False
    assert [sample.id for sample in samples] == [f"phantom-000{i}" for i in range(5)]
    assert len({sample.patient for sample in samples}) == len(samples)
    assert [sample.source for sample in samples] == [SITES[i % 2] for i in range(5)]
    image, mask = render(4, 2, 48)
    assert np.array_equal(samples[2].image(), image)
    assert np.array_equal(samples[2].mask(), mask)
    assert len({sample.content() for sample in samples}) == 5
    other = PhantomDataset(PhantomDataset.Settings(count=5, size=48, seed=5), None).samples()
    assert other[0].content() != samples[0].content()


def test_a_caller_cannot_change_the_kept_picture():
    sample = PhantomDataset(PhantomDataset.Settings(count=1, size=32), None).samples()[0]
    sample.image()[:] = 0
    sample.mask()[:] = True
    image, mask = render(0, 0, 32)
    assert np.array_equal(sample.image(), image)
    assert np.array_equal(sample.mask(), mask)


def test_image_and_mask_are_rendered_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "lungseg.data.datasets.phantom.render", lambda *key: calls.append(key) or render(*key)
    )
    samples = PhantomDataset(PhantomDataset.Settings(count=2, size=32), None).samples()
    assert calls == []
    samples[0].image(), samples[0].mask(), samples[1].mask()
    assert calls == [(0, 0, 32), (0, 1, 32)]


def test_both_labels_occur():
    samples = PhantomDataset(PhantomDataset.Settings(count=60, size=32), None).samples()
    ill = sum(sample.label == "opacity" for sample in samples)
    assert {sample.label for sample in samples} == {"normal", "opacity"}
    assert 10 < ill < 40


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"size": 31}, {"size": 2049}, {"seed": -1}, {"sizes": 64}, {"count": "many"}]
)
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PhantomDataset.Settings(**wrong)


def test_attenuation_is_beer_lambert():
    technique = Technique(60.0, 0.0, 0.1, 1e12, 0.0, (0.0, 0.0), 0, 0, 0, 0.3, 0.8, 1)
    soft = np.full((64, 64), 10.0, np.float32)
    bone = np.full((64, 64), 0.5, np.float32)
    at = ENERGIES.index(60.0)
    expected = SOFT_TISSUE[at] * 9.5 + CORTICAL_BONE[at] * 0.5
    path = expose(soft, bone, technique, np.random.default_rng(0))
    assert path.mean() == pytest.approx(expected, rel=1e-3)


def test_noise_falls_with_the_number_of_photons():
    soft, bone = np.full((64, 64), 5.0, np.float32), np.zeros((64, 64), np.float32)

    def spread(photons):
        technique = Technique(60.0, 0.0, 0.1, photons, 0.0, (0.0, 0.0), 0, 0, 0, 0.3, 0.8, 1)
        return expose(soft, bone, technique, np.random.default_rng(0)).std()

    # A 64 x 64 pixel counts 16 times the photons of a 256 x 256 one; noise is 1 / sqrt(counts).
    arriving = np.exp(-5.0 * SOFT_TISSUE[ENERGIES.index(60.0)])
    assert spread(1e5) == pytest.approx(1 / np.sqrt(16e5 * arriving), rel=0.05)
    assert spread(1e3) == pytest.approx(10 * spread(1e5), rel=0.1)


def test_geometry_by_hand():
    assert chord(np.float32(9.0), 5.0) == pytest.approx(8.0)
    assert chord(np.float32(26.0), 5.0) == 0.0
    squared, along = segment_distance(np.float32(3.0), np.float32(2.0), (0.0, 0.0), (4.0, 0.0))
    assert (float(squared), float(along)) == pytest.approx((4.0, 0.75))
    assert Curve(lambda y: 2 * y)(np.float32(7.0)) == pytest.approx(14.0, abs=0.02)
    frame = Frame(width=40.0, height=20.0, origin_x=0.5, origin_y=0.25, tilt=0.0)
    zero = np.zeros((80, 80), np.float32)
    canvas = Canvas(80, frame, (zero, zero))
    assert canvas.x[0, 40] == pytest.approx(0.25, abs=1e-5)
    assert canvas.y[20, 0] == pytest.approx(0.125, abs=1e-5)
    rows, columns = canvas.window(-2.0, 2.0, 0.0, 4.0)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (16, 40, 34, 46)


def test_fields_do_not_depend_on_the_size():
    small, large = (smooth_field(np.random.default_rng(2), size, 8) for size in (64, 192))
    assert np.allclose(large[1::3, 1::3], small, atol=1e-5)
    impulse = np.zeros((96, 96), np.float32)
    impulse[48, 48] = 1.0
    blurred = blur(impulse, 0.05)
    assert blurred.sum() == pytest.approx(1.0, rel=0.05)
    # The peak of a Gaussian of sigma = 0.05 x 96 = 4.8 pixels, a little lowered by the coarse grid.
    assert blurred[48, 48] == pytest.approx(1 / (2 * np.pi * 4.8**2), rel=0.25)
