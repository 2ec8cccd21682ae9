"""Write the summaries: the tables that people read, as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lungseg.report.datapackage import write_datapackage
from lungseg.report.findings import Findings
from lungseg.report.markup import Section, Table, escape_markdown, format_bullets
from lungseg.report.numbers.groups import LEVEL
from lungseg.report.sentences.conclusions import NEGLIGIBLE, conclude
from lungseg.report.sentences.images import describe_images, find_unit
from lungseg.report.sentences.leaks import warn_of_leaks
from lungseg.report.sentences.provenance import list_provenance
from lungseg.report.tables.main import make_main_section
from lungseg.report.tables.paper import make_full_paper_table, make_paper_table
from lungseg.system.files import write_atomically


def write_tables(findings: Findings, columns: Sequence[str] | None = None) -> None:
    """Write summary.md, .csv and .tex, summary-full.tex and datapackage.json.

    `columns` are those of summary.tex, by their names in summary.csv. Raises InputError, with nothing
    written, for columns that don't exist or are too many; and if a file can't be written.
    """
    contents, frame = findings.contents, findings.frame
    directory = contents.directory
    paper = make_paper_table(contents, frame, columns)
    write_atomically(directory / "summary.md", _make_markdown_page(findings))
    whole = _join_frames([frame, *(one.frame for one in findings.test_sets)])
    named = whole.assign(approach=whole["approach"].map(contents.file_names))
    csv = named.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(directory / "summary.csv", csv)
    write_atomically(directory / "summary.tex", paper)
    write_atomically(directory / "summary-full.tex", make_full_paper_table(contents, frame))
    write_datapackage(contents)


def _join_frames(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if len(frames) == 1:
        return frames[0]
    # As objects, since a column that is empty in one frame would make integers of the others floats.
    return pd.concat([one.astype(object) for one in frames], ignore_index=True).infer_objects()


def _make_markdown_page(findings: Findings) -> str:
    contents = findings.contents
    warning = warn_of_leaks(contents)
    tables = [*findings.tests, *findings.quality, *findings.times]
    sections = [
        f"# lungseg benchmark `{contents.run['name']}`\n",
        format_bullets(findings.verdict),
        make_main_section(findings.frame, [*findings.cautions, *findings.gaps]),
        escape_markdown(describe_images(contents)) + "\n",
        *(f"{one.section.to_markdown(warning)}\n{format_bullets(one.verdict)}" for one in findings.test_sets),
        *(table.to_markdown(warning) for table in tables),
        _make_appendix(findings),
        "## Where this comes from\n",
        format_bullets(list_provenance(contents)),
        "Made again from the stored results with `lungseg report DIR`, where DIR is this folder.\n",
    ]
    return "\n".join(section for section in sections if section)


def _make_appendix(findings: Findings) -> str:
    """Write a row per comparison: what may be concluded, below what all have in common; "" without any."""
    if not findings.comparisons:
        return ""
    contents, level = findings.contents, f"{LEVEL:.2f}".removeprefix("0")
    text = (
        f"A row per comparison of the mean Dice over {find_unit(contents)}s, tested at the level {level} "
        "after correction; in brackets the 95 % interval of the difference. A difference under "
        f"{NEGLIGIBLE} is called negligible: two physicians' outlines differ by several times as much."
    )
    rows = [[one.approach, one.other, conclude(one)] for one in findings.comparisons]
    table = Table(["Approach", "Other", "What may be concluded"], rows, text={0, 1, 2})
    section = Section("Appendix: each comparison in a sentence", table, text)
    return section.to_markdown(warn_of_leaks(contents))
