import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lungseg.approaches.vgg19_context.context_planes import (
    FRAME_NAMES,
    blur,
    compute_context_planes,
    compute_frame,
    count_context_planes,
    list_context_plane_names,
    list_surrounding_names,
)


def surroundings(maps: torch.Tensor) -> torch.Tensor:
    """The planes of one map without those of the frame."""
    return compute_context_planes([maps], maps.shape[-1])[:, : -len(FRAME_NAMES)]


@pytest.mark.parametrize("earlier", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("grid", [16, 32])
def test_every_plane_of_several_maps_has_one_name(earlier, grid):
    maps, sources = [torch.rand(2, 1, 16, 16) for _ in range(earlier)], list("abcd"[:earlier])
    planes, names = compute_context_planes(maps, grid), list_context_plane_names(sources, grid)
    if not earlier:
        assert planes is None
        assert names == []
    else:
        assert planes.shape == (2, len(names), grid, grid)
        assert len(set(names)) == len(names)
    assert count_context_planes(earlier, grid) == len(names)


def test_the_latest_two_maps_are_read_and_the_latest_frames_the_lungs():
    maps = [torch.rand(1, 1, 16, 16) for _ in range(3)]
    planes, names = compute_context_planes(maps, 16), list_context_plane_names(list("abc"), 16)
    count = len(list_surrounding_names(16))
    torch.testing.assert_close(planes[:, :count], surroundings(maps[1]))
    torch.testing.assert_close(planes[:, count : 2 * count], surroundings(maps[2]))
    torch.testing.assert_close(planes[:, 2 * count :], compute_frame(maps[2]))
    assert names[0] == "b: here"
    assert names[count] == "c: here"
    assert names[-1] == f"c: {FRAME_NAMES[-1]}"


@pytest.mark.parametrize("grid", [8, 12, 16, 32, 64, 128])
def test_every_plane_of_a_map_has_one_name(grid):
    planes = surroundings(torch.rand(2, 1, grid, grid))
    names = list_surrounding_names(grid)
    assert planes.shape == (2, len(names), grid, grid)
    assert len(set(names)) == len(names)
    assert planes.dtype == torch.float32


def test_blurring_agrees_with_scipy():
    sigmas = (0.6, 0.875, 1.0, 2.5, 7.0)
    maps = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = blur(maps, sigmas)
    assert found.shape == (2, 5, 20, 20)
    for one, blurred in zip(maps[:, 0], found, strict=True):
        for sigma, plane in zip(sigmas, blurred, strict=True):
            expected = gaussian_filter(one.double().numpy(), sigma, mode="nearest", radius=int(3 * sigma))
            np.testing.assert_allclose(plane.numpy(), expected, atol=1e-6)


def test_context_of_a_random_map_at_128_pixels_a_side():
    maps = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    planes = dict(zip(list_surrounding_names(128), surroundings(maps)[0].numpy(), strict=True))
    values = maps[0, 0].numpy()
    np.testing.assert_array_equal(planes.pop("here"), values)
    np.testing.assert_array_equal(planes.pop("mirrored"), values[:, ::-1])
    np.testing.assert_allclose(planes.pop("row"), np.repeat(values.mean(1)[:, None], 128, 1), atol=1e-6)
    np.testing.assert_allclose(planes.pop("column"), np.repeat(values.mean(0)[None], 128, 0), atol=1e-6)
    np.testing.assert_allclose(planes.pop("image"), values.mean(), atol=1e-6)
    assert len(planes) == 5 * 9
    places = np.arange(128)
    for sigma, distance in ((1, 3), (2, 6), (4, 12), (8, 24), (14, 40)):
        blurred = gaussian_filter(values, sigma, mode="nearest", truncate=3)
        np.testing.assert_allclose(planes.pop(f"blur {sigma:.1f}"), blurred, atol=1e-6)
        for y in (-distance, 0, distance):
            for x in (-distance, 0, distance):
                if y or x:  # beyond the border the last row or column goes on
                    rows, columns = np.clip(places + y, 0, 127), np.clip(places + x, 0, 127)
                    found = planes.pop(f"blur {sigma:.1f} at {y:+d},{x:+d}")
                    np.testing.assert_allclose(found, blurred[np.ix_(rows, columns)], atol=1e-6)
    assert not planes


def test_a_smaller_grid_has_the_same_distances_as_shares_of_its_side():
    names = list_surrounding_names(32)
    assert {name for name in names if "at" not in name} == {
        *("here", "mirrored", "row", "column", "image"),
        *("blur 1.0", "blur 2.0", "blur 3.5"),  # those of 0.25 and 0.5 pixels would change nothing
    }
    spot = torch.zeros(1, 1, 32, 32)
    spot[..., 10, 20] = 1
    planes = dict(zip(names, surroundings(spot)[0], strict=True))
    # Who looks three rows up sees the spot from three rows below it.
    assert divmod(int(planes["blur 1.0 at -3,+0"].argmax()), 32) == (13, 20)
    assert divmod(int(planes["blur 2.0 at +6,-6"].argmax()), 32) == (4, 26)
    assert divmod(int(planes["mirrored"].argmax()), 32) == (10, 11)


def test_frame_of_two_boxes_by_hand():
    maps = torch.zeros(1, 1, 9, 9)  # nine places from -1 to 1, a quarter apart
    maps[..., 4:7, 1:3] = 1
    maps[..., 4:7, 6:8] = 1
    y, x, midline, aspect = compute_frame(maps)[0]
    y_sd, x_sd = np.sqrt(0.25**2 * 2 / 3), np.sqrt((0.75**2 + 0.5**2) / 2)
    expected = torch.tensor([(place - 0.25) / y_sd for place in np.linspace(-1, 1, 9)]).float()
    torch.testing.assert_close(y, expected[:, None].expand(9, 9))
    torch.testing.assert_close(x, torch.tensor(np.linspace(-1, 1, 9) / x_sd).float().expand(9, 9))
    torch.testing.assert_close(midline, x.abs())
    torch.testing.assert_close(aspect, torch.full((9, 9), x_sd / y_sd))
    assert len(FRAME_NAMES) == 4
    torch.testing.assert_close(compute_frame(maps / 2)[0], torch.stack([y, x, midline, aspect]))


def test_the_frame_is_weighted_by_the_squared_map():
    maps = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    weights, places = maps[0, 0].double().numpy() ** 2, np.linspace(-1, 1, 12)
    frame = compute_frame(maps)[0].numpy()
    for plane, profile in ((frame[0, :, 3], weights.sum(1)), (frame[1, 3], weights.sum(0))):
        centre = np.average(places, weights=profile)
        sd = np.average((places - centre) ** 2, weights=profile) ** 0.5
        np.testing.assert_allclose(plane, (places - centre) / sd, atol=1e-5)


def test_the_frame_moves_with_the_lungs():
    maps = torch.zeros(1, 1, 33, 33)
    maps[..., 8:16, 8:16] = 1
    moved = compute_frame(maps.roll((4, 6), (2, 3)))
    torch.testing.assert_close(moved[..., 4:, 6:], compute_frame(maps)[..., :-4, :-6], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e-6, 1.0])
def test_a_map_without_lungs_or_of_nothing_else_has_a_frame(value):
    assert compute_frame(torch.full((2, 1, 16, 16), value)).isfinite().all()
