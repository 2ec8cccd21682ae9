"""summary.md, summary.csv and summary.tex: the tables that people read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lungseg.report.contents import Contents, read_contents
from lungseg.report.markup import (
    EMPTY,
    Table,
    amount,
    bullets,
    duration,
    escape_markdown,
    escape_tex,
    interval,
    score,
)
from lungseg.report.numbers.quality import main_frame
from lungseg.report.sentences import notes
from lungseg.report.sentences.conclusions import LEVEL, NEGLIGIBLE, conclusions
from lungseg.report.tables.ablation import ablation_sections
from lungseg.report.tables.comparisons import comparison_sections
from lungseg.report.tables.quality import quality_sections, spread_section
from lungseg.report.tables.timing import timing_sections
from lungseg.system.files import write_atomically


def write_tables(directory: Path) -> str:
    """Writes summary.md, summary.csv and summary.tex of a results directory; returns the Markdown.

    Raises InputError if the directory holds no results, damaged ones, or can't be written.
    """
    contents = read_contents(directory)
    frame = main_frame(contents)
    text = markdown_page(contents, frame)
    write_atomically(directory / "summary.md", text)
    csv = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(directory / "summary.csv", csv)
    write_atomically(directory / "summary.tex", tex_page(contents, frame))
    return text


def markdown_page(contents: Contents, frame: pd.DataFrame) -> str:
    """The whole of summary.md. An ablation has its groups' tables in place of all pairs of approaches."""
    spread = spread_section(contents)
    tables = [
        *(ablation_sections(contents) if contents.groups else comparison_sections(contents)),
        *([spread] if spread else []),
        *quality_sections(contents),
        *timing_sections(contents),
    ]
    sections = [
        f"# {notes.title(contents)}\n",
        escape_markdown(notes.compared(contents)) + "\n",
        main_section(contents, frame),
        "" if contents.groups else conclusion_section(contents),
        *(table.markdown(notes.leaks(contents)) for table in tables),
        "## Where this comes from\n",
        bullets(notes.provenance(contents)),
        "Made again from the stored results with `lungseg report DIR`, where DIR is this folder.\n",
    ]
    return "\n".join(section for section in sections if section)


def main_section(contents: Contents, frame: pd.DataFrame) -> str:
    """The main table in Markdown with the cautions and gaps that belong to it; the README shows it too."""
    if frame.empty:
        table = "No approach has results yet.\n"
    else:
        table = main_table(frame).markdown() + "\n" + escape_markdown(legend(frame)) + "\n"
    return "\n".join(
        part for part in (table, bullets(notes.cautions(contents) + notes.gaps(contents))) if part
    )


def conclusion_section(contents: Contents) -> str:
    """A sentence per comparison, with what they have in common said before; "" without comparisons."""
    sentences = conclusions(contents)
    if not sentences:
        return ""
    level = f"{LEVEL:.2f}".removeprefix("0")
    preface = (
        f"A sentence per comparison of the mean Dice over {notes.unit_of(contents)}s, tested at the level "
        f"{level} after correction; in brackets the 95 % interval of the difference. A difference under "
        f"{NEGLIGIBLE} is called negligible: two physicians' outlines differ by several times as much."
    )
    lines = [preface, notes.leaks(contents)]
    text = escape_markdown(" ".join(line for line in lines if line))
    return f"## What may be concluded\n\n{text}\n\n{bullets(sentences)}"


def legend(frame: pd.DataFrame) -> str:
    """What the columns of the main table mean."""
    text = (
        "Means over patients, Dice with its 95 % interval (bootstrap-t over patients); pooled F1 takes all "
        "pixels together. "
    )
    if frame[["hd95", "assd"]].notna().any(axis=None):
        text += (
            "HD95 and ASSD: 95th percentile and average of the surface distance, less is better; an image "
            "where a mask is missed counts with the image's diagonal. "
        )
    if frame["seeds"].max() > 1:
        text += "Seeds are averaged per image; seed SD is the spread of the seeds' own means. "
    if frame["device"].isna().all():
        return text + "No approach was timed."
    text += "Time per image at batch size 1, median (IQR)"
    copies = set(frame["copies"].dropna().map(str))
    included = {"True": "included", "False": "left out"}.get(copies.pop(), "") if len(copies) == 1 else ""
    return text + (f"; copies between host and device {included}." if included else ".")


def main_table(frame: pd.DataFrame) -> Table:
    """The main table as text: quality stands once per approach, a second device has its own row below."""
    several_seeds = frame["seeds"].max() > 1
    several_settings = len(frame["compute_precision"].dropna().unique()) > 1
    distances = [name for name in ("hd95", "assd") if frame[name].notna().any()]
    header = [
        *("Approach", "Weights", "Dice [95 % interval]"),
        *(["Seed SD"] if several_seeds else []),
        *("IoU", "Pixel accuracy", "Pooled F1"),
        *(f"{name.upper()}, {frame['distance_unit'].iloc[0]}" for name in distances),
        "Training",
    ]
    quality = len(header)
    header += ["Device", "ms/image (IQR)"]
    rows, bold, seen = [], set(), set()
    for row in frame.to_dict("records"):
        first = row["approach"] not in seen
        seen.add(row["approach"])
        cells = _quality_cells(row, several_seeds, distances) if first else [""] * quality
        rows.append(cells + _speed_cells(row, several_settings))
        if first and row["dice"] == frame["dice"].max():
            bold.add((len(rows) - 1, 2))
    return Table(header, rows, bold, text={0, 1, quality})


def _quality_cells(row: dict, several_seeds: bool, distances: list[str]) -> list[str]:
    return [
        row["approach"],
        row["weights"],
        interval(score, row["dice"], row["dice_low"], row["dice_high"]),
        *([score(row["dice_seed_sd"])] if several_seeds else []),
        *(score(row[name]) for name in ("iou", "accuracy", "pooled_f1")),
        *(amount(row[name]) for name in distances),
        duration(row["training_seconds"]),
    ]


def _speed_cells(row: dict, several_settings: bool) -> list[str]:
    if pd.isna(row["device"]):
        return [EMPTY, EMPTY]
    device = row["device"].upper()
    if several_settings and pd.notna(row["compute_precision"]):
        device += f", {row['compute_precision']}"
    time = amount(row["ms_per_image"]) + (f" ({amount(row['ms_iqr'])})" if pd.notna(row["ms_iqr"]) else "")
    return [device, time]


def tex_page(contents: Contents, frame: pd.DataFrame) -> str:
    """summary.tex: the main table as a float over both columns, to be read with \\input."""
    caption = " ".join([notes.compared(contents), legend(frame), *notes.cautions(contents)])
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx} in the preamble, then \input{summary}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape_tex(caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            main_table(frame).tex().rstrip("\n") + "}",
            r"\end{table*}",
            "",
        ]
    )
