import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_ridge import KernelRidge

from lungseg.approaches.vgg19_context.shape_prior import (
    MASK_SIDE,
    PENALTY,
    SIDE,
    WIDTH,
    ShapePrior,
    compute_squared_distances,
    describe_images,
)


def cases(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, masks that follow from them, and groups of two: an image and its changed copy."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    images = torch.cat([images, (images + 0.1 * torch.rand(count, 1, 8, 8, generator=generator)).clamp(0, 1)])
    images = torch.nn.functional.interpolate(images, size=(64, 64), mode="bilinear")
    masks = torch.nn.functional.interpolate(images, size=(MASK_SIDE, MASK_SIDE))
    return describe_images(images), masks, torch.arange(count).repeat(2)


def kernel_ridge(width, pictures, masks, others) -> np.ndarray:
    """An independent fit's maps of other pictures."""

    def kernel(rows):
        return np.exp(-cdist(rows, pictures.double().numpy(), "sqeuclidean") / width) + 1

    ridge = KernelRidge(alpha=PENALTY, kernel="precomputed")
    ridge.fit(kernel(pictures.double().numpy()), masks.flatten(1).double().numpy())
    return ridge.predict(kernel(others.double().numpy())).clip(0, 1)


def test_maps_are_those_of_scikit_learns_kernel_ridge():
    pictures, masks, groups = cases(8)
    shape = ShapePrior()
    shape.fit(pictures, masks, groups)
    others, _, _ = cases(3, seed=1)
    found = shape.predict_maps(others)
    assert found.shape == (6, 1, 64, 64)
    expected = kernel_ridge(shape.width.item(), pictures, masks, others)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-4)


def test_held_out_maps_are_those_of_fits_without_the_group():
    pictures, masks, groups = cases(8)
    shape = ShapePrior()
    held_out = shape.fit(pictures, masks, groups)
    for group in (0, 3, 7):
        own = groups == group
        expected = kernel_ridge(shape.width.item(), pictures[~own], masks[~own], pictures[own])
        np.testing.assert_allclose(held_out[own].flatten(1).numpy(), expected, atol=1e-4)
        with_it = shape.predict_maps(pictures[own]).flatten(1).numpy()
        assert np.abs(with_it - expected).max() > 0.01  # else the test could not tell


def test_no_case_has_part_in_its_own_map():
    pictures, masks, groups = cases(8)
    changed = masks.clone()
    changed[groups == 2] = 1 - changed[groups == 2]
    before, after = (ShapePrior().fit(pictures, each, groups) for each in (masks, changed))
    torch.testing.assert_close(after[groups == 2], before[groups == 2], atol=1e-6, rtol=0)
    assert (after - before)[groups != 2].abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("count", [3, 30])
def test_the_kernels_width_follows_the_median_distance(count):
    pictures = torch.randn(count, SIDE**2, generator=torch.Generator().manual_seed(0))
    shape = ShapePrior()
    shape.fit(pictures, torch.rand(count, 1, 64, 64), torch.arange(count))
    # An even number of pairs has two medians; either will do.
    pairs = np.sort(pdist(pictures.double().numpy(), "sqeuclidean"))
    low, high = pairs[(len(pairs) - 1) // 2], pairs[len(pairs) // 2]
    assert WIDTH * low * (1 - 1e-6) <= shape.width.item() <= WIDTH * high * (1 + 1e-6)


def test_a_single_picture_and_equal_ones_can_be_learnt_from():
    for pictures in (torch.randn(1, SIDE**2), torch.zeros(4, SIDE**2)):
        masks = torch.rand(len(pictures), 1, 64, 64)
        shape = ShapePrior()
        held_out = shape.fit(pictures, masks, torch.arange(len(pictures)))
        assert held_out.isfinite().all()
        assert shape.predict_maps(pictures).isfinite().all()


def test_descriptions_by_their_definition():
    torch.manual_seed(0)
    images = torch.rand(2, 1, 64, 64)
    images[1] = 0.4
    found = describe_images(images)
    blocks = images[0, 0].view(32, 2, 32, 2).mean((1, 3)).flatten()
    torch.testing.assert_close(found[0], (blocks - blocks.mean()) / blocks.std(), atol=1e-4, rtol=1e-4)
    assert (found[1].abs() < 0.1).all()


def test_close_pictures_keep_their_distance():
    rows = torch.rand(1, 1024, generator=torch.Generator().manual_seed(0)) + torch.zeros(40, 1)
    rows[1:, 0] += 1e-3 * torch.arange(1, 40)
    expected = cdist(rows.double().numpy(), rows.double().numpy(), "sqeuclidean")
    np.testing.assert_allclose(compute_squared_distances(rows, rows).numpy(), expected, atol=1e-9)


def test_a_stored_prior_gives_the_same_maps():
    pictures, masks, groups = cases(4)
    shape, stored = ShapePrior(), ShapePrior(8)
    shape.fit(pictures, masks, groups)
    stored.load_state_dict(shape.state_dict())
    images = torch.rand(3, 1, 64, 64)
    assert torch.equal(shape(images), stored(images))
