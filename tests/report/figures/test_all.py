"""The figures: all made, the same bytes again, left out without data, and what they call right or wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lungseg.report.contents import read_contents
from lungseg.report.figures.accuracy_time import draw_accuracy_time
from lungseg.report.figures.all import FIGURES, SHOWS_IMAGES, draw_figures
from lungseg.report.figures.style import (
    AGREES,
    FALSE,
    FURTHER,
    KNOWN_COLOURS,
    MISSED,
    OUTLINE,
    PALETTE,
    assign_colours,
    darken,
    lay_out_figure,
    make_figure,
    render_figure,
    set_dice_scale,
    set_difference_scale,
    use_house_style,
    wrap_name,
)
from lungseg.report.figures.xrays.cases import (
    _choose_cases,
    _find_own_worst,
    _rank_images,
    _tint_areas,
    draw_cases,
)
from lungseg.report.figures.xrays.drawing import stretch
from lungseg.report.figures.xrays.feature_maps import _choose_features, _write_maps_title
from lungseg.report.figures.xrays.stored import read_prediction
from lungseg.results import read_table, write_table
from lungseg.system.errors import InputError
from tests.report.results_directory import IDS, read_edited, save_grey

Drawn = dict[str, Figure]
# What the six images of the synthetic results give: no groups, one training set of one size, too few images
# for violins and too few batch sizes for a curve.
DRAWN = set(FIGURES) - {"ablation", "dice-violins", "throughput", "transfer", "learning"}
OF_DICE = {"cases", "dice", "accuracy-time", "differences", "critical-difference", "rank-stability"}


def find_drawn(results: Path, stems: set[str] = DRAWN, lay_out: bool = True) -> set[str]:
    """Return which of the figures can be drawn. They are not stored, which takes longest."""
    contents = read_edited(results)
    with use_house_style():
        figures = {stem: FIGURES[stem](contents) for stem in stems}
        for stem, figure in figures.items():
            if figure is not None and lay_out and stem not in SHOWS_IMAGES:
                lay_out_figure(figure)
    return {stem for stem, figure in figures.items() if figure is not None}


def test_figures_are_written_in_both_formats(
    drawn: Drawn, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One with pictures, lines and text, for a PDF takes longest, and one without data.
    chosen = {stem: FIGURES[stem] for stem in ("samples", "ablation")}
    monkeypatch.setattr("lungseg.report.figures.all.FIGURES", chosen)
    before = dict(matplotlib.rcParams)
    paths = draw_figures(read_edited(results))
    assert dict(matplotlib.rcParams) == before
    assert paths == [results / "figures/samples.png", results / "figures/samples.pdf"]
    assert b"CreationDate" not in paths[1].read_bytes()
    with use_house_style():
        for path in paths:
            assert path.read_bytes() == render_figure(drawn["samples"], path.suffix[1:])


def test_a_figure_that_is_not_drawn_any_more_is_removed(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {stem: lambda _: None for stem in ("dice", "samples", "throughput")}
    monkeypatch.setattr("lungseg.report.figures.all.FIGURES", chosen)
    (results / "figures").mkdir()
    old = ["dice.pdf", "dice.png", "mine.png", "samples.pdf", "samples.png"]
    for name in old:
        (results / "figures" / name).write_bytes(b"old")
    hidden = (results / "predictions").rename(results / "elsewhere")
    # A published result lacks the pictures: what shows them can't be drawn again and stays.
    assert draw_figures(read_edited(results)) == []
    assert sorted(path.name for path in (results / "figures").iterdir()) == old[2:]
    hidden.rename(results / "predictions")
    draw_figures(read_edited(results))
    assert [path.name for path in (results / "figures").iterdir()] == ["mine.png"]


def require_same_pixels(first: Figure, second: Figure) -> None:
    with use_house_style():
        lay_out_figure(second)
        for figure in (first, second):
            figure.canvas.draw()
    assert np.array_equal(first.canvas.buffer_rgba(), second.canvas.buffer_rgba())


def test_pictures_fit_on_a_page_and_have_the_same_pixels_again(drawn: Drawn, written: Path) -> None:
    assert set(drawn) == DRAWN
    contents = read_contents(written)
    for stem in SHOWS_IMAGES:
        with use_house_style():
            second = FIGURES[stem](contents)
        require_same_pixels(drawn[stem], second)
    for figure in drawn.values():
        width, height = figure.get_size_inches()
        assert width <= 7.2
        assert height <= 9.5


def test_without_stored_pictures_the_plots_have_the_same_pixels(drawn: Drawn, results: Path) -> None:
    shutil.rmtree(results / "predictions")
    contents = read_edited(results)
    for stem in DRAWN:
        with use_house_style():
            second = FIGURES[stem](contents)
        assert (second is None) == (stem in SHOWS_IMAGES)
        if second is not None:
            require_same_pixels(drawn[stem], second)


def test_what_shows_x_rays_is_named() -> None:
    assert {"samples", "feature-maps", "cases"} <= SHOWS_IMAGES
    assert set(FIGURES) > SHOWS_IMAGES


@pytest.mark.parametrize(
    ("table", "lost"),
    [
        ("history", {"curves"}),
        ("timings", {"accuracy-time", "stages"}),
        ("calibration", {"reliability"}),
        ("importance", {"importance"}),
    ],
)
def test_without_a_table_its_figure_is_left_out(results: Path, table: str, lost: set[str]) -> None:
    (results / f"{table}.csv").unlink()
    others = {"curves", "reliability"} - lost
    assert find_drawn(results, lost | others, lay_out=False) == others


def test_without_all_such_tables_the_rest_is_drawn(results: Path) -> None:
    for table in ("history", "training", "timings", "calibration", "importance"):
        (results / f"{table}.csv").unlink()
    # Those of stored pictures alone read none of these.
    stems = DRAWN - {"samples", "cases", "stage-maps"}
    lost = {"curves", "accuracy-time", "stages", "reliability", "importance"}
    assert find_drawn(results, stems, lay_out=False) == stems - lost


def test_without_statistics_what_needs_no_ranking_is_still_drawn(results: Path) -> None:
    (results / "statistics.csv").unlink()
    assert find_drawn(results) == DRAWN - {*OF_DICE, "stages"}


def test_one_image_one_seed_and_no_interval_can_be_drawn(results: Path) -> None:
    scores = read_table(results, "scores")
    write_table(
        results / "scores.csv", "scores", scores[(scores["image_id"] == IDS[0]) & (scores["seed"] == 0)]
    )
    statistics = read_table(results, "statistics").assign(low=np.nan, high=np.nan)
    write_table(results / "statistics.csv", "statistics", statistics)
    stems = {*OF_DICE, "samples", "lung-area"}
    assert find_drawn(results, stems) == stems


def test_perfect_and_failed_images_can_be_drawn(results: Path) -> None:
    scores = read_table(results, "scores")
    scores.loc[scores["approach"] == "good_net", "dice"] = 1.0
    scores.loc[scores["approach"] == "mean-mask", "dice"] = 0.0
    write_table(results / "scores.csv", "scores", scores)
    assert find_drawn(results, OF_DICE - {"cases"}) == OF_DICE - {"cases"}


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


def test_the_last_row_of_cases_has_the_worst_image_of_each_approach(results: Path) -> None:
    scores = read_table(results, "scores")
    worst = {"mean-mask": ("img_3", 0.125), "pixels": ("img_5", 0.25), "good_net": ("img_0", 0.375)}
    for name, (image_id, dice) in worst.items():
        first = (scores["approach"] == name) & (scores["image_id"] == image_id) & (scores["seed"] == 0)
        scores.loc[first, "dice"] = dice
    # Only maps of seed 0 are stored: a failure of seed 1 can't be shown.
    scores.loc[(scores["seed"] == 1) & (scores["image_id"] == "img_2"), "dice"] = 0.0
    write_table(results / "scores.csv", "scores", scores)
    contents = read_edited(results)
    assert {name: _find_own_worst(contents, name) for name in worst} == {n: i for n, (i, _) in worst.items()}
    with use_house_style():
        figure = draw_cases(contents)
    row = figure.axes[-5:]
    assert row[0].get_ylabel() == "own worst"
    assert [axes.get_xlabel() for axes in row[2:]] == ["0.125\nimg_3", "0.250\nimg_5", "0.375\nimg_0"]
    assert figure.get_suptitle().startswith(
        "Best, median and worst image by the mean Dice of the approaches shown, ranked without baselines\n"
    )


def test_feature_maps_are_sorted_by_importance_if_it_is_known_for_each(results: Path) -> None:
    contents = read_edited(results)
    name, _, maps, order = _choose_features(contents)
    # Five maps, of which importance.csv has three.
    assert (name, order.tolist()) == ("pixels", [0, 1, 2, 3, 4])
    assert _write_maps_title(contents, name, maps, order).startswith(
        "pixels: 5 feature maps, 48 × 56 pixels, random weights\nwith their channel numbers, in their order"
    )
    shares = {0: 0.1, 1: 0.4, 2: 0.0, 3: 0.3, 4: 0.2}
    rows = [
        {"approach": "pixels", "fold": 0, "seed": 0, "stage": "s", "column": f"relu1_2:{c}", "share": share}
        for c, share in shares.items()
    ]
    write_table(results / "importance.csv", "importance", rows)
    contents = read_edited(results)
    name, _, maps, order = _choose_features(contents)
    assert order.tolist() == [1, 3, 4, 0, 2]
    assert "most important first" in _write_maps_title(contents, name, maps, order)
    with use_house_style():
        panel = FIGURES["feature-maps"](contents).axes[-1]
    assert [text.get_text() for text in panel.texts] == ["1", "3", "4", "0", "2"]


def test_a_prediction_has_the_score_of_its_own_seed_and_threshold(results: Path) -> None:
    save_grey(results / "predictions/maps/pixels/f0-s0/img_1.png", np.array([[127, 128]]))
    prediction = read_prediction(read_edited(results), "pixels", "img_1", (1, 2))
    assert prediction.mask.tolist() == [[False, True]]
    assert prediction.dice == pytest.approx(0.70)


def test_constant_sparse_and_infinite_feature_maps_are_shown() -> None:
    assert stretch(np.full((4, 4), 3.0)).tolist() == np.full((4, 4), 0.5).tolist()
    sparse = np.zeros((20, 20))
    sparse[3, 3] = 7
    assert stretch(sparse)[3, 3] == 1
    broken = np.array([[0.0, 1.0], [np.inf, np.nan]])
    assert np.isfinite(stretch(broken)).all()


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


def colour(*entries: tuple[str, str, dict[str, str]]) -> dict[str, str]:
    """Return the colours of approaches given as (name, use, settings)."""
    rows = [{"name": name, "use": use, "settings": settings} for name, use, settings in entries]
    names = [name for name, _, _ in entries]
    return assign_colours(SimpleNamespace(run={"approaches": rows}, names=names, file_names={}))


def test_a_colour_belongs_to_what_an_approach_is_and_not_to_its_place() -> None:
    entries = [
        ("a", "vgg19-pixels", {"regressor": "lightgbm"}),
        ("b", "vgg19-pixels", {"regressor": "ridge"}),
        ("c", "vgg19-context", {"regressor": "ridge"}),
        ("d", "deeplabv3plus-resnet50", {}),
        ("e", "some.module:Net", {}),
        ("f", "other.module:Net", {}),
        ("g", "mean-mask", {}),
        ("tool 10", "masks", {}),
        ("h", "benchmarks.peers.smp:SmpUnet", {}),
    ]
    palette = colour(*entries)
    assert palette == colour(*reversed(entries))
    assert len(set(palette.values())) == len(entries)
    alone = {entry[0]: colour(entry)[entry[0]] for entry in entries}
    # By the first four bytes of SHA-256, both Nets are of the second colour: the later one takes the next.
    assert (alone.pop("e"), alone["f"], alone["tool 10"]) == (FURTHER[1], FURTHER[1], FURTHER[3])
    assert palette == alone | {"e": FURTHER[2]}
    assert palette["d"] == colour(entries[3])["d"] == KNOWN_COLOURS["deeplabv3plus-resnet50"]
    assert palette["c"] == colour(("c", "vgg19-context", {"regressor": "lightgbm"}))["c"]


def test_several_of_the_same_get_tones_of_one_colour_in_the_order_of_their_names() -> None:
    entries = [(f"net-{size}", "deeplabv3plus-resnet50", {}) for size in (512, 64, 128)]
    palette = colour(*entries)
    tones = [np.array(to_rgb(palette[f"net-{size}"])) for size in (64, 128, 512)]
    base = np.array(to_rgb(KNOWN_COLOURS["deeplabv3plus-resnet50"]))
    for tone, factor in zip(tones, (1, 0.7, 0.4), strict=True):
        assert tone == pytest.approx(factor * base, abs=1 / 255)


def test_folders_of_masks_have_colours_of_their_own_and_more_than_there_are_get_tones() -> None:
    names = [f"tool {number}" for number in range(len(FURTHER) + 1)]
    palette = colour(*((name, "masks", {}) for name in names))
    assert len(set(palette.values())) == len(names)
    # The first ones in alphabetical order share what there is, the last one has a tone.
    assert {palette[name] for name in names} > set(FURTHER)


def compute_contrast(one: str, other: str) -> float:
    """Compute the contrast ratio of two colours as WCAG 2 does."""
    parts = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(parts > 0.04045, ((parts + 0.055) / 1.055) ** 2.4, parts / 12.92)
    low, high = sorted(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return high / low


def test_lines_can_be_seen_on_white_and_areas_on_an_x_ray_told_apart() -> None:
    assert compute_contrast("#000000", "#FFFFFF") == pytest.approx(21)
    colours = {*PALETTE, *FURTHER, *KNOWN_COLOURS.values()}
    assert min(compute_contrast(colour, "#FFFFFF") for colour in colours) >= 3
    assert len({AGREES, FALSE, MISSED, OUTLINE}) == 4
    assert not {AGREES, FALSE, MISSED, OUTLINE} & colours


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


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.002, -0.004], ["−0.004", "−0.002", "0", "+0.002"]),
        ([0.002, 0.25], ["0", "+0.01", "+0.1"]),
        ([-0.03, 0.04], ["−0.1", "−0.01", "0", "+0.01", "+0.1"]),
        ([-0.2, 0.25], ["−0.1", "−0.01", "0", "+0.01", "+0.1"]),
    ],
)
def test_differences_have_few_ticks_with_a_sign(values: list[float], ticks: list[str]) -> None:
    with use_house_style():
        figure = make_figure(3, 3)
        axes = figure.subplots()
        scale = set_difference_scale(axes, [*values, float("nan")])
        figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert low < min(values) <= max(values) < high
    shown = [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert shown == ticks
    assert bool(scale) == (max(values) > 0.02)


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("vgg19-hist-gradient-boosting-48", 12, ["vgg19-hist-", "gradient-", "boosting-48"]),
        ("a_b", 20, ["a_b"]),
        ("A · Pixels, LightGBM, 48 px", 12, ["A · Pixels,", "LightGBM,", "48 px"]),
        ("B · DeepLabV3+, 256 px", 8, ["B · DeepLabV3+,", "256 px"]),
        ("A · Pixels + context", 9, ["A · Pixels", "+ context"]),
        ("U-Net++ (smp)", 6, ["U-Net++", "(smp)"]),
        ("128-then-256-pixels", 8, ["128-then-", "256-pixels"]),
        ("vgg19-lightgbm-48", 10, ["vgg19-", "lightgbm-48"]),
    ],
)
def test_long_names_break_between_words_and_never_before_a_unit(
    name: str, width: int, lines: list[str]
) -> None:
    assert wrap_name(name, width).splitlines() == lines
