"""What the report claims of a comparison, case by case, and what it refuses to claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lungseg.report.sentences.conclusions import Comparison, conclude, list_conclusions, read_comparisons
from lungseg.report.sentences.images import describe_seeds
from lungseg.results import read_table, write_table
from lungseg.system.files import write_json
from tests.report.results_directory import read_edited, run_record

NAN = float("nan")
CLEAR = Comparison(
    *("net", "pixels", 141),
    **{"difference": 0.061, "low": 0.049, "high": 0.076, "p_value": 0.0001, "p_holm": 0.0009},
    **{"better": 139, "worse": 2, "family": 15},
)
UNCLEAR = dataclasses.replace(
    CLEAR, difference=0.001, low=-0.004, high=0.006, p_value=0.31, p_holm=0.62, better=71, worse=70
)
CASES = {
    "shown": (
        CLEAR,
        {},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images.",
    ),
    "shown without a family": (
        CLEAR,
        {"family": 1, "p_holm": 0.0123},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p = .012; "
        "better on 139 of 141 images.",
    ),
    "family of unknown size, ties, patients": (
        CLEAR,
        {"family": 0, "worse": 1, "unit": "patient"},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction; better on 139 and equal on 1 of 141 patients.",
    ),
    "shown, perhaps too small to matter": (
        CLEAR,
        {"difference": 0.006, "low": 0.0008, "high": 0.0112},
        "net has a higher mean Dice than pixels on images like these: by 0.0060 [0.0008, 0.0112], p < .001 "
        "after Holm's correction for 15 comparisons; the true difference may be as small as 0.0008, which "
        "would be negligible; better on 139 of 141 images.",
    ),
    "shown, surely too small to matter": (
        CLEAR,
        {"difference": 0.001, "low": 0.0004, "high": 0.0016},
        "net has a higher mean Dice than pixels on images like these, but negligibly so: by 0.0010 [0.0004, "
        "0.0016], p < .001 after Holm's correction for 15 comparisons; better on 139 of 141 images.",
    ),
    "higher mean, yet worse on most": (
        CLEAR,
        {"better": 40, "worse": 101},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; yet it is better on 40 of 141 images, so a few large "
        "differences decide the mean.",
    ),
    "two trained once": (
        CLEAR,
        {"one_seed": ("net", "pixels")},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images; this holds for these "
        "trained models, not for their training recipes (one seed each).",
    ),
    "one trained once": (
        CLEAR,
        {"one_seed": ("net",)},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images; this holds for this "
        "trained net, not for its training recipe (one seed).",
    ),
    "seeds spread more than the difference": (
        CLEAR,
        {"training_sd": 0.07, "trainings": 3},
        "As trained here, net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, "
        "0.0760], p < .001 after Holm's correction for 15 comparisons; better on 139 of 141 images; it is "
        "not distinguishable from chance in training: that alone leaves the mean difference of 3 trainings "
        "uncertain by ±0.1739 (95 %).",
    ),
    "seeds spread less than the difference, but are too few": (
        CLEAR,
        {"training_sd": 0.03, "trainings": 3},
        # Student's t at 0.975 with 2 degrees of freedom is 4.3027; 4.3027 * 0.03 / sqrt(3) = 0.0745
        "As trained here, net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, "
        "0.0760], p < .001 after Holm's correction for 15 comparisons; better on 139 of 141 images; it is "
        "not distinguishable from chance in training: that alone leaves the mean difference of 3 trainings "
        "uncertain by ±0.0745 (95 %).",
    ),
    "folds": (
        CLEAR,
        {"folds": 5},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images; the folds share training "
        "images, so the interval is too narrow and p too small.",
    ),
    "equal to four digits": (
        UNCLEAR,
        {"difference": 0.00001},
        "No difference in mean Dice between net and pixels on images like these was shown: their means are "
        "equal to four digits, 0.0000 [-0.0040, 0.0060], p = .620 after Holm's correction for 15 "
        "comparisons; that does not show that they are equal, but a difference of more than 0.0060 is "
        "unlikely.",
    ),
    "not shown, with seeds": (
        UNCLEAR,
        {"training_sd": 0.002, "trainings": 3},
        "No difference in mean Dice between net and pixels on images like these was shown: the first is "
        "higher by 0.0010 [-0.0040, 0.0060], p = .620 after Holm's correction for 15 comparisons; that does "
        "not show that they are equal, but a difference of more than 0.0110 is unlikely.",
    ),
    "seeds spread less": (
        CLEAR,
        {"training_sd": 0.002, "trainings": 3},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images.",
    ),
    "few images": (
        CLEAR,
        {"n": 28, "better": 27, "worse": 1},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p < .001 "
        "after Holm's correction for 15 comparisons; better on 27 of 28 images; with only 28 images, "
        "interval and test are unreliable if failures are rare.",
    ),
    "on validation": (
        CLEAR,
        {"where": "the validation images", "final": False},
        "net has a higher mean Dice than pixels on the validation images: by 0.0610 [0.0490, 0.0760], p < "
        ".001 after Holm's correction for 15 comparisons; better on 139 of 141 images; no final claim, "
        "since the approaches may have been chosen by these images.",
    ),
    "not shown": (
        UNCLEAR,
        {},
        "No difference in mean Dice between net and pixels on images like these was shown: the first is "
        "higher by 0.0010 [-0.0040, 0.0060], p = .620 after Holm's correction for 15 comparisons; that does "
        "not show that they are equal, but a difference of more than 0.0060 is unlikely.",
    ),
    "not shown, trained once": (
        UNCLEAR,
        {"one_seed": ("net",)},
        "No difference in mean Dice between net and pixels on images like these was shown: the first is "
        "higher by 0.0010 [-0.0040, 0.0060], p = .620 after Holm's correction for 15 comparisons; that does "
        "not show that they are equal, but a difference between these trained models of more than 0.0060 is "
        "unlikely.",
    ),
    "not shown after correction alone": (
        UNCLEAR,
        {"low": 0.0001, "high": 0.0023, "p_value": 0.03, "p_holm": 0.12},
        "No difference in mean Dice between net and pixels on images like these was shown: the first is "
        "higher by 0.0010 [0.0001, 0.0023], p = .030 by itself but p = .120 after Holm's correction for 15 "
        "comparisons; that does not show that they are equal, but a difference of more than 0.0023 is "
        "unlikely.",
    ),
    "not shown with few images, which exclude nothing": (
        UNCLEAR,
        {"n": 2, "low": NAN, "high": NAN, "p_value": 0.5, "p_holm": 1.0, "better": 1, "worse": 1},
        "Nothing can be shown about net and pixels with 2 images and 15 comparisons: the test can't give a p "
        "below 1 then, however far apart they are; the difference is 0.0010, p > .999 after Holm's "
        "correction for 15 comparisons; with only 2 images, interval and test are unreliable if failures are "
        "rare.",
    ),
    "nothing can be shown with five": (
        UNCLEAR,
        {"n": 5, "p_value": 0.0625, "p_holm": 0.0625, "family": 1, "better": 5, "worse": 0},
        "Nothing can be shown about net and pixels with 5 images: the test can't give a p below 0.062 then, "
        "however far apart they are; the difference is 0.0010 [-0.0040, 0.0060], p = .062; with only 5 "
        "images, interval and test are unreliable if failures are rare.",
    ),
    "with six, all of one sign, something can": (
        UNCLEAR,
        {"n": 6, "p_value": 0.0625, "p_holm": 0.0625, "family": 1, "better": 4, "worse": 2},
        "No difference in mean Dice between net and pixels on images like these was shown: the first is "
        "higher by 0.0010 [-0.0040, 0.0060], p = .062; that does not show that they are equal; with only 6 "
        "images, interval and test are unreliable if failures are rare.",
    ),
    "test and interval disagree": (
        UNCLEAR,
        {"low": -0.0001, "high": 0.002, "p_value": 0.03, "p_holm": 0.04996},
        "Whether net or pixels has the higher mean Dice on images like these stays open: the test of their "
        "difference, 0.0010 [-0.0001, 0.0020], finds one (p = .0499 after Holm's correction for 15 "
        "comparisons), but its interval holds 0.",
    ),
    "the same everywhere": (
        CLEAR,
        {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0, "p_holm": 1.0, "better": 0, "worse": 0},
        "net and pixels have the same Dice on all 141 images: no difference was shown here, which does not "
        "show that they are the same elsewhere.",
    ),
    "at the level": (
        CLEAR,
        {"p_holm": 0.05},
        "net has a higher mean Dice than pixels on images like these: by 0.0610 [0.0490, 0.0760], p = .050 "
        "after Holm's correction for 15 comparisons; better on 139 of 141 images.",
    ),
    "untested": (
        CLEAR,
        {"n": 1, "p_value": NAN, "p_holm": NAN, "low": NAN, "high": NAN, "better": 1, "worse": 0},
        "Nothing can be concluded about net and pixels: 1 image is too few for a test.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_sentence(case: str) -> None:
    comparison, changes, sentence = CASES[case]
    assert conclude(dataclasses.replace(comparison, **changes)) == sentence


def _let_seeds_agree(results: Path) -> None:
    table = read_table(results, "statistics")
    table.loc[table["kind"] == "paired", "seed_sd"] = 0.001
    write_table(results / "statistics.csv", "statistics", table)


def test_two_seeds_that_differ_are_too_few(results: Path) -> None:
    # t at 0.975 with one degree of freedom is 12.706; 12.706 * 0.0141 * sqrt(2) / sqrt(2) = 0.1792.
    assert (
        "the mean difference of 2 trainings uncertain by ±0.1792" in list_conclusions(read_edited(results))[0]
    )


def test_stored_comparisons_are_stated_from_the_better_to_the_worse(results: Path) -> None:
    # Stored as mean-mask minus pixels, -0.25 [-0.30, 0.05]. Two seeds that agree closely: Student's t has one
    # degree of freedom.
    _let_seeds_agree(results)
    few = "with only 6 images, interval and test are unreliable if failures are rare."
    random = "pixels started from random weights"
    assert list_conclusions(read_edited(results)) == [
        "good_net has a higher mean Dice than pixels on images like these: by 0.1500 [0.1000, 0.2000], p = "
        ".012 "
        f"after Holm's correction for 3 comparisons; better on 6 of 6 images; {random}; {few}",
        "good_net has a higher mean Dice than mean-mask on images like these: by 0.4000 [0.3500, 0.4500], p "
        "= .012 "
        f"after Holm's correction for 3 comparisons; better on 6 of 6 images; {few}",
        "Nothing can be shown about pixels and mean-mask with 6 images and 3 comparisons: the test can't "
        "give a p below 0.094 then, however far apart they are; the difference is 0.2500 [-0.0500, 0.3000], "
        f"p = .080 after Holm's correction for 3 comparisons; {random}; {few}",
    ]


def test_a_pair_whose_order_differs_from_the_ranks_is_stated_by_its_own_means(results: Path) -> None:
    _let_seeds_agree(results)
    table = read_table(results, "statistics")
    first = (table["kind"] == "paired") & (table["approach"] == "good_net") & (table["other"] == "pixels")
    table.loc[first, ["value", "low", "high"]] = [-0.15, -0.2, -0.1]
    write_table(results / "statistics.csv", "statistics", table)
    assert list_conclusions(read_edited(results))[0].startswith(
        "pixels has a higher mean Dice than good_net on images like these: by 0.1500 [0.1000, 0.2000]"
    )


def test_one_seed_is_held_against_what_is_trained_and_not_against_baselines(results: Path) -> None:
    assert [c.one_seed for c in read_comparisons(read_edited(results))] == [(), (), ()]
    write_json(results / "run.json", {**run_record(), "seeds": [0]})
    found = [c.one_seed for c in read_comparisons(read_edited(results))]
    assert found == [("good_net", "pixels"), ("good_net",), ("pixels",)]


def test_what_was_trained_once_beside_seeds_of_others_is_named(results: Path) -> None:
    entries = run_record()["approaches"]
    record = [{**entry, "depends_on_seed": entry["name"] != "mean-mask"} for entry in entries]
    write_json(results / "run.json", {**run_record(), "approaches": record})
    table = read_table(results, "statistics")
    table.loc[table["approach"].isin(["pixels", "mean-mask"]) & (table["kind"] == "mean"), "seeds"] = 1
    write_table(results / "statistics.csv", "statistics", table)
    contents = read_edited(results)
    assert [c.one_seed for c in read_comparisons(contents)] == [("pixels",), (), ("pixels",)]
    assert describe_seeds(contents).endswith(
        "but one training of what is deterministic (mean-mask); trained with seed 0 alone: pixels"
    )


def test_what_was_trained_with_fewer_seeds_is_named(results: Path) -> None:
    write_json(results / "run.json", {**run_record(), "seeds": [0, 1, 2]})
    table = read_table(results, "statistics")
    table.loc[table["kind"] == "mean", "seeds"] = 3
    table.loc[(table["approach"] == "pixels") & (table["kind"] == "mean"), "seeds"] = 2
    write_table(results / "statistics.csv", "statistics", table)
    assert (
        describe_seeds(read_edited(results)) == "3 seeds (0, 1, 2); trained with fewer seeds: pixels with 2"
    )


def test_the_spread_of_training_is_the_pairs_own_or_both_together(results: Path) -> None:
    # Each approach's seeds spread by 0.0141; two independent ones by sqrt(2) as much.
    contents = read_edited(results)
    assert [c.training_sd for c in read_comparisons(contents)] == pytest.approx([0.0141 * 2**0.5] * 3)
    table = read_table(results, "statistics")
    table.loc[table["kind"] == "paired", "seed_sd"] = 0.003
    table.loc[(table["kind"] == "mean") & (table["approach"] == "pixels"), "seed_sd"] = None
    write_table(results / "statistics.csv", "statistics", table)
    assert [c.training_sd for c in read_comparisons(read_edited(results))] == pytest.approx([0.003] * 3)
    table.loc[table["kind"] == "paired", "seed_sd"] = None
    write_table(results / "statistics.csv", "statistics", table)
    assert read_comparisons(read_edited(results))[0].training_sd == pytest.approx(0.0141)


@pytest.mark.parametrize(
    ("changes", "where", "final"),
    [
        ({"evaluate_on": "validation"}, "the validation images", False),
        ({"data": {**run_record()["data"], "dataset": "phantom"}}, "phantoms like these", True),
    ],
)
def test_a_claim_names_the_images_it_is_about(results: Path, changes: dict, where: str, final: bool) -> None:
    write_json(results / "run.json", {**run_record(), **changes})
    if "data" in changes:
        for name in ("scores", "statistics", "calibration"):
            table = read_table(results, name).assign(dataset="phantom")
            write_table(results / f"{name}.csv", name, table)
    assert {(c.where, c.final) for c in read_comparisons(read_edited(results))} == {(where, final)}


def test_patients_are_counted_where_they_have_several_images(results: Path) -> None:
    scores = read_table(results, "scores")
    write_table(results / "scores.csv", "scores", scores.assign(patient=scores["source"]))
    assert {c.unit for c in read_comparisons(read_edited(results))} == {"patient"}


def test_comparisons_on_other_datasets_belong_to_the_family(results: Path) -> None:
    table = read_table(results, "statistics")
    rows = [*table.to_dict("records"), *table.assign(dataset="another").to_dict("records")]
    write_table(results / "statistics.csv", "statistics", rows)
    contents = read_edited(results)
    assert {c.family for c in read_comparisons(contents)} == {6}
    assert "after Holm's correction for 6 comparisons" in list_conclusions(contents)[0]


def test_without_comparisons_nothing_is_concluded(results: Path) -> None:
    table = read_table(results, "statistics")
    write_table(results / "statistics.csv", "statistics", table[table["kind"] != "paired"])
    assert list_conclusions(read_edited(results)) == []
