"""The figures: all made, the same bytes again, left out without data, and what they call right or wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from lungseg.report.figures.accuracy_time import draw_accuracy_time
from lungseg.report.figures.all import FIGURES, SHOWS_IMAGES, draw_figures
from lungseg.report.figures.images import _choose_cases, _rank_images, _stretch, _tint_areas
from lungseg.report.figures.stored import read_prediction
from lungseg.report.figures.style import (
    AGREES,
    FALSE,
    MISSED,
    assign_colours,
    darken,
    make_figure,
    set_dice_scale,
    use_house_style,
    wrap_name,
)
from lungseg.results import read_table, write_table
from lungseg.system.errors import InputError
from tests.report.results_directory import IDS, read_edited, save_grey

UNGROUPED = set(FIGURES) - {"ablation"}  # what results without groups have


def find_drawn(results: Path, lay_out: bool = True) -> set[str]:
    """Return the stems of the figures that can be drawn. They are not stored, which takes longest."""
    contents = read_edited(results)
    with use_house_style():
        figures = {stem: draw(contents) for stem, draw in FIGURES.items()}
        for figure in figures.values():
            if figure is not None and lay_out:
                figure.draw_without_rendering()
    return {stem for stem, figure in figures.items() if figure is not None}


def test_all_figures_in_both_formats_and_the_same_bytes_again(reported: Path, results: Path) -> None:
    first = {path.name: path.read_bytes() for path in (reported / "figures").iterdir()}
    assert set(first) == {f"{stem}.{kind}" for stem in UNGROUPED for kind in ("png", "pdf")}
    assert b"CreationDate" not in b"".join(first.values())
    for path in (reported / "figures").glob("*.png"):
        with Image.open(path) as image:
            width, height = image.size
        assert width <= 7.2 * 200
        assert height <= 9.5 * 200
    before = dict(matplotlib.rcParams)
    assert {path.name: path.read_bytes() for path in draw_figures(read_edited(results))} == first
    assert dict(matplotlib.rcParams) == before


def test_what_shows_x_rays_is_named() -> None:
    assert {"samples", "feature-maps", "cases"} == SHOWS_IMAGES
    assert set(FIGURES) > SHOWS_IMAGES


def test_without_stored_pictures_the_plots_are_still_made(results: Path) -> None:
    shutil.rmtree(results / "predictions")
    assert find_drawn(results) == UNGROUPED - SHOWS_IMAGES


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        ("history", {"curves"}),
        ("timings", {"accuracy-time", "throughput", "stages"}),
        ("calibration", {"reliability"}),
        ("importance", {"importance"}),
        (
            "statistics",
            {
                "dice",
                "dice-violins",
                "accuracy-time",
                "cases",
                "differences",
                "critical-difference",
                "stages",
            },
        ),
    ],
)
def test_without_a_table_its_figure_is_left_out(results: Path, table: str, lost: set[str]) -> None:
    (results / f"{table}.csv").unlink()
    assert find_drawn(results, lay_out=table == "statistics") == UNGROUPED - lost


def test_one_image_one_seed_and_no_interval_can_be_drawn(results: Path) -> None:
    scores = read_table(results, "scores")
    write_table(
        results / "scores.csv", "scores", scores[(scores["image_id"] == IDS[0]) & (scores["seed"] == 0)]
    )
    statistics = read_table(results, "statistics").assign(low=np.nan, high=np.nan)
    write_table(results / "statistics.csv", "statistics", statistics)
    assert find_drawn(results) == UNGROUPED


def test_perfect_and_failed_images_can_be_drawn(results: Path) -> None:
    scores = read_table(results, "scores")
    scores.loc[scores["approach"] == "good_net", "dice"] = 1.0
    scores.loc[scores["approach"] == "mean-mask", "dice"] = 0.0
    write_table(results / "scores.csv", "scores", scores)
    assert "dice" in find_drawn(results)


def test_a_damaged_picture_is_one_sentence_that_names_it(results: Path) -> None:
    (results / "predictions/images/img_0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"img_0\.png"):
        draw_figures(read_edited(results))


def test_areas_have_the_colours_of_the_legend() -> None:
    truth, mask = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    picture = _tint_areas(np.full((1, 4), 0.5, np.float32), truth, mask)[0]
    for pixel, colour, strength in zip(picture[:3], (AGREES, MISSED, FALSE), (0.35, 0.8, 0.8), strict=True):
        assert pixel == pytest.approx((1 - strength) * 0.5 + strength * np.array(to_rgb(colour)), abs=1e-6)
    assert picture[3] == pytest.approx([0.5, 0.5, 0.5])


def test_cases_are_ranked_without_the_baselines(results: Path) -> None:
    scores = read_table(results, "scores")
    scores.loc[(scores["approach"] == "mean-mask") & (scores["image_id"] == "img_1"), "dice"] = 1.0
    write_table(results / "scores.csv", "scores", scores)
    contents = read_edited(results)
    # Learned approaches: img_0 and img_5 0.875, img_2 and img_3 0.825, img_1 and img_4 0.775, each less 0.01.
    ranked = _rank_images(contents)
    assert ranked["img_1"] == pytest.approx(0.765)
    shown = _choose_cases(contents, ranked, ["pixels"])
    assert [image_id for _, image_id in shown] == ["img_0", "img_2", "img_4"]
    assert [label for label, _ in shown] == ["best\n1 of 6", "median\n3 of 6", "worst\n6 of 6"]


def test_a_prediction_has_the_score_of_its_own_seed_and_threshold(results: Path) -> None:
    save_grey(results / "predictions/maps/pixels/f0-s0/img_1.png", np.array([[127, 128]]))
    prediction = read_prediction(read_edited(results), "pixels", "img_1", (1, 2))
    assert prediction.mask.tolist() == [[False, True]]
    assert prediction.dice == pytest.approx(0.70)


def test_constant_sparse_and_infinite_feature_maps_are_shown() -> None:
    assert _stretch(np.full((4, 4), 3.0)).tolist() == np.full((4, 4), 0.5).tolist()
    sparse = np.zeros((20, 20))
    sparse[3, 3] = 7
    assert _stretch(sparse)[3, 3] == 1
    broken = np.array([[0.0, 1.0], [np.inf, np.nan]])
    assert np.isfinite(_stretch(broken)).all()


def test_labels_of_equal_points_do_not_overlap(results: Path) -> None:
    statistics = read_table(results, "statistics")
    write_table(results / "statistics.csv", "statistics", statistics.assign(value=0.9, low=0.88, high=0.92))
    timings = read_table(results, "timings").assign(median_ms=10.0)
    write_table(results / "timings.csv", "timings", timings)
    with use_house_style():
        figure = draw_accuracy_time(read_edited(results))
        boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in figure.axes[0].texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])


def test_an_approach_keeps_its_colour_when_another_one_has_no_results() -> None:
    palette = assign_colours(["mean-mask", "a", "b", "c"], {"mean-mask"})
    assert len(set(palette.values())) == 4
    assert palette["b"] == assign_colours(["a", "b"], set())["b"]


def test_text_in_a_pale_colour_is_darkened() -> None:
    assert sum(darken("#F0E442")) < sum(to_rgb("#F0E442"))
    assert darken("#000000") == (0, 0, 0)


@pytest.mark.parametrize(("low", "high"), [(0.955, 0.965), (0.0, 1.0), (0.99, 0.9999), (0.7, 0.7)])
def test_a_dice_axis_always_has_ticks_in_order(low: float, high: float) -> None:
    with use_house_style():
        axes = make_figure(3, 3).subplots()
        set_dice_scale(axes, "x", [low, high])
    start, end = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if start <= tick <= end]
    assert len(ticks) >= 3
    assert ticks == sorted(set(ticks))
    assert start < low <= min(high, 0.999) < end


def test_long_names_break_after_hyphens() -> None:
    assert wrap_name("vgg19-hist-gradient-boosting-48", 12) == "vgg19-hist-\ngradient-\nboosting-48"
    assert wrap_name("a_b", 20) == "a_b"
