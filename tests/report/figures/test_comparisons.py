"""The figures that compare approaches hold the numbers of the tables, and what can be worked out by hand."""

from __future__ import annotations

import shutil
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from lungseg.report.contents import Contents, read_contents
from lungseg.report.figures.all import FIGURES
from lungseg.report.figures.calibration import collect_areas, collect_reliability
from lungseg.report.figures.ranks import draw_blobs, join_groups
from lungseg.report.figures.style import (
    DOUBLE,
    FURTHER,
    KNOWN_COLOURS,
    SINGLE,
    assign_colours,
    lay_out_figure,
    use_house_style,
)
from lungseg.report.numbers.ranks import RankStability
from lungseg.results import read_table, write_table
from lungseg.system.files import write_json
from tests.report.results_directory import approach_record, read_edited, run_record
from tests.report.results_tables import DICE, IDS, RANKS

Drawn = dict[str, Figure]
WIDTHS = {
    "differences": SINGLE,
    "dice-violins": SINGLE,
    "critical-difference": SINGLE,
    "rank-stability": SINGLE,
    "lung-area": SINGLE,
    "reliability": DOUBLE,
    "throughput": SINGLE,
    "stages": DOUBLE,
    "curves": DOUBLE,
}


def draw(results: Path, stem: str, lay_out: bool = False) -> Figure:
    """Draw a figure; to `lay_out` it at its final size takes longer, and is only needed for places."""
    with use_house_style():
        figure = FIGURES[stem](read_edited(results))
        if lay_out:
            lay_out_figure(figure)
    return figure


def change(results: Path, table: str, rows: pd.DataFrame) -> None:
    write_table(results / f"{table}.csv", table, rows)


def add_images(results: Path) -> None:
    """Score 24 images: each of the six of the synthetic results four times."""
    scores = read_table(results, "scores")
    copies = [scores.assign(image_id=scores["image_id"] + f"-{copy}") for copy in "abc"]
    change(results, "scores", pd.concat([scores, *copies]))


def add_batch_size(results: Path) -> None:
    """Time batches of 16, too, each as fast as batches of 8."""
    timings = read_table(results, "timings")
    change(
        results, "timings", pd.concat([timings, timings[timings["batch_size"] == 8].assign(batch_size=16)])
    )


def labels(axes: Axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_pair_stands_under_its_better_approach_with_its_difference_turned_that_way(drawn: Drawn) -> None:
    axes = drawn["differences"].axes[0]
    assert labels(axes) == ["good_net minus", "pixels", "mean-mask", "pixels minus", "mean-mask"]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([0.15, 0.40, 0.25])
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() == "None"]
    # mean-mask minus pixels is stored as -0.25 [-0.30, 0.05].
    assert any(np.allclose(span, [-0.05, 0.30]) for span in spans)
    assert min(axes.get_xlim()) < -0.05 < 0 < 0.45 < max(axes.get_xlim())


def test_only_what_is_distinguishable_after_holm_is_filled(drawn: Drawn) -> None:
    axes = drawn["differences"].axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [same_color(line.get_markerfacecolor(), "white") for line in points] == [False, False, True]


def test_a_p_value_of_just_the_level_is_distinguishable_as_in_the_tables(results: Path) -> None:
    statistics = read_table(results, "statistics")
    for p_value, filled in ((0.05, True), (0.0501, False)):
        tested = statistics["p_holm"].notna()
        change(results, "statistics", statistics.assign(p_holm=statistics["p_holm"].mask(tested, p_value)))
        axes = draw(results, "differences").axes[0]
        points = [line for line in axes.lines if line.get_marker() == "o"]
        assert [not same_color(line.get_markerfacecolor(), "white") for line in points] == [filled] * 3


def test_a_band_holds_negligible_differences(drawn: Drawn) -> None:
    figure = drawn["differences"]
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.005, 0.005))
    assert legend(figure)[-1] == "negligible: within ±0.005"


def test_of_many_approaches_each_is_compared_with_the_best_and_with_the_baseline(results: Path) -> None:
    names = ["mean-mask", *(f"approach-with-quite-a-long-name-{number}" for number in range(7))]
    # Dice 0.6 for the baseline; 0.80, 0.75, ... 0.50 for the others.
    dice = dict(zip(names, (0.6, *(0.8 - 0.05 * place for place in range(7))), strict=True))
    means = [{"approach": name, "kind": "mean", "value": value} for name, value in dice.items()]
    pairs = [
        {"approach": one, "other": other, "kind": "paired", "value": dice[one] - dice[other], "p_holm": 0.01}
        for one, other in combinations(names, 2)
    ]
    rows = pd.DataFrame([*means, *pairs]).assign(dataset="made-up", metric="dice", n=141)
    rows = rows.assign(low=rows["value"] - 0.01, high=rows["value"] + 0.01)
    change(results, "statistics", rows)
    uses = [approach_record(name, name if name == "mean-mask" else "x") for name in names]
    write_json(results / "run.json", {**run_record(), "approaches": uses})
    axes = draw(results, "differences", lay_out=True).axes[0]
    texts = [text.replace("\n", "") for text in labels(axes)]
    assert texts[0] == f"{names[1]} minus"
    assert [text.rpartition("-")[2] for text in texts[1:8]] == ["1", "2", "3", "mask", "4", "5", "6"]
    assert texts[8] == "Each minus mean-mask"
    assert [text.rpartition("-")[2] for text in texts[9:]] == ["1", "2", "3", "4", "5", "6"]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == pytest.approx(
        [0.05, 0.1, 0.15, 0.2, 0.2, 0.25, 0.3, 0.15, 0.1, 0.05, 0, -0.05, -0.1], abs=1e-9
    )
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_every_image_is_joined_between_neighbours_and_reversals_are_marked(results: Path) -> None:
    add_images(results)
    scores = read_table(results, "scores")
    scores.loc[(scores["approach"] == "mean-mask") & (scores["image_id"] == "img_1"), "dice"] = 0.95
    change(results, "scores", scores)
    axes = draw(results, "dice-violins").axes[0]
    assert labels(axes) == ["good_net", "pixels", "mean-mask"]
    lines = [
        group for group in axes.collections if hasattr(group, "get_segments") and group.get_zorder() == 1
    ]
    # Between good_net and pixels no image is reversed, between pixels and mean-mask img_1 alone is.
    assert [len(group.get_segments()) for group in lines] == [24, 0, 23, 1]
    ends = lines[3].get_segments()[0]
    assert ends[:, 0] == pytest.approx([0.69, 0.95])
    assert ends[0, 1] < ends[1, 1]


def test_under_20_images_there_are_no_violins(results: Path) -> None:
    assert FIGURES["dice-violins"](read_edited(results)) is None


def test_the_dot_of_a_violin_is_the_median(results: Path) -> None:
    add_images(results)
    axes = draw(results, "dice-violins").axes[0]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([np.median(values) - 0.01 for values in DICE.values()])


def test_at_most_six_violins_the_best(results: Path) -> None:
    add_images(results)
    scores, statistics = read_table(results, "scores"), read_table(results, "statistics")
    more = {f"more_{number}": 0.8 + 0.01 * number for number in range(5)}
    one = scores[scores["approach"] == "pixels"]
    change(results, "scores", pd.concat([scores, *(one.assign(approach=name) for name in more)]))
    row = statistics[(statistics["approach"] == "pixels") & (statistics["kind"] == "mean")]
    added = [row.assign(approach=name, value=value) for name, value in more.items()]
    change(results, "statistics", pd.concat([statistics, *added]))
    record = run_record()
    write_json(
        results / "run.json", {**record, "approaches": [*record["approaches"], *map(approach_record, more)]}
    )
    figure = draw(results, "dice-violins")
    assert labels(figure.axes[0]) == ["good_net", *reversed(more)]
    assert figure.legends[0].get_title().get_text() == "Best 6 of 8 approaches"
    assert figure.axes[0].get_xlabel().endswith("24 test images")


@pytest.mark.parametrize(
    ("ranks", "distance", "groups"),
    [
        ([1.0, 2.25, 2.75], 1.0, [(2.25, 2.75)]),
        ([1.0, 1.5, 2.0, 2.5], 1.01, [(1.0, 2.0), (1.5, 2.5)]),
        ([1.0, 1.5, 2.0, 2.5], 9.0, [(1.0, 2.5)]),
        ([1.0, 2.0, 3.0], 1.0, []),  # ranks that differ by just the critical difference are not joined
        ([1.5, 1.5, 3.0], 1.0, [(1.5, 1.5)]),
    ],
)
def test_groups_are_the_largest_runs_within_the_critical_difference(
    ranks: list[float], distance: float, groups: list[tuple[float, float]]
) -> None:
    assert join_groups(ranks, distance) == groups


def test_the_diagram_joins_what_is_not_distinguishable_and_shows_the_critical_difference(
    drawn: Drawn,
) -> None:
    axes = drawn["critical-difference"].axes[0]
    assert labels(axes) == [f"{name}  {rank:.2f}" for name, rank in RANKS.items()]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() > 2]
    assert len(bars) == 1
    assert bars[0] == pytest.approx([2.25 - 0.04, 2.75 + 0.04])
    scale = next(line for line in axes.lines if line.get_marker() == "|")
    assert np.ptp(scale.get_xdata()) == pytest.approx(1.0)


def test_the_area_of_a_blob_is_the_share_of_samples_with_that_rank() -> None:
    found = RankStability(
        names=["a", "b", "c"],
        rank=np.array([1.0, 2.0, 3.0]),
        shares=np.array([[0.75, 0.25, 0.0], [0.25, 0.5, 0.25], [0.0, 0.25, 0.75]]),
        median=np.array([1.0, 2.0, 3.0]),
        low=np.array([1.0, 1.0, 2.0]),
        high=np.array([2.0, 3.0, 3.0]),
        tau=(0.9, 0.33, 1.0),
        samples=2000,
        n=24,
    )
    with use_house_style():
        figure = draw_blobs(found, {"a": "#0072B2", "b": "#D55E00", "c": "#009E73"})
    axes = figure.axes[0]
    assert labels(axes) == ["a", "b", "c"]
    places = [group.get_offsets().tolist() for group in axes.collections]
    assert places == [[[1, 0], [2, 0]], [[1, 1], [2, 1], [3, 1]], [[2, 2], [3, 2]]]
    areas = np.concatenate([group.get_sizes() for group in axes.collections])
    assert areas / areas.max() == pytest.approx(np.array([3, 1, 1, 2, 1, 1, 3]) / 3)
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(1, 0), (2, 1), (3, 2)]
    spans = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert spans == [[1, 2], [1, 3], [2, 3]]
    assert figure.get_suptitle() == (
        "Ranks in 2,000 bootstrap samples of the patients (n = 24)\n"
        "Kendall's τ with the order of the rows: 0.90 [0.33, 1.00]"
    )
    # The blob of the legend that stands for all samples is as large as one of the plot would be.
    whole = next(h for h in figure.legends[0].legend_handles if h.get_label() == "100 %")
    assert whole.get_markersize() ** 2 == pytest.approx(areas.max() / 0.75)


def test_fewer_than_three_approaches_have_no_stable_ranks(results: Path) -> None:
    statistics = read_table(results, "statistics")
    kinds = ["rank", "friedman", "critical-difference"]
    change(results, "statistics", statistics[~statistics["kind"].isin(kinds)])
    assert FIGURES["rank-stability"](read_edited(results)) is None


def test_lung_area_has_the_bias_and_limits_of_agreement_of_its_counts(drawn: Drawn) -> None:
    figure = drawn["lung-area"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["good_net", "pixels"]
    assert figure.get_suptitle() == "Best 2 of 3 approaches, baselines left out"
    # good_net: 0, 1, 0, 1, 0, 1 % of 10,000 pixels too large, in seed 1 0.2 % more: 0.1, 1.1, ... of both.
    bias, spread = 0.6, 1.96 * np.sqrt(6 * 0.5**2 / 5)
    heights = sorted(line.get_ydata()[0] for line in figure.axes[0].lines)
    assert heights == pytest.approx(sorted([0, bias, bias - spread, bias + spread]))
    assert figure.axes[0].texts[0].get_text() == ("bias +0.600 % of the image\nlimits −0.474 %, +1.67 %")


def test_areas_are_shares_of_the_image_with_seeds_averaged(results: Path) -> None:
    areas = collect_areas(read_table(results, "scores"))
    assert len(areas) == 3 * len(IDS)
    good = areas[areas["approach"] == "good_net"]
    # img_0: 20 % true, 20 and 20.2 % predicted; img_1: 21 % true, 22 and 22.2 % predicted.
    assert good["mean"].tolist()[:2] == pytest.approx([20.05, 21.55])
    assert good["difference"].tolist()[:2] == pytest.approx([0.1, 1.1])


def test_without_counts_there_is_no_figure_of_areas(results: Path) -> None:
    change(results, "scores", read_table(results, "scores").drop(columns=["tp", "fp", "fn", "tn"]))
    assert FIGURES["lung-area"](read_edited(results)) is None


def test_reliability_puts_seeds_together_and_leaves_out_empty_bins(drawn: Drawn, written: Path) -> None:
    figure = drawn["reliability"]
    bins = collect_reliability(read_table(written, "calibration"))
    assert bins[bins["approach"] == "pixels"]["count"].tolist() == [1800, 300, 900]
    line = figure.axes[0].lines[1]
    assert line.get_xdata() == pytest.approx([0.1, 0.3, 0.9])
    assert line.get_ydata() == pytest.approx([0.1, 0.3, 0.8])
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([60, 10, 30])
    # good_net: 0.1 off in 30 % of the pixels; pixels: 0.1 off in all of them.
    assert legend(figure) == ["good_net: ECE 3.0 %", "pixels: ECE 10.0 %"]


def test_bins_of_less_than_a_thousandth_of_an_approachs_pixels_are_not_drawn(results: Path) -> None:
    calibration = read_table(results, "calibration")
    rare = (calibration["approach"] == "pixels") & (calibration["bin"] == 1)
    # Of 1,800 + 900 pixels and 2 x 1 or 2 x 2 in both seeds: 2 of 2,702 is 0.07 %, 4 of 2,704 is 0.15 %.
    for count, shown in ((1, [0.1, 0.9]), (2, [0.1, 0.3, 0.9])):
        calibration.loc[rare, "count"] = count
        change(results, "calibration", calibration)
        lines = draw(results, "reliability").axes[0].lines
        assert lines[2].get_xdata() == pytest.approx(shown)
        assert lines[1].get_xdata() == pytest.approx([0.1, 0.3, 0.9])  # the other approach


def test_bins_of_unequal_weight_are_weighted_by_their_pixels() -> None:
    key = {"approach": "a", "bin": 0}
    bins = collect_reliability(
        pd.DataFrame(
            [
                {**key, "count": 300, "mean_probability": 0.1, "lung_share": 0.0},
                {**key, "count": 100, "mean_probability": 0.5, "lung_share": 0.4},
            ]
        )
    )
    assert bins[["count", "mean_probability", "lung_share"]].to_numpy().tolist() == [
        [400, pytest.approx(0.2), pytest.approx(0.1)]
    ]


def test_throughput_has_a_panel_per_device_a_marker_per_approach_and_a_style_per_setting(
    results: Path,
) -> None:
    add_batch_size(results)
    figure = draw(results, "throughput")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CPU", "CUDA"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]
    palette = assign_colours(read_edited(results))
    drawn = [line for line in figure.axes[1].lines if same_color(line.get_color(), palette["good_net"])]
    assert len({line.get_linestyle() for line in drawn}) == 2
    assert len({line.get_marker() for line in drawn}) == 1
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 2
    # good_net takes 21.75 ms: (batch + 2) * 100 / 21.75 images/s, in bfloat16 twice that.
    speeds = sorted(line.get_ydata().tolist() for line in drawn)
    assert speeds[0] == pytest.approx([300 / 21.75, 1000 / 21.75, 1000 / 21.75])
    assert speeds[1] == pytest.approx([600 / 21.75, 2000 / 21.75, 2000 / 21.75])
    assert legend(figure) == ["good_net", "pixels", "float32", "bfloat16"]


def test_two_batch_sizes_make_no_curve(results: Path) -> None:
    assert FIGURES["throughput"](read_edited(results)) is None


def test_throughput_without_copies_is_not_drawn_beside_that_with_them(results: Path) -> None:
    add_batch_size(results)
    timings = read_table(results, "timings")
    whole = timings[timings["stage"] == "whole"].assign(copies=False)
    change(results, "timings", pd.concat([whole.assign(images_per_s=9999), timings]))
    figure = draw(results, "throughput")
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]
    assert max(line.get_ydata().max() for axes in figure.axes for line in axes.lines) < 9999


def test_stages_are_shares_of_the_whole_and_end_at_their_sum(drawn: Drawn) -> None:
    figure = drawn["stages"]
    shares, whole = figure.axes[0], figure.axes[1]
    assert [labels(axes) for axes in figure.axes[::2]] == [["good_net", "pixels"]] * 2
    # pixels: prepare 1, features 3, regression 5, finish 0.5 of 9.75 ms.
    bars = [bar for bar in shares.patches if bar.get_y() > 0.5]
    widths = [bar.get_width() for bar in bars]
    assert sorted(widths) == pytest.approx(sorted(100 * time / 9.75 for time in (1, 3, 5, 0.5)))
    assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(100 * 9.5 / 9.75)
    written = {text.get_text() for text in shares.texts}
    assert {"20.0 ms", "5.00 ms"} <= written
    assert "0.500 ms" not in written  # wider than its piece of the bar
    assert whole.get_xscale() == "log"
    assert [line.get_xdata()[0] for line in whole.lines] == pytest.approx([21.75, 9.75])
    assert [text.get_text() for text in whole.texts] == ["21.8", "9.75"]
    approaches = {colour.lower() for colour in (*KNOWN_COLOURS.values(), *FURTHER)}
    assert not approaches & {to_hex(bar.get_facecolor()) for bar in shares.patches}
    assert "finish: map resized to the image" in legend(figure)


def test_the_kept_step_is_marked_and_no_panel_is_empty(drawn: Drawn) -> None:
    figure = drawn["curves"]
    # Of pixels there is no validation Dice, and no step is known that was kept.
    assert [axes.get_ylabel() for axes in figure.axes] == [
        *("loss", "pixel accuracy"),
        *("loss", "pixel accuracy", "validation Dice"),
    ]
    marks = [
        [(x, y) for line in axes.lines if line.get_marker() == "o" for x, y in line.get_xydata()]
        for axes in figure.axes
    ]
    assert marks[:2] == [[], []]
    # Of good_net it is step 3, in both seeds.
    for found, value in zip(marks[2:], (1.1 / 3, 1 - 0.35 / 3, 1 - 0.5 / 3), strict=True):
        assert found == [(3, pytest.approx(value))] * 2


def test_of_many_curves_the_best_fit_on_a_page(results: Path) -> None:
    names = [f"net-{number}" for number in range(10)]
    history, statistics = read_table(results, "history"), read_table(results, "statistics")
    # Of one measure, for a panel takes a while.
    one = history[history["approach"] == "good_net"].assign(train_accuracy=None, validation_accuracy=None)
    one = one.assign(validation_dice=None)
    change(results, "history", pd.concat([one.assign(approach=name) for name in names]))
    row = statistics[(statistics["approach"] == "pixels") & (statistics["kind"] == "mean")]
    rows = [row.assign(approach=name, value=0.5 + 0.01 * place) for place, name in enumerate(names)]
    change(results, "statistics", pd.concat(rows))
    write_json(results / "run.json", {**run_record(), "approaches": [*map(approach_record, names)]})
    figure = draw(results, "curves")
    assert [axes.get_title(loc="left") for axes in figure.axes] == names[2:]
    assert figure.get_figheight() <= 9
    assert figure.legends[0].get_title().get_text() == "Best 8 of 10 approaches with a curve"


@pytest.mark.parametrize("stem", [stem for stem in WIDTHS if stem not in ("dice-violins", "throughput")])
def test_a_figure_is_one_or_two_columns_wide_and_its_text_readable_and_inside(
    drawn: Drawn, stem: str
) -> None:
    require_readable(drawn[stem], WIDTHS[stem])


@pytest.fixture(scope="module")
def long_named(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The results with a long name, and with images and batch sizes enough for all figures."""
    directory = shutil.copytree(written, tmp_path_factory.mktemp("long") / "tiny")
    add_images(directory)
    add_batch_size(directory)
    for path in [*directory.glob("*.csv"), directory / "run.json"]:
        path.write_text(path.read_text().replace("good_net", "vgg19-hist-gradient-boosting-at-48-pixels"))
    return read_edited(directory)


@pytest.mark.parametrize("stem", WIDTHS)
def test_long_names_are_readable_and_inside_too(long_named: Contents, stem: str) -> None:
    with use_house_style():
        figure = FIGURES[stem](long_named)
        lay_out_figure(figure)
    require_readable(figure, WIDTHS[stem])


def require_readable(figure: Figure, width: float) -> None:
    """Assert that a figure has this width, letters of 6 points and more, and nothing over its edge."""
    assert figure.get_figwidth() == width
    frame = figure.bbox.padded(1)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 6
    outer = [text for text in (figure._supxlabel, figure._supylabel, figure._suptitle) if text]
    panels = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    legends = [legend.get_window_extent() for legend in figure.legends]
    for box in [*(text.get_window_extent() for text in outer), *legends, *panels]:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    for below in legends:
        assert all(box.y0 >= below.y1 - 1 for box in panels)


def test_tests_of_all_approaches_together_are_no_approach(results: Path) -> None:
    contents = read_edited(results)
    assert contents.names == ["mean-mask", "pixels", "good_net", "absent"]
    assert contents.sort_names(["mean-mask", "absent", "good_net"]) == ["good_net", "mean-mask", "absent"]
    assert contents.find_statistic("good_net", "dice")["value"] == pytest.approx(0.89)


def test_an_approach_has_its_colour_in_every_figure(drawn: Drawn, written: Path) -> None:
    palette = assign_colours(read_contents(written))
    forest, curves = drawn["differences"].axes[0], drawn["reliability"].axes[0]
    point = next(line for line in forest.lines if line.get_marker() == "o")
    assert to_rgb(point.get_color()) == to_rgb(palette["good_net"]) == to_rgb(curves.lines[1].get_color())
