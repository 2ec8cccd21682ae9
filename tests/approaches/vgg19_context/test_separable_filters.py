import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import convolve1d

from lungseg.approaches.vgg19_context.separable_filters import (
    apply_separable,
    make_box_kernel,
    make_gaussian_kernel,
    make_smoothing_matrix,
    resample,
)

CPU = torch.device("cpu")


def test_resampling_by_hand():
    maps = torch.tensor([[0.0, 1.0], [4.0, 7.0]])[None, None]
    assert resample(maps, 1).item() == 3
    assert resample(maps, 2) is maps
    assert resample(maps, 4)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert resample(maps, 4)[0, 0, :, 3].tolist() == [1, 2.5, 5.5, 7]


@pytest.mark.parametrize(("side", "wanted"), [(1, 4), (2, 6), (8, 16), (8, 64), (5, 15), (16, 128)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_enlarging_is_torchs_bilinear_interpolation(side, wanted, layout):
    planes = torch.rand(2, 3, side, side).contiguous(memory_format=layout)
    expected = F.interpolate(planes, size=(wanted, wanted), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resample(planes, wanted), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "kernel",
    [
        make_box_kernel(1),
        make_box_kernel(4),
        make_gaussian_kernel(0.6),
        make_gaussian_kernel(3.0),
        make_gaussian_kernel(7.0),
    ],
)
def test_smoothing_repeats_the_border_as_scipy_does(kernel):
    planes = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    found = apply_separable(planes, make_smoothing_matrix(kernel, 12, CPU))
    for plane, smooth in zip(planes[:, 0].double().numpy(), found[:, 0].numpy(), strict=True):
        expected = convolve1d(plane, kernel.numpy(), 0, mode="nearest")
        expected = convolve1d(expected, kernel.numpy(), 1, mode="nearest")
        np.testing.assert_allclose(smooth, expected, atol=1e-6)


def test_several_matrices_give_a_plane_each():
    matrices = torch.rand(3, 4, 5)
    maps = torch.rand(2, 1, 5, 5)
    found = apply_separable(maps, matrices)
    assert found.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found[1, 2], matrices[2] @ maps[1, 0] @ matrices[2].T)


def test_kernels_by_hand():
    assert make_box_kernel(1).tolist() == [1 / 3] * 3
    side = np.exp(-1 / (2 * 0.6**2))
    np.testing.assert_allclose(make_gaussian_kernel(0.6).numpy(), np.array([side, 1, side]) / (1 + 2 * side))
    assert len(make_gaussian_kernel(7.0)) == 2 * 21 + 1
