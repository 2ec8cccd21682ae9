"""What summary.md, .csv and .tex say, against numbers computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lungseg.report.contents import read_contents
from lungseg.report.markup import (
    escape_tex,
    format_amount,
    format_difference,
    format_duration,
    format_p,
    format_signed,
)
from lungseg.results import FORMAT, finish_run, read_table, write_table
from lungseg.system.errors import InputError, shorten_paths
from lungseg.system.files import write_json
from lungseg.system.stored import write_record
from tests.report.results_directory import run_record, write_summary

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def rows_of(markdown: str, title: str) -> list[list[str]]:
    """The body of the first table below a title: cells, a list a row."""
    below = markdown[markdown.index(title) :].splitlines()
    table = [line for line in below if line.startswith("|")]
    first = below.index(table[0])
    rows = []
    for line in below[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[2:]


def change_run(directory: Path, **changes: object) -> None:
    write_json(directory / "run.json", {**run_record(), **changes})


def test_main_table_is_sorted_with_the_best_dice_in_bold_and_a_row_per_device(results: Path) -> None:
    rows = rows_of(write_summary(results), "# lungseg")
    assert [row[0] for row in rows] == [r"good\_net", "", "pixels", "", "mean-mask"]
    assert rows[0][2] == "**0.8900 [0.8600, 0.9200]**"
    assert rows[2][2] == "0.7400 [0.7100, 0.7700]"
    assert [row[3] for row in rows] == ["a", "", "b", "", "b"]
    # Seed SD, IoU, HD95. Training: (130 + 150) / 2 s. Whole on the CPU: 1 + 20 + 0.5 + 0.25 ms.
    assert rows[0][4:] == ["0.0141", "0.8900", "4.00", "2 min 20 s", "CPU", "21.8 (0.500)"]
    assert rows[1] == [""] * 8 + ["CUDA", "2.17 (0.500)"]
    assert rows[4][-2:] == ["–", "–"]


def test_main_table_without_distances_has_no_columns_of_them(results: Path) -> None:
    table = read_table(results, "statistics")
    write_table(results / "statistics.csv", "statistics", table[~table["metric"].isin(["hd95", "assd"])])
    text = write_summary(results)
    assert len(rows_of(text, "# lungseg")[0]) == 9
    assert "HD95" not in text[: text.index("\n## ")]


def test_main_table_without_times_says_so_and_has_no_columns_of_them(results: Path) -> None:
    (results / "timings.csv").unlink()
    text = write_summary(results)
    rows = rows_of(text, "# lungseg")
    assert [row[0] for row in rows] == [r"good\_net", "pixels", "mean-mask"]
    assert rows[0][-2:] == ["4.00", "2 min 20 s"]
    assert "No approach was timed." in text
    assert "Time per image" not in text


def test_several_number_formats_stand_with_the_device(results: Path) -> None:
    timings = read_table(results, "timings")
    timings = timings[timings["device"] == "cpu"]
    timings.loc[timings["approach"] == "pixels", "precision"] = "bfloat16"
    write_table(results / "timings.csv", "timings", timings)
    assert [row[-2] for row in rows_of(write_summary(results), "# lungseg")] == [
        *("CPU, float32", "CPU, bfloat16", "–")
    ]


def test_random_weights_are_named_in_the_table_and_below_it(results: Path) -> None:
    text = write_summary(results)
    weights = {row[0]: row[1] for row in rows_of(text, "# lungseg") if row[0]}
    assert weights == {r"good\_net": "ImageNet", "pixels": "random weights", "mean-mask": "none"}
    assert "Started from random weights, not from ImageNet's: pixels." in text


def test_dice_by_source_is_the_mean_of_its_images(results: Path) -> None:
    # good_net, east: (0.95 + 0.85) / 2, west: (0.9 + 0.9 + 0.85 + 0.95) / 4, less half of seed 1's 0.02.
    rows = rows_of(write_summary(results), "## Dice by source")
    assert rows[0] == [r"good\_net", "0.8900", "0.8900"]
    assert rows[1] == ["pixels", "0.7400", "0.7400"]
    scores = read_table(results, "scores")
    scores.loc[(scores["image_id"] == "img_0") & (scores["approach"] == "pixels"), "dice"] = 0.0
    write_table(results / "scores.csv", "scores", scores)
    # img_1 alone is left of east's sum: (0 + 0.69) / 2.
    assert rows_of(write_summary(results), "## Dice by source")[1] == ["pixels", "0.3450", "0.7400"]


def test_one_source_has_no_table_of_sources(results: Path) -> None:
    write_table(results / "scores.csv", "scores", read_table(results, "scores").assign(source="east"))
    assert "Dice by source" not in write_summary(results)


def test_stages_stand_in_the_order_of_work_with_their_sum_beside_the_whole(results: Path) -> None:
    text = write_summary(results)
    header = (
        "| Approach | Device | Decode | Prepare | Network | Features | Regression | Finish | Sum | Whole "
    )
    assert f"{header}| Sum/whole |" in text
    rows = rows_of(text, "## Time by stage")
    assert rows[2] == ["pixels", "CPU", "2.00", "1.00", "–", "3.00", "5.00", "0.500", "9.50", "9.75", "0.97"]
    assert "More than 10 %" not in text


def test_a_sum_of_stages_far_from_the_whole_is_marked(results: Path) -> None:
    timings = read_table(results, "timings")
    timings.loc[(timings["stage"] == "regression") & (timings["device"] == "cpu"), "median_ms"] = 7.0
    write_table(results / "timings.csv", "timings", timings)
    text = write_summary(results)
    assert [row[-1] for row in rows_of(text, "## Time by stage")] == ["0.99", "0.99", r"1.18 \*", "0.97"]
    assert r"\* More than 10 % apart." in text


def test_times_with_copies_count_if_both_were_taken(results: Path) -> None:
    timings = read_table(results, "timings")
    whole = timings[(timings["stage"] == "whole") & (timings["device"] == "cuda")]
    without = whole.assign(copies=False, median_ms=whole["median_ms"] / 2)
    write_table(results / "timings.csv", "timings", pd.concat([without, timings]))
    text = write_summary(results)
    assert ["CUDA", "2.17 (0.500)"] in [row[-2:] for row in rows_of(text, "# lungseg")]
    # Both stand in the table of latencies.
    latencies = [row[5:7] for row in rows_of(text, "## Latency") if row[:2] == [r"good\_net", "CUDA"]]
    assert sorted(latencies) == [["no", "0.544"], ["no", "1.09"], ["yes", "1.09"], ["yes", "2.17"]]


def test_what_is_missing_is_said_with_its_reason_but_without_folders(results: Path) -> None:
    text = write_summary(results)
    assert "- absent was not run: needs 80 % of big.bin." in text
    assert "- timings: cuda is empty: no CUDA device on this machine." in text
    assert "/home" not in text
    assert "/opt" not in text


def test_few_images_are_warned_of(results: Path) -> None:
    warning = "Only 6 images: with under 50, rare failures break any interval"
    assert warning in write_summary(results)
    scores = read_table(results, "scores")
    write_table(results / "scores.csv", "scores", scores.assign(patient=scores["source"]))
    assert "Only 2 patients: with under 50" in write_summary(results)
    many = pd.concat([scores.assign(image_id=f"{n}", patient=f"{n}") for n in range(50)])
    write_table(results / "scores.csv", "scores", many)
    assert "with under 50" not in write_summary(results)


def test_validation_scores_and_shared_training_images_are_said(results: Path) -> None:
    text = write_summary(results)
    assert "validation part" not in text
    assert "folds share" not in text
    fold = run_record()["splits"][0]
    change_run(results, evaluate_on="validation", splits=[fold, {**fold, "fold": 1}])
    text = write_summary(results)
    assert "Scored on the validation part" in text
    assert "The folds share training images" in text


def test_csv_has_plain_numbers_on_every_row(results: Path) -> None:
    write_summary(results)
    frame = pd.read_csv(results / "summary.csv")
    assert list(frame["approach"]) == ["good_net", "good_net", "pixels", "pixels", "mean-mask"]
    assert frame["dice"].tolist() == pytest.approx([0.89, 0.89, 0.74, 0.74, 0.49])
    assert frame["pooled_f1"].iloc[0] == pytest.approx(0.891)
    assert frame["ms_per_image"].iloc[0] == pytest.approx(21.75)
    assert frame["best_images_per_s"].iloc[0] == pytest.approx(1000 / 21.75)
    assert frame["best_batch_size"].iloc[0] == 8
    assert frame["hd95_high"].iloc[0] == pytest.approx(4.4)
    assert frame["precision"].iloc[0] == pytest.approx(0.89)
    assert set(frame["leaks"]) == {0}
    assert frame["training_seconds"].iloc[0] == pytest.approx(140)


def test_a_run_without_any_result_still_gives_a_page(results: Path) -> None:
    for name in ("scores", "statistics", "timings", "training", "history"):
        (results / f"{name}.csv").unlink()
    text = write_summary(results)
    assert "No approach has results yet." in text
    assert "absent was not run" in text
    assert (results / "summary.tex").exists()


def test_tables_are_the_same_bytes_again(results: Path) -> None:
    names = ("summary.md", "summary.csv", "summary.tex", "summary-full.tex", "datapackage.json")
    write_summary(results)
    first = [(results / name).read_bytes() for name in names]
    write_summary(results)
    assert [(results / name).read_bytes() for name in names] == first


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda path: path.unlink(), "holds no benchmark results"),
        (lambda path: path.write_text("{"), r"run\.json is damaged: run"),
        (lambda path: path.write_text(""), r"run\.json is damaged: run"),
        (lambda path: path.write_text('{"format": 4}'), "damaged or was changed after it was written"),
        (lambda path: path.write_text(path.read_text().replace('"tiny"', '"tin"')), "was changed"),
        (lambda path: write_record(path, {**run_record(), "format": 9, "tables": {}}), f"format {FORMAT}"),
        (lambda path: write_record(path, {**run_record(), "finished": None}), "not finished, so it has no"),
    ],
)
def test_unusable_run_json_is_one_sentence(
    results: Path, edit: Callable[[Path], object], message: str
) -> None:
    edit(results / "run.json")
    with pytest.raises(InputError, match=message):
        read_contents(results)


@pytest.mark.parametrize("damage", ["one digit", "a row less", "empty", "gone"])
def test_a_table_that_is_not_the_runs_is_one_sentence_that_names_it(results: Path, damage: str) -> None:
    path = results / "scores.csv"
    text = path.read_text()
    match damage:
        case "one digit":
            place = text.rindex("0.9")
            path.write_text(f"{text[:place]}0.8{text[place + 3 :]}")
        case "a row less":
            path.write_text("".join(text.splitlines(keepends=True)[:-1]))
        case "empty":
            path.write_text("")
        case "gone":
            path.unlink()
    with pytest.raises(InputError, match=r"scores\.csv .*, so it isn't this run's: run the benchmark again"):
        read_contents(results)


def test_a_failed_trial_is_named_with_its_reason(results: Path) -> None:
    failure = {"approach": "pixels", "fold": 0, "seed": 1, "reason": "pixels, fold 0, seed 1: it has NaN"}
    finish_run(results, {**run_record(), "failed": [failure]})
    expected = "pixels has no row, because a trial of it failed: pixels, fold 0, seed 1: it has NaN."
    assert expected in write_summary(results)


@pytest.mark.parametrize("published", sorted(REFERENCE.glob("*/run.json")), ids=lambda path: path.parent.name)
def test_published_results_can_be_read(published: Path) -> None:
    assert len(read_contents(published.parent).scores)


def test_run_json_with_unknown_keys_is_read(results: Path) -> None:
    record = json.loads((results / "run.json").read_text())
    write_json(results / "run.json", {**record, "later": 1})
    assert "tiny" in write_summary(results)


def test_tex_specials() -> None:
    assert escape_tex("a_b & 50 % {x} \\ ~^ #$") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{} \#\$"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("missing /home/a/w/vgg19.safetensors: get it", "missing vgg19.safetensors: get it"),
        ("train/validation/test", "train/validation/test"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("in ~/.cache/torch", "in torch"),
        (r"C:\Users\me\x.png is bad", "x.png is bad"),
        ("images/s or ms/image", "images/s or ms/image"),
    ],
)
def test_folders_of_a_machine_are_not_printed(text: str, shown: str) -> None:
    assert shorten_paths(text) == shown


def test_numbers_as_people_read_them() -> None:
    values = (0.00099, 0.001, 0.0124, 0.04951, 0.04999, 0.05, 0.62, 0.9996, 1.0, float("nan"))
    assert [format_p(value) for value in values] == [
        *("< .001", ".001", ".012", ".0495", ".0499", ".050", ".620", "> .999", "> .999", "–")
    ]
    assert [format_difference(value) for value in (0.012, -0.00001, -0.5)] == [
        "+0.0120",
        "+0.0000",
        "-0.5000",
    ]
    assert [format_signed(value) for value in (-15.34, 0.0626)] == ["-15.3", "+0.063"]
    assert [format_amount(value) for value in (0.04, 1.234, 12.34, 123.4, 1234.5, float("nan"))] == [
        *("0.040", "1.23", "12.3", "123", "1,234", "–")
    ]
    assert [format_duration(value) for value in (3.21, 59.96, 125, 3599.7, 7500)] == [
        *("3.2 s", "1 min 00 s", "2 min 05 s", "1 h 00 min", "2 h 05 min")
    ]
