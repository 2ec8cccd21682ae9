import pytest
import torch

from lungseg.approaches.vgg19_context.cascade import (
    Shared,
    Stage,
    believed,
    believed_names,
    predict_map,
    room,
    run_cascade,
    stage_grids,
)
from lungseg.approaches.vgg19_context.context import FRAME_NAMES, context_names, context_planes, frame_planes
from lungseg.learning.regressors.base import as_rows


class Column:
    """A model that returns one of its columns, scaled and shifted, and notes how many it was given."""

    def __init__(self, column: int, scale: float = 1, shift: float = 0) -> None:
        self.column, self.scale, self.shift = column, scale, shift

    def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        self.columns = rows.shape[1]
        return rows[:, self.column] * self.scale + self.shift


def shared(planes: dict[int, torch.Tensor], prior: torch.Tensor | None = None, most: int = 3) -> Shared:
    """The planes N x P x G x G by G, with room behind them that holds nothing of use."""
    own = next(iter(planes.values())).shape[1]
    with_room = {}
    for grid, known in planes.items():
        rest = torch.full((len(known), room(most, grid), grid, grid), torch.nan)
        with_room[grid] = torch.cat([known, rest], 1).transpose(0, 1).contiguous().transpose(0, 1)
    return Shared(with_room, own, prior)


@pytest.mark.parametrize(("contexts", "expected"), [(0, [32]), (1, [16, 32]), (3, [16, 16, 16, 32])])
def test_every_stage_but_the_last_is_coarse(contexts, expected, small):
    assert stage_grids(small(contexts=contexts)) == expected


@pytest.mark.parametrize("earlier", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("grid", [16, 32])
def test_every_believed_plane_has_one_name(earlier, grid):
    maps, sources = [torch.rand(2, 1, 16, 16) for _ in range(earlier)], list("abcd"[:earlier])
    planes, names = believed(maps, grid), believed_names(sources, grid)
    if not earlier:
        assert planes is None
        assert names == []
    else:
        assert planes.shape == (2, len(names), grid, grid)
        assert len(set(names)) == len(names)
    assert room(earlier, grid) == len(names)


def test_the_latest_two_maps_are_believed_and_the_latest_frames_the_lungs():
    maps = [torch.rand(1, 1, 16, 16) for _ in range(3)]
    planes, names = believed(maps, 16), believed_names(["prior", "stage 1", "stage 2"], 16)
    count = len(context_names(16))
    torch.testing.assert_close(planes[:, :count], context_planes(maps[1]))
    torch.testing.assert_close(planes[:, count : 2 * count], context_planes(maps[2]))
    torch.testing.assert_close(planes[:, 2 * count :], frame_planes(maps[2]))
    assert names[0] == "stage 1: here"
    assert names[count] == "stage 2: here"
    assert names[-1] == f"stage 2: {FRAME_NAMES[-1]}"


def test_rows_are_pixels_image_by_image():
    planes = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    rows = as_rows(planes)
    assert rows.shape == (8, 3)
    assert rows[0].tolist() == planes[0, :, 0, 0].tolist()
    assert rows[2].tolist() == planes[0, :, 1, 0].tolist()
    assert rows[7].tolist() == planes[1, :, 1, 1].tolist()


def test_a_map_is_put_back_image_by_image_and_kept_between_0_and_1():
    planes = torch.rand(3, 2, 8, 8)
    found = predict_map(Stage(8, Column(1, scale=4, shift=-1)), shared({8: planes}), [])
    torch.testing.assert_close(found, (planes[:, 1:] * 4 - 1).clamp(0, 1))


def test_stages_read_the_shared_planes_and_the_maps_before_them():
    planes = {grid: torch.rand(2, 5, grid, grid) for grid in (8, 16)}
    prior = torch.rand(2, 1, 16, 16)
    context = len(context_names(8))
    first = Column(5)  # the prior where the pixel is
    second = Column(5 + context, scale=0.5)  # the first stage's map there
    last = Column(5 + len(context_names(16)), shift=0.1)  # the second stage's
    found = run_cascade([Stage(8, first), Stage(8, second), Stage(16, last)], shared(planes, prior))
    small = torch.nn.functional.avg_pool2d(prior, 2) * 0.5
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found, large + 0.1)
    assert first.columns == 5 + context + 4
    assert second.columns == 5 + 2 * context + 4


def test_without_a_prior_the_first_stage_reads_the_planes_alone():
    planes = torch.rand(2, 5, 16, 16)
    model = Column(3)
    torch.testing.assert_close(run_cascade([Stage(16, model)], shared({16: planes})), planes[:, 3:4])
    assert model.columns == 5


def test_a_stage_reads_what_it_would_if_it_were_alone():
    """Room that another stage of the same grid wrote in before leaves no trace."""
    planes, prior = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    seen = []

    class Spy(Column):
        def of_rows(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(rows.clone())
            return super().of_rows(rows)

    run_cascade([Stage(8, Spy(3, scale=0.5))] * 3, shared({8: planes}, prior))
    maps = [prior, prior / 2, prior / 2]  # column 3 is the older of the two latest, where the pixel is
    for number, rows in enumerate(seen, start=1):
        expected = as_rows(torch.cat([planes, believed(maps[:number], 8)], 1))
        torch.testing.assert_close(rows, expected)
