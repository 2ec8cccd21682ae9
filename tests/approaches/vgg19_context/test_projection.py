import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from lungseg.approaches.vgg19_context.projection import Projection
from lungseg.learning.vgg19.pyramid import make_blocks


def correlated_rows(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    scales = torch.logspace(-1, 1, channels)
    return torch.relu(torch.randn(count, channels, generator=generator) @ mixing * scales + 1)


def test_components_are_those_of_scikit_learns_pca_on_standardised_channels():
    (block,) = make_blocks(("relu1_2",), (16,))
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
    (block,) = make_blocks(("relu1_2",), (16,))
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
    (block,) = make_blocks(("relu1_2",), (16,))
    rows = correlated_rows(500, 64)
    rows[:, 7] = 0
    projection = Projection((block,), 64)
    projection.fit([rows])
    (planes,) = projection([rows[:256].T.reshape(1, 64, 16, 16)], 16)
    assert planes.isfinite().all()
    assert planes.abs().max() < 100  # standard deviations


def test_without_components_the_channels_stay_as_they_are():
    blocks = make_blocks(("relu1_2",), (16, 8))
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
    blocks = make_blocks(("relu1_2", "relu2_1"), (32,))
    assert len(Projection(blocks, 100).names) == 64 + 100
