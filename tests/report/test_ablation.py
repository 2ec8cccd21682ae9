"""An ablation's groups as tables and panels, and what fitted approaches read most."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.report.figures.all import FIGURES, OF_A_FEW, draw_figures
from lungseg.report.figures.comparisons import draw_ablation
from lungseg.report.figures.importance import draw_importance
from lungseg.report.figures.style import use_house_style
from lungseg.report.numbers.ablation import collect_ablation
from lungseg.report.numbers.importance import average_importance, sum_by_block, sum_by_kind
from lungseg.report.tables.ablation import make_ablation_sections
from lungseg.results import read_table, write_table
from lungseg.system.files import read_json, write_json
from tests.report.results_directory import read_edited, write_summary

GROUPS = {
    "mean-mask": ["parts"],
    "pixels": ["parts", "nets"],
    "good_net": ["parts", "nets"],
    "absent": ["parts"],
}


@pytest.fixture
def grouped(results: Path) -> Path:
    """Two groups; `absent` was skipped and has no results."""
    record = read_json(results / "run.json")
    for entry in record["approaches"]:
        entry["group"] = GROUPS[entry["name"]]
    write_json(results / "run.json", record)
    return results


def test_rows_are_in_the_order_of_the_spec_with_the_stored_differences(grouped: Path) -> None:
    frame = collect_ablation(read_edited(grouped))
    assert list(zip(frame["group"], frame["approach"], strict=True)) == [
        ("parts", "mean-mask"),
        ("parts", "pixels"),
        ("parts", "good_net"),
        ("nets", "pixels"),
        ("nets", "good_net"),
    ]
    # Stored: good_net - pixels 0.15, good_net - mean-mask 0.40, mean-mask - pixels -0.25 [-0.30, 0.05].
    assert frame["above"].tolist()[1:3] == pytest.approx([0.25, 0.15])
    assert frame["first"].tolist()[1:3] == pytest.approx([0.25, 0.40])
    assert frame.loc[1, ["above_low", "above_high"]].tolist() == pytest.approx([-0.05, 0.30])
    assert frame.loc[[0, 3], ["above", "first"]].isna().all(axis=None)
    assert frame["training_seconds"].tolist()[1:3] == pytest.approx([70.0, 140.0])


def test_the_page_has_a_table_a_group_in_place_of_all_pairs(grouped: Path) -> None:
    page = write_summary(grouped)
    assert page.index("## Ablation: parts") < page.index("## Ablation: nets")
    assert "| pixels | 0.7400 [0.7100, 0.7700] | 0.7400 | 12.0 | 1 min 10 s |" in page
    assert "+0.2500 [-0.0500, +0.3000]" in page
    assert "Paired differences in Dice" not in page
    assert "What may be concluded" not in page


def test_a_pair_that_was_not_compared_is_an_empty_cell(grouped: Path) -> None:
    statistics = read_table(grouped, "statistics")
    write_table(grouped / "statistics.csv", "statistics", statistics[statistics["kind"] != "paired"])
    sections = make_ablation_sections(read_edited(grouped))
    assert [row[-2:] for row in sections[0].table.rows] == [["–", "–"]] * 3


def test_a_panel_a_group_with_the_differences_from_its_first_row(grouped: Path) -> None:
    with use_house_style():
        figure = draw_ablation(read_edited(grouped))
        figure.draw_without_rendering()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["parts", "nets"]
    top, bottom = figure.axes
    assert [tick.get_text() for tick in top.get_yticklabels()] == ["mean-mask", "pixels", "good_net"]
    assert top.yaxis_inverted()
    assert top.get_xlim() == bottom.get_xlim()
    points = [line.get_xdata()[0] for line in top.lines if line.get_marker() == "o"]
    assert points[1:] == pytest.approx([0.25, 0.40])
    spans = [line.get_xdata() for line in top.lines if line.get_linewidth() == 1.4]
    # Stored: mean-mask - pixels -0.25 [-0.30, 0.05], good_net - mean-mask 0.40 [0.35, 0.45].
    assert spans[1] == pytest.approx([-0.05, 0.30])
    assert spans[2] == pytest.approx([0.35, 0.45])
    assert [text.get_text() for text in top.texts] == ["base: 0.4900", "+0.2500", "+0.4000"]
    assert [text.get_text() for text in bottom.texts] == ["base: 0.7400", "+0.1500"]
    label = figure.get_supxlabel()
    assert "from the row marked as base, 6 test images\n" in label
    assert "not corrected for the number of rows" in label


def test_a_row_that_was_not_compared_with_the_first_says_so(grouped: Path) -> None:
    statistics = read_table(grouped, "statistics")
    write_table(grouped / "statistics.csv", "statistics", statistics[statistics["kind"] != "paired"])
    with use_house_style():
        axes = draw_ablation(read_edited(grouped)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["base: 0.4900", "not compared", "not compared"]


def test_figures_of_every_pair_are_left_out_of_an_ablation_alone(
    grouped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not stored, for that takes seconds.
    monkeypatch.setattr("lungseg.report.figures.all.save_figure", lambda figure, directory, stem: [stem])
    # Six images are too few for violins, and two batch sizes for a curve; all rows were trained on the same.
    left_out = {*OF_A_FEW, "dice-violins", "throughput", "transfer", "learning"}
    assert set(draw_figures(read_edited(grouped))) == set(FIGURES) - left_out


def test_without_groups_there_is_no_ablation(results: Path) -> None:
    contents = read_edited(results)
    assert contents.groups == {}
    assert draw_ablation(contents) is None
    assert "## Ablation" not in write_summary(results)


def test_shares_by_kind_and_by_layer_and_scale(results: Path) -> None:
    frame = average_importance(read_edited(results), "good_net")
    first = frame[frame["stage"] == "stage 1"]
    assert sum_by_kind(first).to_dict() == pytest.approx({"features": 0.6, "coordinates": 0.4})
    blocks = sum_by_block(first)
    assert list(blocks) == [64, 32]
    assert blocks.loc["relu1_2"].tolist() == pytest.approx([0.3, 0.1])
    assert blocks.loc["relu2_2"].tolist() == pytest.approx([0.2, float("nan")], nan_ok=True)
    second = frame[frame["stage"] == "stage 2"]
    assert sum_by_kind(second).to_dict() == pytest.approx({"features": 0.1, "coordinates": 0.1, "map 1": 0.8})


def test_the_importance_of_stages_and_of_channels_is_drawn(results: Path) -> None:
    with use_house_style():
        figure = draw_importance(read_edited(results))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if "features" not in title] == [
        "good_net, stage 1",
        "good_net, stage 2",
        "pixels",
    ]
    # Of the inputs that a name doesn't explain, the stages read one.
    assert figure.get_suptitle().endswith("\nmap 1: what stage 1 predicted")
    assert [bar.get_height() for bar in figure.axes[-1].patches] == pytest.approx([50, 50, 0])
    # The largest share of both stages is 0.3, of relu1_2 at 64 pixels in the first one.
    heat_maps = [axes.images[0] for axes in figure.axes if axes.images]
    assert [drawn.get_clim() for drawn in heat_maps] == [(0, pytest.approx(0.3))] * 2


def test_results_without_any_importance_can_be_read(results: Path) -> None:
    (results / "importance.csv").unlink()
    assert draw_importance(read_edited(results)) is None
    assert "good_net" in write_summary(results).replace("\\", "")
