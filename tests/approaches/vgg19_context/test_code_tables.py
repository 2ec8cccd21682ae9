import numpy as np
import pytest
import torch

from lungseg.approaches.vgg19_context.augmented_images import read_augmented_images
from lungseg.approaches.vgg19_context.code_tables import (
    CodeTables,
    choose_pixels,
    fit_bins,
    fit_projection,
    space_evenly,
    write_tables,
)
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes


@pytest.fixture
def cases(discs, small, tmp_path):
    return read_augmented_images(tmp_path / "cases", discs(3), discs(2, seed=5), small(), seed=0)


def test_chosen_pixels_have_their_own_targets(cases, small):
    choice = choose_pixels(cases, 16, small(pixels_per_image=50, pixels_per_copy=20), seed=0, stage=0)
    counts = [50] * 3 + [20] * 3 + [50] * 2
    assert [len(pixels) for pixels in choice.pixels] == counts
    assert choice.case.tolist() == [index for index, count in enumerate(counts) for _ in range(count)]
    for index, pixels in enumerate(choice.pixels):
        share = cases.masks[index, 0].float().view(16, 2, 16, 2).mean((1, 3)).flatten()
        assert (np.diff(pixels) > 0).all()
        np.testing.assert_allclose(choice.targets[choice.find_rows(index)], share[pixels], atol=1e-6)
        # The share of lung among them is the image's own, which a plain draw would miss by some percent.
        strata = [(share == 0).float().mean(), (share[pixels] == 0).float().mean()]
        assert strata[1].item() == pytest.approx(strata[0].item(), abs=1.01 / len(pixels))


def test_each_stage_and_seed_chooses_anew(cases, small):
    first, same, stage, seed = (
        choose_pixels(cases, 32, small(), *words) for words in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    for index in range(len(cases)):
        np.testing.assert_array_equal(first.pixels[index], same.pixels[index])
        assert not np.array_equal(first.pixels[index], stage.pixels[index])
        assert not np.array_equal(first.pixels[index], seed.pixels[index])


def test_all_pixels_are_chosen_when_there_are_no_more(cases, small):
    choice = choose_pixels(cases, 16, small(pixels_per_image=1000, pixels_per_copy=1000), 0, 0)
    assert all(np.array_equal(pixels, np.arange(256)) for pixels in choice.pixels)


@torch.inference_mode()
def test_a_row_of_a_table_is_the_pixel_it_names(cases, small, runtime, tmp_path):
    settings = small()
    base = ImagePlanes(settings, runtime)
    fit_projection(base, cases, np.random.default_rng(0))
    bins = fit_bins(base, cases, np.random.default_rng(1))
    fine = choose_pixels(cases, 32, settings, seed=0, stage=1)
    steps = []
    write_tables(tmp_path, base, cases, fine, bins, lambda done, total: steps.append((done, total)))
    tables = CodeTables(tmp_path)
    assert tables.coarse.shape == (len(cases) * 256, len(base.names))
    assert tables.fine.shape == (len(fine.case), len(base.names))
    assert steps[-1] == (len(cases), len(cases))
    both = base.compute_planes(cases.read(slice(None)))
    planes, coarse = both[32], both[16]
    for index, row, column in ((0, 3, 5), (4, 15, 0), (7, 9, 9)):
        expected = bins.encode(coarse[index, :, row, column][None])[0]
        np.testing.assert_array_equal(tables.coarse[index * 256 + row * 16 + column], expected)
    for index, place in ((0, 0), (2, 17), (5, 99), (7, 250)):
        row, column = divmod(int(fine.pixels[index][place]), 32)
        expected = bins.encode(planes[index, :, row, column][None])[0]
        np.testing.assert_array_equal(tables.fine[fine.find_rows(index)][place], expected)
    assert (tables.coarse.max(0) > 200).sum() > 10  # the codes are spread over their range


def test_nothing_is_fitted_to_validation_images(discs, small, runtime, tmp_path):
    found = []
    for seed in (5, 6):
        cases = read_augmented_images(tmp_path / str(seed), discs(3), discs(2, seed=seed), small(), 0)
        base = ImagePlanes(small(), runtime)
        fit_projection(base, cases, np.random.default_rng(0))
        found.append((base.get_fitted_tensors(), fit_bins(base, cases, np.random.default_rng(1))))
    for name, value in found[0][0].items():
        assert torch.equal(value, found[1][0][name])
    for one, two in zip(found[0][1].edges, found[1][1].edges, strict=True):
        np.testing.assert_array_equal(one, two)


def test_without_context_no_coarse_table_is_written(cases, small, runtime, tmp_path):
    settings = small(contexts=0, features=False)
    base = ImagePlanes(settings, runtime)
    bins = fit_bins(base, cases, np.random.default_rng(0))
    fine = choose_pixels(cases, 32, settings, 0, 0)
    write_tables(tmp_path / "tables", base, cases, fine, bins, lambda done, total: None)
    tables = CodeTables(tmp_path / "tables")
    assert tables.coarse.shape == (0, len(base.names))
    assert len(tables.fine) == len(fine.case)


@pytest.mark.parametrize(("count", "wanted", "expected"), [(5, 3, [0, 2, 4]), (2, 5, [0, 1]), (1, 3, [0])])
def test_evenly_spaced_indices(count, wanted, expected):
    assert space_evenly(count, wanted) == expected
