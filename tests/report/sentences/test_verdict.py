"""The verdict: at most six sentences, and each says what the stored numbers say."""

import pandas as pd
import pytest

from lungseg.report.markup import format_amount, format_duration
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.verdict import write_verdict
from lungseg.results import read_table, write_table
from lungseg.system.files import read_json
from lungseg.system.stored import write_record
from tests.report.results_directory import approach_record, read_edited


def edit(results, p_holm=None, run=None, **columns):
    """Change the Dice pairs of statistics.csv, by the two names, and run.json; read it all."""
    statistics = read_table(results, "statistics")
    for row in statistics[(statistics["kind"] == "paired") & (statistics["metric"] == "dice")].itertuples():
        pair = frozenset((row.approach, row.other))
        if p_holm is not None:
            statistics.loc[row.Index, "p_holm"] = p_holm.get(pair, p_holm.get("", 1.0))
        for column, values in columns.items():
            statistics.loc[row.Index, column] = values[pair]
    write_table(results / "statistics.csv", "statistics", statistics)
    write_record(results / "run.json", read_json(results / "run.json") | (run or {}))
    return read_edited(results)


@pytest.fixture(autouse=True)
def _any_p_is_possible(monkeypatch, request):
    """Six images can show nothing: let them, but where that is the subject."""
    if "few" not in request.node.name:
        monkeypatch.setattr("lungseg.report.sentences.verdict.find_smallest_p", lambda comparison: 1e-4)


NET_MASK = frozenset(("good_net", "mean-mask"))
NET_PIXELS = frozenset(("good_net", "pixels"))
PIXELS_MASK = frozenset(("pixels", "mean-mask"))


def test_the_best_comes_first_with_its_mean_and_its_images(results):
    contents = read_edited(results)
    first = write_verdict(contents)[0]
    mean = contents.find_statistic("good_net", "dice")
    value, low, high = (f"{mean[name]:.4f}" for name in ("value", "low", "high"))
    expected = f"good_net has the highest mean Dice: {value} [{low}, {high}], on 6 test images of made-up."
    assert first == expected


def test_what_no_test_separates_is_named_and_not_called_equal(results):
    text = " ".join(write_verdict(edit(results, {NET_MASK: 0.01, NET_PIXELS: 0.2})))
    assert "do not separate it from pixels; this does not show it to be equal" in text
    assert "mean-mask is lower: by" in text
    assert "p = .010 after correction" in text


def test_a_small_difference_is_shown_but_negligible(results):
    swapped = {NET_MASK: 0.01, NET_PIXELS: 0.01, PIXELS_MASK: 0.01}
    ends = {"low": {NET_MASK: 0.1, NET_PIXELS: 0.001, PIXELS_MASK: 0.1}}
    ends["high"] = {NET_MASK: 0.3, NET_PIXELS: 0.0031, PIXELS_MASK: 0.3}
    ends["value"] = {NET_MASK: 0.2, NET_PIXELS: 0.002, PIXELS_MASK: 0.2}
    statistics = read_table(results, "statistics")
    order = {
        row.approach for row in statistics.itertuples() if row.kind == "paired" and row.other == "good_net"
    }
    if order:  # stored the other way round: the signs turn
        for name in ("low", "high", "value"):
            ends[name] = {pair: -value for pair, value in ends[name].items()}
        ends["low"], ends["high"] = ends["high"], ends["low"]
    text = " ".join(write_verdict(edit(results, swapped, **ends)))
    assert "It is above pixels by 0.0020: shown by the tests, but negligible (the 95 % interval ends" in text


def test_too_few_images_can_show_nothing(results):
    # 6 images and 3 comparisons: 2^(1 - 6) x 3 = .094.
    text = write_verdict(edit(results, {"": 0.09}))
    assert text[1] == "With 6 images and 3 comparisons no p under .094 is possible: nothing can be shown."


def test_frozen_features_beside_the_best_network(results):
    text = " ".join(write_verdict(edit(results, {NET_PIXELS: 0.2, NET_MASK: 0.01})))
    assert "pixels, the best without back-propagation (on frozen features), is" in text
    assert "below the best trained network, good_net, which the tests do not show to be a difference" in text


def test_the_cost_is_that_of_the_main_table(results):
    contents = read_edited(results)
    row = collect_main_rows(contents).set_index("approach").loc["good_net"]
    row = row.iloc[0] if row.ndim > 1 else row
    ms, training = format_amount(row["ms_per_image"]), format_duration(row["training_seconds"])
    assert f"{ms} ms an image on the CPU and {training} of training" in " ".join(write_verdict(contents))


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (
            {"leaks": ["a and b show the same person"]},
            "that new images get these scores: 1 pair of images is",
        ),
        ({"evaluate_on": "validation"}, "that this is final"),
    ],
)
def test_the_gravest_limit_comes_first(results, run, expected):
    assert write_verdict(edit(results, run=run))[-1].startswith(f"Do not conclude {expected}")


def test_never_more_than_six_sentences_nor_fewer_than_three(results):
    assert 3 <= len(write_verdict(read_edited(results))) <= 6


def test_an_ablation_names_its_best_row_and_largest_steps(results):
    entries = [
        approach_record("mean-mask", "mean-mask", group=["all"], depends_on_seed=False),
        approach_record("pixels", group=["all"]),
        approach_record("good_net", group=["all"]),
    ]
    text = write_verdict(edit(results, run={"approaches": entries}))
    assert text[0].startswith("good_net has the highest mean Dice")
    assert any("The largest gain is that of good_net in 'all': +" in one for one in text)
    assert not any("separate" in one for one in text)


def test_without_results_it_says_so(results):
    statistics = read_table(results, "statistics")
    write_table(results / "statistics.csv", "statistics", statistics.iloc[:0])
    assert write_verdict(read_edited(results)) == ["No approach has results."]


def test_a_few_images_of_another_pair_are_no_matter(results):
    statistics = read_table(results, "statistics")
    other = (statistics["approach"] == "pixels") | (statistics["other"] == "pixels")
    statistics.loc[(statistics["kind"] == "paired") & ~other, "n"] = 141
    statistics.loc[(statistics["kind"] == "paired") & (statistics["metric"] == "dice"), "p_holm"] = 0.01
    write_table(results / "statistics.csv", "statistics", statistics)
    assert "nothing can be shown" not in " ".join(write_verdict(read_edited(results)))


@pytest.mark.parametrize("n", [1, 2])
def test_so_few_that_no_test_is_possible(results, n):
    statistics = read_table(results, "statistics")
    statistics.loc[statistics["kind"] == "paired", "n"] = n
    write_table(results / "statistics.csv", "statistics", statistics)
    assert write_verdict(read_edited(results))[1].endswith("no test is possible: nothing can be shown.")


def test_where_test_and_interval_disagree_not_all_others_are_lower(results):
    statistics = read_table(results, "statistics")
    dice = (statistics["kind"] == "paired") & (statistics["metric"] == "dice")
    both = [{row.approach, row.other} == {"good_net", "pixels"} for row in statistics.itertuples()]
    statistics.loc[dice & pd.Series(both), ["low", "high"]] = [-0.3, 0.3]
    write_table(results / "statistics.csv", "statistics", statistics)
    text = " ".join(write_verdict(edit(results, {"": 0.01})))
    assert "All others" not in text
    assert "mean-mask is lower: by" in text
    assert "Whether it is better than pixels stays open: test and interval disagree." in text


def test_times_are_compared_on_one_device(results):
    timings = read_table(results, "timings")
    kept = timings[(timings["approach"] != "pixels") | (timings["device"] == "cuda")]
    write_table(results / "timings.csv", "timings", kept)
    (cost,) = [one for one in write_verdict(edit(results, {"": 0.9})) if one.startswith("good_net takes")]
    assert "on the CPU" in cost
    assert "pixels" not in cost


def test_speeds_that_are_not_distinguishable_are_named_together(results):
    timings = read_table(results, "timings")
    mask = timings[timings["approach"] == "pixels"].assign(approach="mean-mask")
    write_table(results / "timings.csv", "timings", pd.concat([timings, mask]))
    pair = {"device": "cpu", "batch_size": 1, "approach": "pixels", "other": "mean-mask", "kind": "A/B"}
    pair |= {"ratio": 1.01, "low": 0.9, "high": 1.1, "distinguishable": False}
    write_table(results / "timing_pairs.csv", "timing_pairs", [pair])
    text = " ".join(write_verdict(edit(results, {"": 0.9})))
    assert (
        "pixels and mean-mask, not distinguishable from one another, with 9.75 and 9.75 ms an image" in text
    )


def test_a_single_approach_has_no_order(results):
    record = read_json(results / "run.json")
    entries = [entry for entry in record["approaches"] if entry["name"] == "good_net"]
    for table in ("scores", "statistics", "timings", "timing_pairs", "training", "history"):
        rows = read_table(results, table)
        rows = rows[rows["approach"] == "good_net"]
        rows = rows[~rows["other"].isin(["pixels", "mean-mask"])] if "other" in rows else rows
        write_table(results / f"{table}.csv", table, rows)
    text = write_verdict(edit(results, run={"approaches": entries}))
    assert text[0].startswith("good_net has a mean Dice of ")
    assert "order" not in " ".join(text)
