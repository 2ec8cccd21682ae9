"""The tables of summary.md below the main one, and the line on leaks that all of them carry."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from lungseg.report.findings import collect_findings
from lungseg.report.tables.readme import fill_readme
from lungseg.report.tables.terminal import make_short_table
from lungseg.results import read_table, write_table
from tests.report.results_directory import audit_record, read_edited, write_summary
from tests.report.tables.test_summary import change_run, rows_of

NAMES = [r"good\_net", "pixels", "mean-mask"]


def header_of(markdown: str, title: str) -> list[str]:
    line = next(line for line in markdown[markdown.index(title) :].splitlines() if line.startswith("|"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_sections_stand_in_the_order_of_their_weight(results: Path) -> None:
    titles = [line[3:] for line in write_summary(results).splitlines() if line.startswith("## ")]
    assert titles == [
        *("Paired differences in Dice", "Secondary endpoints, exploratory", "Stability of the ranks"),
        *("Spread over images", "Boundaries and lungs", "Pixels and probabilities", "Dice by source"),
        *("Latency", "Throughput, images/s by batch size", "Which speeds are distinguishable"),
        *("Time by stage, ms per image", "Training", "Appendix: each comparison in a sentence"),
        "Where this comes from",
    ]


def test_boundaries_have_their_unit_and_the_rule_for_a_missed_mask(results: Path) -> None:
    text = write_summary(results)
    assert header_of(text, "## Boundaries")[1:4] == [
        *("HD95, px [95 % interval]", "ASSD, px [95 % interval]", "Hausdorff, px")
    ]
    # Intervals of the fixture are 10 % around the mean.
    assert rows_of(text, "## Boundaries")[0] == [
        *(NAMES[0], "4.00 [3.60, 4.40]", "1.00 [0.900, 1.10]", "9.00"),
        *("0.8000", "0.9500", "0.8800", "0.9000", "0.0300"),
    ]
    assert "With one mask empty, a distance is the image's diagonal." in text
    scores = read_table(results, "scores").assign(distance_unit="mm")
    write_table(results / "scores.csv", "scores", scores)
    assert "HD95, mm" in write_summary(results)


def test_calibration_error_is_the_mean_gap_of_bins_weighted_by_pixels(results: Path) -> None:
    # good_net: 300 of 1,000 pixels are off by 0.1; pixels: all are; the doubled counts of seed 1 weigh alike.
    rows = rows_of(write_summary(results), "## Pixels and probabilities")
    assert [row[-1] for row in rows] == ["0.0300", "0.1000", "–"]
    # A second fold that is off the other way in the same bin, by as many pixels: 0.1 of 300 of 2,000 pixels
    # cancels with -0.1 of 300.
    table = read_table(results, "calibration")
    table = table[(table["approach"] == "good_net") & (table["seed"] == 0)]
    other = table.assign(fold=1, lung_share=[0.1, 0.3, None, 1.0])
    write_table(results / "calibration.csv", "calibration", pd.concat([table, other]))
    rows = rows_of(write_summary(results), "## Pixels and probabilities")
    assert [row[-1] for row in rows] == ["0.0000", "–", "–"]


def test_pixel_accuracy_and_pooled_f1_stand_beside_precision_and_recall(results: Path) -> None:
    text = write_summary(results)
    assert header_of(text, "## Pixels and")[1:4] == ["Pixel accuracy", "Pooled F1", "Precision"]
    assert rows_of(text, "## Pixels and")[0][1:4] == ["0.8900", "0.8910", "0.8900"]


def test_metrics_that_are_not_stored_have_no_table(results: Path) -> None:
    (results / "calibration.csv").unlink()
    (results / "timing_pairs.csv").unlink()
    table = read_table(results, "statistics")
    table = table[(table["kind"] == "mean") & table["metric"].isin(["dice", "iou"])]
    write_table(results / "statistics.csv", "statistics", table)
    text = write_summary(results)
    for title in ("Boundaries", "Pixels and", "Paired", "Secondary", "concluded", "distinguishable"):
        assert title not in text


def test_spread_has_percentiles_and_the_seeds_own_means(results: Path) -> None:
    table = read_table(results, "statistics")
    table.loc[table["metric"] == "dice", ["p5", "p95"]] = [0.8, 0.95]
    once = (table["approach"] == "mean-mask") & (table["kind"] == "mean")
    table.loc[once, "seeds"] = 1
    table.loc[once, "seed_sd"] = None
    write_table(results / "statistics.csv", "statistics", table)
    scores = read_table(results, "scores")
    write_table(
        results / "scores.csv", "scores", scores[(scores["approach"] != "mean-mask") | (scores["seed"] == 0)]
    )
    text = write_summary(results)
    rows = rows_of(text, "## Spread")
    # Means of the seeds of good_net: 0.90 and 0.88.
    assert rows[0] == [
        *(NAMES[0], "6", "0.8900", "0.8950", "0.0400", "0.8000 to 0.9500", "2", "0.0141", "0.8800 to 0.9000")
    ]
    assert rows[2][-3:] == ["1", "–", "–"]
    assert "2 seeds (0, 1), but one training of what is deterministic (mean-mask)" in text


def test_a_single_seed_has_no_columns_of_seeds(results: Path) -> None:
    scores, table = read_table(results, "scores"), read_table(results, "statistics")
    write_table(results / "scores.csv", "scores", scores[scores["seed"] == 0])
    write_table(results / "statistics.csv", "statistics", table.assign(seeds=1, seed_sd=None))
    change_run(results, seeds=[0])
    text = write_summary(results)
    assert header_of(text, "## Spread")[-1] == "Seeds"
    assert "Seed SD" not in text
    assert "one seed (0)." in text


def test_pairs_are_shown_from_the_better_approach_with_every_test_named(results: Path) -> None:
    text = write_summary(results)
    assert rows_of(text, "## Paired differences") == [
        [
            *(NAMES[0], "pixels", "+0.1500 [+0.1000, +0.2000]", ".004", ".012", ".030"),
            *("+1.000", "6 of 6", "0 of 6"),
        ],
        [
            *(NAMES[0], "mean-mask", "+0.4000 [+0.3500, +0.4500]", ".006", ".012", ".030"),
            *("+1.000", "6 of 6", "0 of 6"),
        ],
        # Stored the other way round: -0.25 [-0.30, +0.05], rank-biserial -1, better on 0.
        [
            *("pixels", "mean-mask", "+0.2500 [-0.0500, +0.3000]", ".080", ".080", ".030"),
            *("+1.000", "6 of 6", "0 of 6"),
        ],
    ]
    assert "the family of 3 comparisons" in text
    assert r"Mean ranks in Dice (1 is best): good\_net 1.00, pixels 2.25, mean-mask 2.75." in text
    assert (
        "p = .009; ranks that differ by less than 1.00 are not distinguishable (Nemenyi, level .05)." in text
    )
    assert "exchangeable" in text


def test_secondary_endpoints_are_marked_and_uncorrected(results: Path) -> None:
    text = write_summary(results)
    assert header_of(text, "## Secondary") == ["Approach", "Other", "HD95, px [95 % interval]", "p"]
    # -20 x the difference in Dice, in the order of the pairs above.
    assert [row[2:] for row in rows_of(text, "## Secondary")] == [
        *(["-3.00", ".004"], ["-8.00", ".006"], ["-5.00", ".080"])
    ]
    assert "not corrected" in text[text.index("## Secondary") : text.index("## Spread")]


def test_latency_has_every_setting_and_throughput_every_batch_size(results: Path) -> None:
    text = write_summary(results)
    latency = rows_of(text, "## Latency")
    # good_net on CUDA: 21.75 x 0.1 ms, 500 x 0.1 + 1 MiB.
    assert latency[1] == [
        *(NAMES[0], "CUDA", "float32", "–", "–", "yes", "2.17", "0.500", "2.67", "51.0", "0.500", "18.3", "–")
    ]
    assert [row[2] for row in latency if row[:2] == [NAMES[0], "CUDA"]] == ["float32", "bfloat16"]
    assert header_of(text, "## Throughput")[-2:] == ["1", "8"]
    # (1 + 2) x 100 / 21.75 and (8 + 2) x 100 / 21.75 images/s, the highest in bold.
    assert rows_of(text, "## Throughput")[0][-2:] == ["13.8", "**46.0**"]
    timings = read_table(results, "timings")
    lost = (timings["batch_size"] == 8) & (timings["device"] == "cpu") & (timings["approach"] == "pixels")
    write_table(results / "timings.csv", "timings", timings[~lost])
    rows = {(row[0], row[1]): row[-2:] for row in rows_of(write_summary(results), "## Throughput")}
    assert rows["pixels", "CPU"] == ["**30.8**", "–"]


def test_a_gpu_shows_its_own_throughput_its_memory_and_which_program_ran(results: Path) -> None:
    plain = write_summary(results)
    assert "## Throughput of the device alone" not in plain  # an older version didn't measure it
    assert "Host memory" not in plain
    timings = read_table(results, "timings").assign(tuned=True, deterministic="yes")
    gpu = (timings["device"] == "cuda") & (timings["stage"] == "whole")
    timings.loc[gpu, "device_images_per_s"] = 1000.0 * timings["batch_size"]
    timings.loc[gpu, ["process_memory_mib", "host_memory_mib", "sm_clock_mhz"]] = [900.0, 2345.0, 1755.0]
    own = gpu & (timings["approach"] == "good_net") & (timings["precision"] == "float32")
    # The same precision and layout, but another program: a row of its own that replaces no other.
    untuned = timings[own].assign(tuned=False, deterministic="no", median_ms=99.0, images_per_s=1.0)
    write_table(results / "timings.csv", "timings", pd.concat([timings, untuned]))
    training = read_table(results, "training").assign(reserved_memory_mib=1.0, host_memory_mib=4321.0)
    write_table(results / "training.csv", "training", training)

    assert "GPU: driver" not in plain
    change_run(results, gpu={"name": "a GPU", "driver": "580.1", "power_limit_w": 700.0})

    text = write_summary(results)
    assert "GPU: driver 580.1, power limit 700 W." in text
    assert header_of(text, "## Latency")[6] == "Program"
    latency = [row for row in rows_of(text, "## Latency") if row[:3] == [NAMES[0], "CUDA", "float32"]]
    assert [(row[6], row[7]) for row in latency] == [
        ("tuned, deterministic", "2.17"),
        ("not tuned nor deterministic", "99.0"),
    ]
    assert latency[0][-3:] == ["900", "2,345", "1,755"]
    alone = rows_of(text, "## Throughput of the device alone")
    assert {row[1] for row in alone} == {"CUDA"}
    assert alone[0][-2:] == ["1,000", "**8,000**"]
    assert {row[-1] for row in rows_of(text, "## Training")} == {"4,321"}
    rows = rows_of(text, "## Time by stage")
    assert [row[-2] for row in rows if row[:2] == [NAMES[0], "CUDA"]] == ["2.17"]


def test_ratios_stand_beside_their_noise_floor_and_the_faster_stands_first(results: Path) -> None:
    table = read_table(results, "timing_pairs")
    # The same comparison written the other way round.
    cpu = (table["kind"] == "A/B") & (table["device"] == "cpu")
    table.loc[cpu, ["approach", "other", "ratio", "low", "high"]] = ["good_net", "pixels", 0.4, 0.25, 0.5]
    write_table(results / "timing_pairs.csv", "timing_pairs", table)
    rows = rows_of(write_summary(results), "## Which speeds")
    assert [row[1] for row in rows[:4]] == ["itself"] * 4
    assert rows[0][:3] + rows[0][-3:] == ["pixels", "itself", "CPU", "1.00", "0.980 to 1.02", "4"]
    assert rows[4][:3] + rows[4][-3:] == ["pixels", NAMES[0], "CPU", "2.50", "2.00 to 4.00", "4"]
    assert rows[5][:3] == ["pixels", NAMES[0], "CUDA"]
    assert rows[5][-3:] == ["not distinguishable", "2.10 to 2.40", "4"]


def test_time_spent_waiting_is_shown_if_measured(results: Path) -> None:
    assert "| Waiting |" not in write_summary(results)
    table = read_table(results, "training")
    table.loc[table["approach"] == "good_net", "wait_share"] = [0.1, 0.15]
    write_table(results / "training.csv", "training", table)
    assert "| Waiting |" in write_summary(results)
    assert [row[-1] for row in rows_of(write_summary(results), "## Training")] == ["12.5 %", "–"]


def test_parts_of_a_batch_are_shown_if_there_are_any_and_unequal_ones_are_named(results: Path) -> None:
    table, place = read_table(results, "training"), results / "training.csv"
    good = table["approach"] == "good_net"
    for parts, cell, said in ([1, 1], None, False), ([2, 2], "2", False), ([1, 4], "1, 4", True):
        table.loc[good, "accumulation_steps"] = parts
        write_table(place, "training", table)
        text = write_summary(results)
        assert ("| Parts of a batch |" in text) == (cell is not None)
        if cell is not None:
            assert [row[-1] for row in rows_of(text, "## Training")] == [cell, "–"]
        assert ("had different parts" in text) == said


@pytest.mark.parametrize(
    ("leaks", "line"),
    [
        (["a and b: same file"], "Leaks allowed: 1 pair of images is on two sides of the split"),
        (["a_1 and b"] * 7, "Leaks allowed: 7 pairs of images are on two sides of the split"),
    ],
)
def test_leaks_that_were_allowed_stand_with_every_table(
    results: Path, tmp_path: Path, leaks: list[str], line: str
) -> None:
    change_run(results, leaks=leaks, audit=audit_record(twins=8))
    text = write_summary(results)
    sections = text.split("\n## ")
    assert len(sections) == 15
    assert all(line in section for section in sections[:-1])
    assert "Leak audit: 30 images compared (same file, same pixels, same patient), " in sections[-1]
    assert "; 8 pairs of duplicates in all; " in sections[-1]
    assert line in (results / "summary.tex").read_text()
    assert set(pd.read_csv(results / "summary.csv")["leaks"]) == {len(leaks)}
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:tiny --><!-- /results:tiny -->")
    assert fill_readme(readme, read_edited(results))
    assert line in readme.read_text()
    printed = StringIO()
    Console(file=printed, width=200).print(make_short_table(collect_findings(read_edited(results))))
    assert line in printed.getvalue()


def test_only_the_first_leaks_are_named(results: Path) -> None:
    leaks = [f"{number} and copy" for number in range(7)]
    change_run(results, leaks=leaks)
    text = write_summary(results)
    assert "same patient), 7 pairs on two sides: 0 and copy; " in text
    assert "; 4 and copy; and 2 more in run.json; " in text


def test_a_clean_audit_is_one_line_of_provenance(results: Path) -> None:
    change_run(results, audit=audit_record(checked=704, kinds=["same pixels"], uncompared=3))
    text = write_summary(results)
    assert (
        "- Leak audit: 704 images compared (same pixels), none on two sides; near-duplicates are looked for "
        "among real X-rays alone; 3 too small, blank or blurred to look for near-duplicates of." in text
    )
    assert "Leaks allowed" not in text
    assert set(pd.read_csv(results / "summary.csv")["leaks"]) == {0}


def test_look_alikes_are_a_caution_and_no_leak(results: Path) -> None:
    audit = audit_record(checked=704, kinds=["near-duplicate"], lookalikes=["a and b may show one"])
    change_run(results, audit=audit)
    text = write_summary(results)
    assert "- 1 pair across the split may show one person under two names. Please check: " in text
    assert "Leak audit: 704 images compared (near-duplicate), none on two sides." in text
    assert "Leaks allowed" not in text
