"""summary.tex and summary-full.tex: numbers by hand, and a parse of what LaTeX would read."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from lungseg.report.contents import Contents
from lungseg.report.numbers.quality import MAIN_COLUMNS, collect_main_rows
from lungseg.report.tables.paper import BLOCKS, make_full_paper_table, make_paper_table
from lungseg.results import read_table, write_table
from lungseg.system.errors import InputError
from tests.report.results_directory import audit_record, read_edited, run_record
from tests.report.tables.test_summary import change_run

NASTY = {
    "good_net": r"[*] 50 % & more_or_less · #1 {x} ~ ^ \ $5 <b> |",
    "pixels": "*starred* [0, 1]",
    "mean-mask": "_^&%",
}


def make(results: Path, columns: list[str] | None = None) -> str:
    contents = read_edited(results)
    return make_paper_table(contents, collect_main_rows(contents), columns)


def make_full(results: Path) -> str:
    contents = read_edited(results)
    return make_full_paper_table(contents, collect_main_rows(contents))


def keep_device(results: Path, device: str) -> None:
    timings = read_table(results, "timings")
    write_table(results / "timings.csv", "timings", timings[timings["device"] == device])


def parse(text: str) -> list[list[list[str]]]:
    """Check that LaTeX can read a text; return the cells of each row of each of its tables."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    open_environments: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{([a-z]+\*?)\}", body):
        if verb == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    depth = 0
    plain = re.sub(r"\\\\|\\[&%$#_{}]", "", body)  # without line ends and escaped letters
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[%$#_^~<>|]", re.sub(r">\{\\raggedright", "", plain))
    tables = []
    for columns, inner in re.findall(
        r"\\begin\{tabularx\}.*?X([lr]*)@\{\}\}\n(.*?)\\end\{tabularx\}", body, re.S
    ):
        rows = [line.removesuffix(r" \\") for line in inner.splitlines() if line.endswith(r"\\")]
        tables.append([re.split(r"(?<!\\)&", row) for row in rows])
        assert {len(row) for row in tables[-1]} == {len(columns) + 1}
        assert not any(row.startswith(("[", "*")) for row in rows)
    outside = re.sub(r"\\begin\{tabularx\}.*?\\end\{tabularx\}", "", plain, flags=re.S)
    assert "&" not in outside
    return [[[cell.strip() for cell in row] for row in table] for table in tables]


def test_the_table_has_seven_columns_and_the_best_dice_in_bold(results: Path) -> None:
    text = make(results)
    (table,) = parse(text)
    # Training: (130 + 150) / 2 s. Whole on the CPU: 1 + 20 + 0.5 + 0.25 ms, on CUDA a tenth.
    assert table == [
        ["Approach", "Dice", "HD95", "ASSD", "Training", "Device", "ms/image"],
        ["", r"[95 \% interval]", "(px)", "(px)", "(min)", "", ""],
        [r"good\_\allowbreak{}net", r"\textbf{.8900} [.8600, .9200]", "4.00", "1.00", "2.33", "CPU", "21.8"],
        ["", "", "", "", "", "CUDA", "2.17"],
        ["pixels", ".7400 [.7100, .7700]", "12.0", "3.00", "1.17", "CPU", "9.75"],
        ["", "", "", "", "", "CUDA", "0.975"],
        ["mean-mask", ".4900 [.4600, .5200]", "30.0", "8.00", "--", "--", "--"],
    ]
    caption = r"Lung segmentation on 6 test images of made-up: mean Dice over images with its 95 \% interval."
    assert rf"\caption{{{caption}}}" in text
    assert r"\label{tab:tiny}" in text
    assert text.startswith("% \\usepackage{booktabs,tabularx} in the preamble, then \\input{summary}")
    notes = text[text.index(r"\end{tabularx}") :]
    assert "Only 6 images" in notes
    assert "deadbeef" not in text
    assert "resizebox" not in text


def test_one_device_is_said_below_the_table_and_leaves_room_for_iou(results: Path) -> None:
    keep_device(results, "cpu")
    text = make(results)
    assert parse(text)[0][0] == ["Approach", "Dice", "IoU", "HD95", "ASSD", "Training", "ms/image"]
    assert "median, on CPU; copies between host and device included." in text


def test_what_was_not_measured_has_no_column(results: Path) -> None:
    (results / "timings.csv").unlink()
    scores = read_table(results, "scores").assign(distance_unit=["px", "mm"] * 18)
    write_table(results / "scores.csv", "scores", scores)
    statistics = read_table(results, "statistics")
    statistics = statistics[~statistics["metric"].isin(["hd95", "assd"])]
    write_table(results / "statistics.csv", "statistics", statistics)
    assert parse(make(results))[0][0] == ["Approach", "Dice", "IoU", "Training"]


def test_a_mean_without_an_interval_has_none_in_its_title(results: Path) -> None:
    statistics = read_table(results, "statistics")
    write_table(results / "statistics.csv", "statistics", statistics.assign(low=None, high=None))
    text = make(results)
    assert [row[1] for row in parse(text)[0][:3]] == ["Dice", "", r"\textbf{.8900}"]
    assert "of made-up: mean Dice over images.}" in text
    assert "bootstrap-t" not in text


def test_columns_are_chosen_by_their_names(results: Path) -> None:
    (table,) = parse(make(results, ["pooled_f1", "approach", "hd95", "pooled_f1"]))
    assert table == [
        ["Approach", "Pooled", "HD95"],
        ["", "F1", "(px)"],
        [r"good\_\allowbreak{}net", ".8910", "4.00"],
        ["pixels", ".7410", "12.0"],
        ["mean-mask", ".4910", "30.0"],
    ]
    text = make(results, ["iou"])
    assert "of made-up: means over images.}" in text
    assert "HD95" not in text
    assert "Time per image" not in text


def test_each_column_of_the_summary_can_be_chosen(results: Path) -> None:
    contents = read_edited(results)
    frame = collect_main_rows(contents)
    titles = set()
    for name in MAIN_COLUMNS:
        (table,) = parse(make_paper_table(contents, frame, [name, "device"]))
        if name not in ("approach", "device"):
            titles.add((table[0][1], table[1][1] if table[1][0] == "" else ""))
    assert len(titles) == len(MAIN_COLUMNS) - 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["dise"], "unknown column 'dise': did you mean 'dice'? Choose from approach, dataset, "),
        (["zzzz"], "unknown column 'zzzz': choose from approach, dataset, "),
        (["dice", "iou", "hd95", "assd", "brier", "recall", "n"], "8 columns with the approach don't fit"),
        (["dice", "ms_per_image"], "several devices were timed, so a column of times needs its device"),
    ],
)
def test_columns_that_cannot_be_shown_are_one_sentence(
    results: Path, columns: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make(results, columns)


def test_nasty_names_are_printed_as_they_are(results: Path) -> None:
    record = run_record()
    entries = [entry | {"label": NASTY.get(entry["name"], "x_%")} for entry in record["approaches"]]
    data = record["data"] | {"dataset": "made_up & 50 %"}
    change_run(results, name="tiny.v_2", approaches=entries, data=data, leaks=["a_1 and b%"])
    text = make(results)
    (table,) = parse(text)
    first = r"{[*] 50 \% \& more\_\allowbreak{}or\_\allowbreak{}less · \#1 \{x\} \textasciitilde{}"
    assert table[2][0].startswith(first)
    assert table[4][0] == "{*starred* [0, 1]}"
    assert r"\label{tab:tiny-v-2}" in text
    assert r"of made\_up \& 50 \%: mean" in text
    assert len(parse(make_full(results))) == len(BLOCKS)


def test_pairs_that_may_show_one_person_are_counted_but_not_named(results: Path) -> None:
    change_run(results, audit=audit_record(lookalikes=["Doe-J and Roe-K may show the same person"]))
    text = make(results)
    assert "1 pair across the split may show one person under two names." in text
    assert "Doe-J" not in text


def test_the_full_table_has_blocks_of_at_most_seven_columns(results: Path) -> None:
    text = make_full(results)
    tables = parse(text)
    assert len(tables) == len(BLOCKS)
    assert max(len(table[0]) for table in tables) == 7
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:tiny-full"]
    titles = {title for table in tables for title in table[0]}
    assert {"Weights", "Dice", "Group", "IoU", "HD95 (px)", "ASSD (px)", "Training", "ms/image"} <= titles
    # good_net alone has letter a; the two others are not separated from each other.
    groups = [row[tables[0][0].index("Group")] for row in tables[0][2:]]
    assert groups == ["a", "b", "b"]
    # Intervals of the fixture are 10 % around the mean.
    assert tables[1][2][1] == "4.00 [3.60, 4.40]"


def test_blocks_that_do_not_fit_on_a_page_go_into_further_floats(results: Path) -> None:
    contents = read_edited(results)
    frame = collect_main_rows(contents)

    def count_floats(frame: pd.DataFrame, contents: Contents) -> int:
        text = make_full_paper_table(contents, frame)
        assert text.count(r"\begin{table*}") == len(set(re.findall(r"\\label\{.*?\}", text)))
        return text.count(r"\begin{table*}")

    many = pd.concat([frame.assign(approach=frame["approach"] + f" {number}") for number in range(8)])
    assert count_floats(frame.drop_duplicates("approach"), contents) == 1
    assert count_floats(many, contents) == len(BLOCKS)


def test_without_results_there_is_still_a_table(results: Path) -> None:
    for name in ("scores", "statistics", "timings", "training", "history"):
        (results / f"{name}.csv").unlink()
    assert parse(make(results)) == [[["Approach"]]]
    make_full(results)
