import pytest
import torch

from lungseg.approaches.vgg19_context.cascade import CascadeStage, predict_map, run_cascade
from lungseg.approaches.vgg19_context.context_planes import (
    compute_context_planes,
    count_context_planes,
    list_surrounding_names,
)
from lungseg.approaches.vgg19_context.image_planes import SharedPlanes
from lungseg.learning.regressors.base import as_rows


class Column:
    """A model that returns one of its columns, scaled and shifted, and notes how many it was given."""

    def __init__(self, column: int, scale: float = 1, shift: float = 0) -> None:
        self.column, self.scale, self.shift = column, scale, shift

    def predict_rows(self, rows: torch.Tensor) -> torch.Tensor:
        self.columns = rows.shape[1]
        return rows[:, self.column] * self.scale + self.shift


def shared(planes: dict[int, torch.Tensor], prior: torch.Tensor | None = None, most: int = 3) -> SharedPlanes:
    """The image planes N x P x G x G by G, followed by free planes that hold nothing of use."""
    own = next(iter(planes.values())).shape[1]
    with_free = {}
    for grid, known in planes.items():
        rest = torch.full((len(known), count_context_planes(most, grid), grid, grid), torch.nan)
        with_free[grid] = torch.cat([known, rest], 1).transpose(0, 1).contiguous().transpose(0, 1)
    return SharedPlanes(with_free, own, prior)


@pytest.mark.parametrize(("contexts", "expected"), [(0, [32]), (1, [16, 32]), (3, [16, 16, 16, 32])])
def test_every_stage_but_the_last_is_coarse(contexts, expected, small):
    assert small(contexts=contexts).stage_grids == expected


def test_rows_are_pixels_image_by_image():
    planes = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    rows = as_rows(planes)
    assert rows.shape == (8, 3)
    assert rows[0].tolist() == planes[0, :, 0, 0].tolist()
    assert rows[2].tolist() == planes[0, :, 1, 0].tolist()
    assert rows[7].tolist() == planes[1, :, 1, 1].tolist()


def test_a_map_is_put_back_image_by_image_and_kept_between_0_and_1():
    planes = torch.rand(3, 2, 8, 8)
    found = predict_map(CascadeStage(8, Column(1, scale=4, shift=-1)), shared({8: planes}), [])
    torch.testing.assert_close(found, (planes[:, 1:] * 4 - 1).clamp(0, 1))


def test_stages_read_the_shared_planes_and_the_maps_before_them():
    planes = {grid: torch.rand(2, 5, grid, grid) for grid in (8, 16)}
    prior = torch.rand(2, 1, 16, 16)
    context = len(list_surrounding_names(8))
    first = Column(5)  # the prior where the pixel is
    second = Column(5 + context, scale=0.5)  # the first stage's map there
    last = Column(5 + len(list_surrounding_names(16)), shift=0.1)  # the second stage's
    stages = [CascadeStage(8, first), CascadeStage(8, second), CascadeStage(16, last)]
    maps = run_cascade(stages, shared(planes, prior))
    small = torch.nn.functional.avg_pool2d(prior, 2) * 0.5
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(maps, [prior, torch.nn.functional.avg_pool2d(prior, 2), small, large + 0.1])
    assert first.columns == 5 + context + 4
    assert second.columns == 5 + 2 * context + 4


def test_without_a_prior_the_first_stage_reads_the_planes_alone():
    planes = torch.rand(2, 5, 16, 16)
    model = Column(3)
    (found,) = run_cascade([CascadeStage(16, model)], shared({16: planes}))
    torch.testing.assert_close(found, planes[:, 3:4])
    assert model.columns == 5


def test_a_stage_reads_what_it_would_if_it_were_alone():
    """What another stage of the same grid wrote into the free planes before leaves no trace."""
    planes, prior = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    seen = []

    class Spy(Column):
        def predict_rows(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(rows.clone())
            return super().predict_rows(rows)

    run_cascade([CascadeStage(8, Spy(3, scale=0.5))] * 3, shared({8: planes}, prior))
    maps = [prior, prior / 2, prior / 2]  # column 3 is the older of the two latest, where the pixel is
    for number, rows in enumerate(seen, start=1):
        expected = as_rows(torch.cat([planes, compute_context_planes(maps[:number], 8)], 1))
        torch.testing.assert_close(rows, expected)
