"""Make the tables of further test sets, on which the same fits were scored."""

from __future__ import annotations

from lungseg.report.contents import Contents
from lungseg.report.markup import Section, Table, format_amount, format_count, format_interval, format_score
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.images import count_patients


def make_test_set_section(contents: Contents) -> Section:
    """Make a row per approach, best mean Dice first."""
    frame = collect_main_rows(contents).drop_duplicates("approach")
    distances = [name for name in ("hd95", "assd") if frame[name].notna().any()]
    unit = frame["distance_unit"].iloc[0]
    header = ["Approach", "Dice [95 % interval]", "IoU", "Pixel accuracy", "Pooled F1"]
    header += [f"{name.upper()}, {unit} [95 % interval]" for name in distances]
    rows = []
    for row in frame.to_dict("records"):
        cells = [format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"])]
        cells += [format_score(row[name]) for name in ("iou", "accuracy", "pooled_f1")]
        cells += [
            format_interval(format_amount, row[name], row[f"{name}_low"], row[f"{name}_high"])
            for name in distances
        ]
        rows.append([row["approach"], *cells])
    images = format_count(contents.scores["image_id"].nunique(), "image")
    people = format_count(count_patients(contents), "patient")
    text = f"{images} of {people}. The fits are those of the tables above; none was trained again."
    return Section(f"Test set {contents.run['data']['dataset']}", Table(header, rows), text)
