"""Fill the generated block of a README: no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import (
    EMPTY,
    Table,
    escape_markdown,
    format_amount,
    format_bullets,
    format_count,
    format_duration,
    format_interval,
    format_score,
)
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.leaks import warn_of_leaks
from lungseg.report.sentences.provenance import describe_hardware, name_revision
from lungseg.report.sentences.verdict import write_verdict
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically


def fill_readme(readme: Path, contents: Contents) -> bool:
    """Put the main table of a benchmark between the two marks of a README that have its name.

    The marks are `<!-- results:NAME -->` and `<!-- /results:NAME -->`. What is between them is replaced.
    Return False if the README has no such marks.

    Raises InputError if it can't be read or written, or has only one of the marks or both in wrong order.
    """
    name = contents.run["name"]
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {readme}: {error}") from None
    if start not in text and end not in text:
        return False
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InputError(
            f"{readme} has one of the marks '{start}' and '{end}' but not both: add the other one"
        )
    write_atomically(readme, f"{before}{start}\n{_make_block(contents)}{end}{after}")
    return True


def _make_block(contents: Contents) -> str:
    """Write the verdict, one small table, and a line that says where it comes from."""
    run, frame = contents.run, collect_main_rows(contents)
    header = ["Approach", "Dice [95 % interval]", "Group", f"HD95, {frame['distance_unit'].iloc[0]}"]
    header += ["Training", "ms/image", "Device"]
    rows = frame.to_dict("records")
    best = {(number, 1) for number, row in enumerate(rows) if row["dice"] == frame["dice"].max()}
    table = Table(header, [_format_row(row) for row in rows], best, text={0, 2, 6})
    images = format_count(contents.scores["image_id"].nunique(), "image")
    source = (
        f"{images} of the {run['evaluate_on']} part of {run['data']['dataset']}. {describe_hardware(run)}. "
        f"Revision {name_revision(run)}, {run['finished'][:10]}."
    )
    warning = warn_of_leaks(contents)
    source = f"{source} {warning}".rstrip()
    link = f"[Everything else](results/reference/{run['name']}/summary.md)."
    verdict = format_bullets(write_verdict(contents))
    return f"\n{verdict}\n{table.to_markdown()}\n{escape_markdown(source)} {link}\n\n"


def _format_row(row: dict[str, Any]) -> list[str]:
    return [
        row["approach"],
        format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"]),
        row["group"] or EMPTY,
        format_amount(row["hd95"]),
        format_duration(row["training_seconds"]),
        format_amount(row["ms_per_image"]),
        EMPTY if pd.isna(row["device"]) else row["device"].upper(),
    ]
