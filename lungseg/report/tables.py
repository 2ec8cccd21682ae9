"""summary.md, summary.csv and summary.tex: the tables that people read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lungseg.report import notes
from lungseg.report.contents import Contents, read_contents
from lungseg.report.markup import EMPTY, Table, amount, duration, escape_markdown, escape_tex, score
from lungseg.report.numbers import main_frame, source_frame, stage_frame, training_frame
from lungseg.storage import write_atomically

UNNAMED = "unnamed source"


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
    """The whole of summary.md."""
    sections = [
        f"# {notes.title(contents)}\n",
        escape_markdown(notes.compared(contents)) + "\n",
        main_section(contents, frame),
        _titled("Dice by source", source_table(contents), "Mean over the images of each source."),
        _titled("Time by stage, ms per image", stage_table(contents), _STAGES),
        _titled("Training", training_table(contents), _TRAINING),
        "## Where this comes from\n",
        _bullets(notes.provenance(contents)),
        "Made again from the stored results with `lungseg report DIR`, where DIR is this folder.\n",
    ]
    return "\n".join(section for section in sections if section)


_STAGES = (
    "Median at batch size 1. Sum adds prepare to finish; whole is the same way timed in one go. "
    "Decode, reading the image from an 8-bit PNG file, is in neither."
)
_TRAINING = (
    "Means over fits; memory is the largest of them: on a CPU that of the whole process, in which the fits "
    "run one after the other, on CUDA what was allocated on the device."
)


def main_section(contents: Contents, frame: pd.DataFrame) -> str:
    """The main table in Markdown with the cautions and gaps that belong to it; the README shows it too."""
    if frame.empty:
        table = "No approach has results yet.\n"
    else:
        table = main_table(frame).markdown() + "\n" + escape_markdown(legend(frame)) + "\n"
    return "\n".join(
        part for part in (table, _bullets(notes.cautions(contents) + notes.gaps(contents))) if part
    )


def legend(frame: pd.DataFrame) -> str:
    """What the columns of the main table mean."""
    text = "Means over patients, Dice with its 95 % interval; pooled F1 takes all pixels together. "
    if frame["seeds"].max() > 1:
        text += "Seeds are averaged per image; seed SD is the spread of the seeds' own means. "
    if frame["device"].isna().all():
        return text + "No approach was timed."
    text += "Time per image at batch size 1, median (IQR); images/s at the batch size in brackets"
    copies = set(frame["copies"].dropna().map(str))
    included = {"True": "included", "False": "left out"}.get(copies.pop(), "") if len(copies) == 1 else ""
    return text + (f"; copies between host and device {included}." if included else ".")


def main_table(frame: pd.DataFrame) -> Table:
    """The main table as text: quality stands once per approach, a second device has its own row below."""
    several_seeds = frame["seeds"].max() > 1
    several_settings = len(frame["compute_precision"].dropna().unique()) > 1
    header = [
        "Approach",
        "Weights",
        "Dice [95 % interval]",
        *(["Seed SD"] if several_seeds else []),
        "Median Dice",
    ]
    header += ["IoU", "Pixel accuracy", "Precision", "Recall", "Pooled F1", "Training"]
    quality = len(header)
    header += ["Device", "ms/image (IQR)", "Images/s"]
    rows, bold, seen = [], set(), set()
    for row in frame.to_dict("records"):
        first = row["approach"] not in seen
        seen.add(row["approach"])
        cells = _quality_cells(row, several_seeds) if first else [""] * quality
        rows.append(cells + _speed_cells(row, several_settings))
        if first and row["dice"] == frame["dice"].max():
            bold.add((len(rows) - 1, 2))
    return Table(header, rows, bold, text={0, 1, quality})


def _quality_cells(row: dict, several_seeds: bool) -> list[str]:
    interval = f" [{score(row['dice_low'])}, {score(row['dice_high'])}]" if pd.notna(row["dice_low"]) else ""
    spread = [score(row["dice_seed_sd"])] if several_seeds else []
    metrics = [
        score(row[name]) for name in ("dice_median", "iou", "accuracy", "precision", "recall", "pooled_f1")
    ]
    return [
        row["approach"],
        row["weights"],
        score(row["dice"]) + interval,
        *spread,
        *metrics,
        duration(row["training_seconds"]),
    ]


def _speed_cells(row: dict, several_settings: bool) -> list[str]:
    if pd.isna(row["device"]):
        return [EMPTY, EMPTY, EMPTY]
    device = row["device"].upper()
    if several_settings and pd.notna(row["compute_precision"]):
        device += f", {row['compute_precision']}"
    time = amount(row["ms_per_image"]) + (f" ({amount(row['ms_iqr'])})" if pd.notna(row["ms_iqr"]) else "")
    batch = f" ({row['batch_size']:.0f})" if pd.notna(row["batch_size"]) else ""
    return [device, time, amount(row["images_per_s"]) + batch]


def source_table(contents: Contents) -> Table | None:
    """Mean Dice by source; None if all images come from one."""
    frame, counts = source_frame(contents), contents.sources().value_counts()
    if len(counts) < 2 or frame.empty:
        return None
    header = ["Approach", *(f"{source or UNNAMED} (n = {counts[source]})" for source in frame)]
    return Table(header, [[name, *(score(value) for value in row)] for name, row in _rows(frame)])


def stage_table(contents: Contents) -> Table | None:
    """Median ms of each stage; None if nothing was timed at batch size 1."""
    frame = stage_frame(contents)
    if frame.empty or len(frame.columns) == 2:
        return None
    rows = []
    for row in frame.to_dict("records"):
        times = [amount(value) for name, value in row.items() if name not in ("approach", "device")]
        rows.append([row["approach"], row["device"].upper(), *times])
    return Table([name.capitalize() for name in frame], rows, text={0, 1})


def training_table(contents: Contents) -> Table | None:
    """What training took; None if nothing was trained."""
    frame = training_frame(contents)
    if frame.empty:
        return None
    header = ["Approach", "Fits", "Time per fit", "Speed", "Parameters", "Best step", "Peak memory, MiB"]
    rows = [
        [
            row["approach"],
            str(row["fits"]),
            duration(row["seconds"]),
            f"{amount(row['items_per_s'])} {row['unit']}/s" if pd.notna(row["items_per_s"]) else EMPTY,
            f"{int(row['parameters']):,}" if row["parameters"] > 0 else EMPTY,
            ", ".join(str(step) for step in row["best_steps"]) or EMPTY,
            amount(row["peak_memory_mib"]),
        ]
        for row in frame.to_dict("records")
    ]
    return Table(header, rows)


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


def _rows(frame: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return [(name, list(frame.loc[name])) for name in frame.index]


def _titled(title: str, table: Table | None, explanation: str) -> str:
    return f"## {title}\n\n{table.markdown()}\n{explanation}\n" if table else ""


def _bullets(lines: list[str]) -> str:
    return "".join(f"- {escape_markdown(line)}\n" for line in lines)
