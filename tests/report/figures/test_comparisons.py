"""The figures that compare approaches hold the numbers of the tables, and what can be worked out by hand."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from lungseg.report.figures.all import FIGURES
from lungseg.report.figures.calibration import collect_areas, collect_reliability
from lungseg.report.figures.comparisons import join_groups
from lungseg.report.figures.style import DOUBLE, SINGLE, assign_colours, use_house_style
from lungseg.results import read_table, write_table
from lungseg.system.files import write_json
from tests.report.results_directory import approach_record, read_edited, run_record
from tests.report.results_tables import DICE, IDS, RANKS

NEW = (
    "differences",
    "dice-violins",
    "critical-difference",
    "lung-area",
    "reliability",
    "throughput",
    "stages",
)


def draw(results: Path, stem: str) -> Figure:
    """The figure, laid out at its final size."""
    with use_house_style():
        figure = FIGURES[stem](read_edited(results))
        figure.draw_without_rendering()
    return figure


def change(results: Path, table: str, rows: pd.DataFrame) -> None:
    write_table(results / f"{table}.csv", table, rows)


def labels(axes: Axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_pair_stands_under_its_better_approach_with_its_difference_turned_that_way(
    results: Path,
) -> None:
    axes = draw(results, "differences").axes[0]
    assert labels(axes) == ["good_net minus", "pixels", "mean-mask", "pixels minus", "mean-mask"]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([0.15, 0.40, 0.25])
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() == "None"]
    # mean-mask minus pixels is stored as -0.25 [-0.30, 0.05].
    assert any(np.allclose(span, [-0.05, 0.30]) for span in spans)
    assert min(axes.get_xlim()) < -0.05 < 0 < 0.45 < max(axes.get_xlim())


def test_only_what_is_distinguishable_after_holm_is_filled(results: Path) -> None:
    axes = draw(results, "differences").axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [same_color(line.get_markerfacecolor(), "white") for line in points] == [False, False, True]


def test_many_pairs_take_two_columns_and_no_name_covers_another(results: Path) -> None:
    names = [f"approach-with-quite-a-long-name-{number}" for number in range(10)]
    means = [
        {"approach": name, "kind": "mean", "value": 0.9 - 0.01 * place} for place, name in enumerate(names)
    ]
    pairs = [
        {
            "approach": one,
            "other": other,
            "kind": "paired",
            "value": 0.1,
            "low": 0.05,
            "high": 0.2,
            "p_holm": 0.01,
        }
        for one, other in combinations(names, 2)
    ]
    rows = pd.DataFrame([*means, *pairs]).assign(dataset="made-up", metric="dice", n=141)
    change(results, "statistics", rows)
    write_json(results / "run.json", {**run_record(), "approaches": [*map(approach_record, names)]})
    figure = draw(results, "differences")
    assert figure.get_figwidth() == DOUBLE
    assert len(figure.axes) == 2
    assert sum(len(labels(axes)) for axes in figure.axes) == 45 + 9
    for axes in figure.axes:
        boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
        assert min(box.x0 for box in boxes) >= 0
    first, second = figure.axes
    assert first.get_window_extent().x1 < min(
        tick.get_window_extent().x0 for tick in second.get_yticklabels()
    )


def test_every_image_is_joined_between_neighbours_and_reversals_are_marked(results: Path) -> None:
    scores = read_table(results, "scores")
    scores.loc[(scores["approach"] == "mean-mask") & (scores["image_id"] == "img_1"), "dice"] = 0.95
    change(results, "scores", scores)
    axes = draw(results, "dice-violins").axes[0]
    assert labels(axes) == ["good_net", "pixels", "mean-mask"]
    lines = [
        group for group in axes.collections if hasattr(group, "get_segments") and group.get_zorder() == 1
    ]
    # Between good_net and pixels no image is reversed, between pixels and mean-mask img_1 alone is.
    assert [len(group.get_segments()) for group in lines] == [6, 0, 5, 1]
    ends = lines[3].get_segments()[0]
    assert ends[:, 0] == pytest.approx([0.69, 0.95])
    assert ends[0, 1] < ends[1, 1]


def test_the_dot_of_a_violin_is_the_median(results: Path) -> None:
    axes = draw(results, "dice-violins").axes[0]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([np.median(values) - 0.01 for values in DICE.values()])


def test_at_most_six_violins_the_best(results: Path) -> None:
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
    assert labels(draw(results, "dice-violins").axes[0]) == ["good_net", *reversed(more)]


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
    results: Path,
) -> None:
    axes = draw(results, "critical-difference").axes[0]
    assert labels(axes) == [f"{name}  {rank:.2f}" for name, rank in RANKS.items()]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() > 2]
    assert len(bars) == 1
    assert bars[0] == pytest.approx([2.25 - 0.04, 2.75 + 0.04])
    scale = next(line for line in axes.lines if line.get_marker() == "|")
    assert np.ptp(scale.get_xdata()) == pytest.approx(1.0)


def test_lung_area_has_the_bias_and_limits_of_agreement_of_its_counts(results: Path) -> None:
    figure = draw(results, "lung-area")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "good_net",
        "pixels",
    ]  # the baseline is left out
    # good_net: 0, 1, 0, 1, 0, 1 % of 10,000 pixels too large, in seed 1 0.2 % more: 0.1, 1.1, ... of both.
    bias, spread = 0.6, 1.96 * np.sqrt(6 * 0.5**2 / 5)
    heights = sorted(line.get_ydata()[0] for line in figure.axes[0].lines)
    assert heights == pytest.approx(sorted([0, bias, bias - spread, bias + spread]))
    assert figure.axes[0].texts[0].get_text() == "bias +0.600\nlimits −0.474, +1.67"


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


def test_reliability_puts_seeds_together_and_leaves_out_empty_bins(results: Path) -> None:
    figure = draw(results, "reliability")
    bins = collect_reliability(read_table(results, "calibration"))
    assert bins[bins["approach"] == "pixels"]["count"].tolist() == [1800, 300, 900]
    line = figure.axes[0].lines[1]
    assert line.get_xdata() == pytest.approx([0.1, 0.3, 0.9])
    assert line.get_ydata() == pytest.approx([0.1, 0.3, 0.8])
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([60, 10, 30])
    # good_net: 0.1 off in 30 % of the pixels; pixels: 0.1 off in all of them.
    assert legend(figure) == ["good_net: ECE 3.0 %", "pixels: ECE 10.0 %", "calibrated"]


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


def test_throughput_has_a_panel_per_device_and_a_style_per_setting(results: Path) -> None:
    figure = draw(results, "throughput")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CPU", "CUDA"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]
    palette = assign_colours(read_edited(results).names, {"mean-mask"})
    drawn = [line for line in figure.axes[1].lines if same_color(line.get_color(), palette["good_net"])]
    assert len({line.get_linestyle() for line in drawn}) == 2
    # good_net takes 21.75 ms: (batch + 2) * 100 / 21.75 images/s, in bfloat16 twice that.
    speeds = sorted(line.get_ydata().tolist() for line in drawn)
    assert speeds[0] == pytest.approx([300 / 21.75, 1000 / 21.75])
    assert speeds[1] == pytest.approx([600 / 21.75, 2000 / 21.75])
    assert legend(figure) == ["good_net", "pixels", "float32", "bfloat16"]


def test_throughput_without_copies_is_not_drawn_beside_that_with_them(results: Path) -> None:
    timings = read_table(results, "timings")
    whole = timings[timings["stage"] == "whole"].assign(copies=False)
    change(results, "timings", pd.concat([whole.assign(images_per_s=9999), timings]))
    figure = draw(results, "throughput")
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]
    assert max(line.get_ydata().max() for axes in figure.axes for line in axes.lines) < 9999


def test_stages_are_shares_of_the_whole_and_end_at_their_sum(results: Path) -> None:
    figure = draw(results, "stages")
    assert [labels(axes) for axes in figure.axes] == [["good_net", "pixels"]] * 2
    # pixels: prepare 1, features 3, regression 5, finish 0.5 of 9.75 ms.
    bars = [bar for bar in figure.axes[0].patches if bar.get_y() > 0.5]
    widths = [bar.get_width() for bar in bars]
    assert sorted(widths) == pytest.approx(sorted(100 * time / 9.75 for time in (1, 3, 5, 0.5)))
    assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(100 * 9.5 / 9.75)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {"20.0", "5.00", "21.8", "9.75"} <= written
    assert "0.500" not in written  # wider than its piece of the bar


@pytest.mark.parametrize("name", ["good_net", "vgg19-hist-gradient-boosting-at-48-pixels"])
@pytest.mark.parametrize("stem", NEW)
def test_a_figure_is_one_column_wide_and_its_text_readable_and_inside(
    results: Path, stem: str, name: str
) -> None:
    for path in [*results.glob("*.csv"), results / "run.json"]:
        path.write_text(path.read_text().replace("good_net", name))
    figure = draw(results, stem)
    assert figure.get_figwidth() == SINGLE
    frame = figure.bbox.padded(1)
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 6
    outer = [text for text in (figure._supxlabel, figure._supylabel, figure._suptitle) if text]
    boxes = [artist.get_window_extent() for artist in [*outer, *figure.legends]]
    for box in [*boxes, *(axes.get_tightbbox() for axes in figure.axes if axes.axison)]:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    for below in figure.legends:
        assert all(axes.get_tightbbox().y0 >= below.get_window_extent().y1 - 1 for axes in figure.axes)


def test_tests_of_all_approaches_together_are_no_approach(results: Path) -> None:
    contents = read_edited(results)
    assert contents.names == ["mean-mask", "pixels", "good_net", "absent"]
    assert contents.sort_names(["mean-mask", "absent", "good_net"]) == ["good_net", "mean-mask", "absent"]
    assert contents.find_statistic("good_net", "dice")["value"] == pytest.approx(0.89)


def test_an_approach_has_its_colour_in_every_figure(results: Path) -> None:
    palette = assign_colours(read_edited(results).names, {"mean-mask"})
    forest, curves = draw(results, "differences").axes[0], draw(results, "reliability").axes[0]
    point = next(line for line in forest.lines if line.get_marker() == "o")
    assert to_rgb(point.get_color()) == to_rgb(palette["good_net"]) == to_rgb(curves.lines[1].get_color())
