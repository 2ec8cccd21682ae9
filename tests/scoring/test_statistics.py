import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lungseg.results import SCORE_COLUMNS, STATISTIC_COLUMNS, read_table, write_table
from lungseg.scoring.comparisons import holm
from lungseg.scoring.intervals import bootstrap_t_intervals
from lungseg.scoring.statistics import BOUNDS, summarise

KEYS = {"dataset": "d", "source": "s", "fold": 0, "seed": 0, "tp": 1, "fp": 0, "fn": 0}


def row(approach: str, image: str, dice: float, patient: str | None = None, **others) -> dict:
    return {
        **KEYS,
        "approach": approach,
        "image_id": image,
        "patient": patient or image,
        "dice": dice,
        **others,
    }


def rows_of(approach: str, values: list[float], **others) -> list[dict]:
    """One image a patient: i0, i1 ..."""
    return [row(approach, f"i{i}", value, **others) for i, value in enumerate(values)]


def found(rows: list[dict], **where) -> pd.DataFrame:
    """The rows of statistics.csv with some values, from rows of scores.csv."""
    scores = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    table = pd.DataFrame(summarise(scores), columns=STATISTIC_COLUMNS)
    for column, value in where.items():
        table = table[table[column] == value]
    return table.reset_index(drop=True)


def only(rows: list[dict], **where) -> pd.Series:
    table = found(rows, **where)
    assert len(table) == 1
    return table.iloc[0]


# Means of one approach


def test_seeds_are_averaged_per_image_and_images_per_patient():
    scores = [
        row("a", "i1", 0.8, "p1", seed=0, tp=8, fp=2, fn=2),
        row("a", "i1", 0.6, "p1", seed=1, tp=6, fp=4, fn=4),
        row("a", "i2", 0.5, "p1", seed=0, tp=5, fp=5, fn=5),
        row("a", "i2", 0.5, "p1", seed=1, tp=5, fp=5, fn=5),
        row("a", "i3", 1.0, "p2", seed=0, tp=9),
        row("a", "i3", 1.0, "p2", seed=1, tp=9),
    ]
    dice = only(scores, metric="dice")
    assert dice["n"] == 2
    assert dice["value"] == pytest.approx((0.6 + 1.0) / 2)  # p1: mean of .7 and .5
    assert dice["seeds"] == 2
    assert dice["seed_sd"] == pytest.approx(np.std([(0.65 + 1) / 2, (0.55 + 1) / 2], ddof=1))
    pooled = only(scores, kind="pooled")
    first, second = 2 * 22 / (2 * 22 + 14), 2 * 20 / (2 * 20 + 18)
    assert pooled["metric"] == "f1"
    assert pooled["n"] == 3
    assert pooled["value"] == pytest.approx((first + second) / 2)


def test_spread_and_interval_of_a_mean():
    values = np.random.default_rng(0).beta(12, 1.7, 30)
    dice = only(rows_of("a", list(values)), kind="mean")
    assert dice["median"] == pytest.approx(np.median(values))
    assert dice["sd"] == pytest.approx(stats.tstd(values))
    assert dice[["p5", "p95"]].tolist() == pytest.approx(list(np.quantile(values, [0.05, 0.95])))
    in_order = values[np.argsort([f"i{i}" for i in range(30)])]  # patients are sorted by name
    assert dice[["low", "high"]].tolist() == pytest.approx(list(bootstrap_t_intervals(in_order[:, None])[0]))
    assert np.isnan(dice["seed_sd"])


def test_same_name_in_two_hospitals_is_two_patients():
    scores = [row("a", "i1", 0.2, "1", source="x"), row("a", "i2", 0.8, "1", source="y")]
    assert only(scores, kind="mean")["n"] == 2


def test_folds_are_pooled():
    scores = [row("a", f"i{i}", i / 10, fold=i % 2) for i in range(10)]
    dice = only(scores, kind="mean")
    assert (dice["n"], dice["value"]) == (10, pytest.approx(0.45))


def test_every_metric_with_values_has_a_row_and_others_have_none():
    full = [dict.fromkeys(BOUNDS, 0.5) | row("a", f"i{i}", 0.5) for i in range(4)]
    assert found(full, kind="mean")["metric"].tolist() == list(BOUNDS)
    assert found(rows_of("a", [0.5] * 4), kind="mean")["metric"].tolist() == ["dice"]


def test_empty_cells_are_left_out_and_counted():
    scores = [row("a", f"i{i}", 0.9, dice_left=value) for i, value in enumerate([0.4, np.nan, 0.8, np.nan])]
    left = only(scores, metric="dice_left")
    assert (left["n"], left["value"]) == (2, pytest.approx(0.6))
    assert only(scores, metric="dice", kind="mean")["n"] == 4


def test_an_empty_cell_leaves_a_patients_other_images():
    scores = [row("a", "i1", 0.9, "p", dice_left=np.nan), row("a", "i2", 0.9, "p", dice_left=0.4)]
    assert only(scores, metric="dice_left")["value"] == pytest.approx(0.4)


def test_intervals_keep_to_the_range_of_their_metric():
    values = [0.0, 0.0, 0.1, 0.0, 5.0, 0.0, 0.2]
    scores = [row("a", f"i{i}", min(v, 1), area_error=v) for i, v in enumerate(values)]
    error, dice = only(scores, metric="area_error"), only(scores, metric="dice", kind="mean")
    assert error["low"] == 0
    assert error["high"] > 1
    assert (dice["low"], dice["high"]) == (0, 1)


def test_distances_in_two_units_have_no_mean():
    scores = [
        row("a", f"i{i}", 0.9, hd95=3.0, assd=1.0, brier=0.1, distance_unit=u)
        for i, u in enumerate(["px", "mm"] * 3)
    ]
    assert set(found(scores, kind="mean")["metric"]) == {"dice", "brier"}
    one_unit = [score | {"distance_unit": "mm"} for score in scores]
    assert set(found(one_unit, kind="mean")["metric"]) == {"dice", "brier", "hd95", "assd"}


def test_one_patient_has_a_value_and_no_interval():
    pair = [row("a", "i", 0.9), row("b", "i", 0.7)]
    dice = only(pair, kind="mean", approach="a")
    assert dice["value"] == 0.9
    assert dice[["low", "high", "sd"]].isna().all()
    paired = only(pair, kind="paired")
    assert paired["value"] == pytest.approx(0.2)
    assert paired["p_value"] == paired["wilcoxon_p"] == 1
    assert np.isnan(paired["low"])


# Pairs of approaches


def test_a_pair_by_hand():
    a, b = [0.9, 0.8, 0.7, 0.9, 0.6], [0.8, 0.6, 0.4, 0.5, 0.6]
    paired = only(rows_of("a", a) + rows_of("b", b), kind="paired")
    assert (paired["approach"], paired["other"], paired["metric"]) == ("a", "b", "dice")
    assert paired["primary"]
    assert paired["value"] == pytest.approx(0.2)
    assert paired["median"] == pytest.approx(0.2)
    assert paired["sd"] == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4, 0], ddof=1))
    assert paired["p_value"] == pytest.approx(4 / 32)  # all plus, all minus; the zero doubles both
    assert paired["wilcoxon_p"] == pytest.approx(2 / 16)
    assert paired["rank_biserial"] == 1
    assert paired[["better", "worse", "tied"]].tolist() == [4, 0, 1]
    assert paired["low"] < 0.2 < paired["high"]
    assert paired["p_holm"] == paired["p_value"]
    assert np.isnan(paired["nemenyi_p"])


@pytest.mark.parametrize("metric", ["hd95", "assd", "brier"])
def test_lower_is_better_for_distances_and_brier(metric):
    pairs = zip([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 3.5], strict=True)
    scores = []
    for i, (first, second) in enumerate(pairs):
        scores += [row("a", f"i{i}", 0.9, **{metric: first / 10})]
        scores += [row("b", f"i{i}", 0.8, **{metric: second / 10})]
    paired = only(scores, kind="paired", metric=metric)
    assert paired["value"] == pytest.approx(-0.1375)  # a minus b, as for any metric
    assert paired[["better", "worse", "tied"]].tolist() == [3, 1, 0]
    assert paired["rank_biserial"] == pytest.approx((2 + 3 + 4 - 1) / 10)
    assert not paired["primary"]
    assert np.isnan(paired["p_holm"])


def test_differences_are_of_patients_and_not_of_images():
    scores = []
    for name, values in {"a": [0.9, 0.9, 0.9, 0.1], "b": [0.5, 0.5, 0.5, 0.3]}.items():
        scores += [row(name, f"i{i}", value, "p1" if i < 3 else "p2") for i, value in enumerate(values)]
    paired = only(scores, kind="paired")
    assert paired["n"] == 2
    assert paired["value"] == pytest.approx((0.4 - 0.2) / 2)
    assert paired[["better", "worse"]].tolist() == [1, 1]


def test_order_of_rows_does_not_change_who_is_paired():
    a, b = np.random.default_rng(1).beta(12, 1.7, (2, 20))
    scores = rows_of("a", list(a)) + rows_of("b", list(b))
    shuffled = [scores[0], *np.random.default_rng(2).permutation(scores[1:])]
    first, second = only(scores, kind="paired"), only(shuffled, kind="paired")
    assert first["value"] == pytest.approx((a - b).mean())
    pd.testing.assert_series_equal(first, second)


def test_equal_approaches_are_not_distinguishable():
    values = [0.9, 0.8, 0.7, 0.6]
    paired = only(rows_of("a", values) + rows_of("b", values), kind="paired")
    assert paired[["value", "low", "high"]].tolist() == [0, 0, 0]
    assert paired[["p_value", "p_holm", "wilcoxon_p"]].tolist() == [1, 1, 1]
    assert paired[["rank_biserial", "better", "worse", "tied"]].tolist() == [0, 0, 0, 4]


def test_rounding_is_no_difference():
    seeds = [0.7, 0.8, 0.6]  # their mean depends on their order in the last digit
    scores = []
    for seed in range(3):
        scores += rows_of("a", [seeds[seed]] * 5, seed=seed)
        scores += rows_of("b", [seeds[(seed + 1) % 3] + 1e-12] * 5, seed=seed)
    assert only(scores, kind="paired")["tied"] == 5


def test_spread_of_seeds_of_a_difference():
    values = {("a", 0): 0.9, ("a", 1): 0.8, ("b", 0): 0.5, ("b", 1): 0.6, ("c", 0): 0.4}
    scores = [r for (name, seed), value in values.items() for r in rows_of(name, [value] * 4, seed=seed)]
    both = only(scores, kind="paired", approach="a", other="b")
    assert both["value"] == pytest.approx(0.3)
    assert both["seeds"] == 2
    assert both["seed_sd"] == pytest.approx(np.std([0.4, 0.2], ddof=1))
    one = only(scores, kind="paired", approach="a", other="c")
    assert one["seeds"] == 1
    assert np.isnan(one["seed_sd"])


def test_approaches_on_other_images_are_not_compared():
    scores = rows_of("a", [0.9] * 5) + rows_of("b", [0.8] * 4) + rows_of("c", [0.7] * 5)
    pairs = found(scores, kind="paired")
    assert pairs[["approach", "other"]].to_numpy().tolist() == [["a", "c"]]
    assert found(scores, kind="rank").empty


def test_an_approach_without_a_metric_is_compared_by_the_others():
    scores = (
        rows_of("a", [0.9, 0.8], brier=0.1) + rows_of("b", [0.7, 0.8]) + rows_of("c", [0.5, 0.6], brier=0.2)
    )
    assert len(found(scores, kind="paired", metric="dice")) == 3
    brier = only(scores, kind="paired", metric="brier")
    assert (brier["approach"], brier["other"], brier["n"]) == ("a", "c", 2)


def test_holm_corrects_for_all_pairs_of_all_datasets():
    rng = np.random.default_rng(3)
    scores = []
    for dataset, names in {"d1": "abc", "d2": "ab"}.items():
        for shift, name in enumerate(names):
            values = rng.normal(0.9 - 0.01 * shift, 0.02, 12)
            scores += rows_of(name, list(values), dataset=dataset, brier=0.1)
    pairs = found(scores, kind="paired", metric="dice")
    assert pairs[["dataset", "approach", "other"]].agg("".join, axis=1).tolist() == [
        "d1ab",
        "d1ac",
        "d1bc",
        "d2ab",
    ]
    assert pairs["p_holm"].tolist() == pytest.approx(list(holm(pairs["p_value"])))
    assert (pairs["p_holm"] > pairs["p_value"]).any()
    assert found(scores, kind="paired", metric="brier")["p_holm"].isna().all()


# Three or more


def test_ranks_of_three_by_hand():
    dice = {"a": [0.9, 0.9, 0.5, 0.9], "b": [0.8, 0.9, 0.6, 0.8], "c": [0.1, 0.2, 0.3, 0.4]}
    scores = [r for name, values in dice.items() for r in rows_of(name, values)]
    ranks = found(scores, kind="rank").set_index("approach")["value"]
    assert ranks.to_dict() == {"a": (1 + 1.5 + 2 + 1) / 4, "b": (2 + 1.5 + 1 + 2) / 4, "c": 3}
    friedman = only(scores, kind="friedman")
    peer = stats.friedmanchisquare(*dice.values())
    assert friedman[["approach", "n"]].tolist() == ["", 4]
    assert friedman[["value", "p_value"]].tolist() == pytest.approx([peer.statistic, peer.pvalue])
    difference = only(scores, kind="critical-difference")
    assert difference["value"] == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 4)), rel=1e-3)
    pairs = found(scores, kind="paired")
    apart = [abs(ranks[a] - ranks[b]) for a, b in zip(pairs["approach"], pairs["other"], strict=True)]
    assert ((pairs["nemenyi_p"] < 0.05) == (np.array(apart) > difference["value"])).all()
    assert pairs["nemenyi_p"].between(0, 1).all()


def test_two_approaches_have_no_ranks():
    scores = rows_of("a", [0.9, 0.8, 0.7]) + rows_of("b", [0.8, 0.7, 0.6])
    assert set(found(scores)["kind"]) == {"mean", "pooled", "paired"}


# The table


def test_rows_survive_the_file(tmp_path):
    rng = np.random.default_rng(4)
    scores = [
        r
        for name in "abc"
        for r in rows_of(name, list(rng.beta(12, 1.7, 10)), hd95=float(rng.normal(9, 1)), assd=1.0)
    ]
    write_table(tmp_path / "scores.csv", "scores", scores)
    rows = summarise(read_table(tmp_path, "scores"))
    assert {key for row in rows for key in row} <= set(STATISTIC_COLUMNS)
    write_table(tmp_path / "statistics.csv", "statistics", rows)
    table = read_table(tmp_path, "statistics")
    expected = found(scores)
    assert table["kind"].tolist() == expected["kind"].tolist()
    for column in ("value", "low", "high", "p_value", "better"):
        np.testing.assert_allclose(table[column], expected[column].astype(float), rtol=1e-7, atol=1e-8)


def test_no_scores_give_no_rows():
    assert summarise(pd.DataFrame(columns=SCORE_COLUMNS)) == []
