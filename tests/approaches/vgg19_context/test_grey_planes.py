import pytest
import torch

from lungseg.approaches.vgg19_context.grey_planes import (
    COORDINATE_NAMES,
    GREY_NAMES,
    compute_coordinate_planes,
    compute_grey_planes,
    normalise,
)


def blocky(values: list[list[float]]) -> torch.Tensor:
    """One image in which each value fills 4 x 4 pixels, so every fourth pixel is all there is to see."""
    return torch.tensor(values).repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]


def test_normalising_by_hand():
    found = normalise(blocky([[0.2, 0.4], [0.6, 0.8]]))[0, 0, ::4, ::4]
    low, high = 0.2 + 0.06 * 0.2, 0.8 - 0.06 * 0.2  # 2 % and 98 % of the way through four values
    expected = [[0, (0.4 - low) / (high - low)], [(0.6 - low) / (high - low), 1]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_normalising_takes_out_brightness_and_contrast_image_by_image():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 32, 32)
    both = normalise(torch.cat([image, 0.3 + 0.5 * image]))
    torch.testing.assert_close(both[0], both[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(both[:1], normalise(image))


@pytest.mark.parametrize("grey", [0.0, 0.7, 1.0])
def test_an_image_of_one_grey_value_becomes_black(grey):
    assert torch.equal(normalise(torch.full((1, 1, 16, 16), grey)), torch.zeros(1, 1, 16, 16))


def test_grey_planes_by_hand():
    images = torch.zeros(1, 1, 28, 28)
    images[..., 10, 12] = 1
    grey, near, far = compute_grey_planes(images)[0]  # means of 3 x 3 and of 9 x 9 pixels
    assert torch.equal(grey, images[0, 0])
    assert near[10, 12].item() == pytest.approx(1 - 1 / 9)
    assert near[9, 13].item() == pytest.approx(-1 / 9)
    assert near[8, 12].item() == pytest.approx(0, abs=1e-6)
    assert far[10, 12].item() == pytest.approx(1 - 1 / 81)
    assert far[14, 16].item() == pytest.approx(-1 / 81)
    assert len(GREY_NAMES) == 3
    even = torch.full((1, 1, 28, 28), 0.6)
    assert compute_grey_planes(even)[0, 1:].abs().max() < 1e-6  # also at the border


def test_coordinates_by_hand():
    images = torch.zeros(1, 1, 4, 4)
    images[..., 1:3, :3] = 0.5  # a body of two rows and three columns
    y, x, above, left, in_row = compute_coordinate_planes(images)[0]
    ends = [-1, -1 / 3, 1 / 3, 1]
    torch.testing.assert_close(y, torch.tensor(ends)[:, None].expand(4, 4))
    torch.testing.assert_close(x, torch.tensor(ends).expand(4, 4))
    torch.testing.assert_close(above, torch.tensor([0, 1 / 4, 3 / 4, 1])[:, None].expand(4, 4))
    torch.testing.assert_close(left, torch.tensor([1 / 6, 3 / 6, 5 / 6, 1]).expand(4, 4))
    torch.testing.assert_close(in_row[1:3], torch.tensor([1 / 6, 3 / 6, 5 / 6, 1]).expand(2, 4))
    assert (in_row[[0, 3]] == 0.5).all()
    assert len(COORDINATE_NAMES) == 5


def test_a_letterboxed_or_shifted_body_keeps_its_own_coordinates():
    torch.manual_seed(0)
    body = torch.rand(1, 1, 12, 12) * (torch.rand(1, 1, 12, 12) > 0.3)
    framed = torch.zeros(1, 1, 20, 20)
    framed[..., 5:17, 2:14] = body
    inside = compute_coordinate_planes(framed)[:, 2:, 5:17, 2:14]
    torch.testing.assert_close(inside, compute_coordinate_planes(body)[:, 2:])


def test_without_a_body_every_share_is_one_half():
    assert (compute_coordinate_planes(torch.zeros(2, 1, 8, 8))[:, 2:] == 0.5).all()
