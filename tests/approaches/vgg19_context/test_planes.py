import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from lungseg.approaches.vgg19_context.planes import (
    COORDINATE_NAMES,
    GREY_NAMES,
    Projection,
    coordinate_planes,
    grey_planes,
    normalise,
)
from lungseg.learning.vgg19.pyramid import blocks_of


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


def correlated_rows(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    scales = torch.logspace(-1, 1, channels)
    return torch.relu(torch.randn(count, channels, generator=generator) @ mixing * scales + 1)


def test_components_are_those_of_scikit_learns_pca_on_standardised_channels():
    (block,) = blocks_of(("relu1_2",), (16,))
    rows = correlated_rows(4000, 64)
    projection = Projection((block,), 5)
    projection.fit([rows])
    other = correlated_rows(256, 64, seed=1)
    (planes,) = projection([other.T.reshape(1, 64, 16, 16)], 16)
    scaler = StandardScaler().fit(rows.double())
    expected = PCA(5, svd_solver="full").fit(scaler.transform(rows.double()))
    expected = expected.transform(scaler.transform(other.double()))
    found = planes[0].flatten(1).T.numpy()
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=0.02, rtol=2e-3)
    assert projection.names == [f"relu1_2@16:{index}" for index in range(5)]


def test_the_order_of_the_rows_has_no_part_in_the_components():
    (block,) = blocks_of(("relu1_2",), (16,))
    rows = correlated_rows(1000, 64)
    weights = []
    for sample in (rows, rows.flip(0)):
        projection = Projection((block,), 64)
        projection.fit([sample])
        weights.append(projection.weight_0 * sample.std(0))
    torch.testing.assert_close(*weights, atol=1e-3, rtol=0)
    largest = weights[0].gather(1, weights[0].abs().argmax(1, keepdim=True))
    assert (largest > 0).all()  # no sign is left to chance


def test_a_channel_that_never_fires_does_no_harm():
    (block,) = blocks_of(("relu1_2",), (16,))
    rows = correlated_rows(500, 64)
    rows[:, 7] = 0
    projection = Projection((block,), 64)
    projection.fit([rows])
    (planes,) = projection([rows[:256].T.reshape(1, 64, 16, 16)], 16)
    assert planes.isfinite().all()
    assert planes.abs().max() < 100  # standard deviations


def test_without_components_the_channels_stay_as_they_are():
    blocks = blocks_of(("relu1_2",), (16, 8))
    projection = Projection(blocks, 0)
    maps = [torch.rand(2, 64, 16, 16), torch.rand(2, 64, 8, 8)]
    projection.fit([torch.rand(10, 64)] * 2)
    planes = projection(maps, 16)
    assert torch.equal(planes[0], maps[0])
    assert torch.equal(planes[1], maps[1])
    small = projection(maps, 8)[0]
    torch.testing.assert_close(small, maps[0].view(2, 64, 8, 2, 8, 2).mean((3, 5)))
    assert len(projection.names) == 128
    assert not projection.state_dict()


def test_more_components_than_channels_keeps_as_many_as_there_are():
    blocks = blocks_of(("relu1_2", "relu2_1"), (32,))
    assert len(Projection(blocks, 100).names) == 64 + 100


def test_grey_planes_by_hand():
    images = torch.zeros(1, 1, 28, 28)
    images[..., 10, 12] = 1
    grey, near, far = grey_planes(images)[0]  # means of 3 x 3 and of 9 x 9 pixels
    assert torch.equal(grey, images[0, 0])
    assert near[10, 12].item() == pytest.approx(1 - 1 / 9)
    assert near[9, 13].item() == pytest.approx(-1 / 9)
    assert near[8, 12].item() == pytest.approx(0, abs=1e-6)
    assert far[10, 12].item() == pytest.approx(1 - 1 / 81)
    assert far[14, 16].item() == pytest.approx(-1 / 81)
    assert len(GREY_NAMES) == 3
    assert grey_planes(torch.full((1, 1, 28, 28), 0.6))[0, 1:].abs().max() < 1e-6  # also at the border


def test_coordinates_by_hand():
    images = torch.zeros(1, 1, 4, 4)
    images[..., 1:3, :3] = 0.5  # a body of two rows and three columns
    y, x, above, left, in_row = coordinate_planes(images)[0]
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
    inside = coordinate_planes(framed)[:, 2:, 5:17, 2:14]
    torch.testing.assert_close(inside, coordinate_planes(body)[:, 2:])


def test_without_a_body_every_share_is_one_half():
    assert (coordinate_planes(torch.zeros(2, 1, 8, 8))[:, 2:] == 0.5).all()
