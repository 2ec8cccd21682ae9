"""Write the summaries: the tables that people read, as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.datapackage import write_datapackage
from lungseg.report.markup import Section, Table, escape_markdown, format_bullets
from lungseg.report.numbers.groups import LEVEL
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.conclusions import NEGLIGIBLE, conclude, read_comparisons
from lungseg.report.sentences.images import describe_images, find_unit
from lungseg.report.sentences.leaks import warn_of_leaks
from lungseg.report.sentences.provenance import list_provenance
from lungseg.report.sentences.verdict import write_verdict
from lungseg.report.tables.ablation import make_ablation_sections
from lungseg.report.tables.comparisons import make_comparison_sections
from lungseg.report.tables.main import make_main_section
from lungseg.report.tables.paper import make_full_paper_table, make_paper_table
from lungseg.report.tables.quality import make_quality_sections
from lungseg.report.tables.ranks import make_rank_section
from lungseg.report.tables.test_sets import write_test_set
from lungseg.report.tables.timing import make_timing_sections
from lungseg.system.files import write_atomically


def write_tables(
    contents: Contents, further: Sequence[Contents], columns: Sequence[str] | None = None
) -> None:
    """Write summary.md, .csv and .tex, summary-full.tex and datapackage.json.

    `further` are the further test sets, and `columns` those of summary.tex, by their names in summary.csv.
    Raises InputError, with nothing written, for columns that don't exist or are too many; and if a file
    can't be written.
    """
    directory, frame = contents.directory, collect_main_rows(contents)
    paper = make_paper_table(contents, frame, columns)
    write_atomically(directory / "summary.md", _make_markdown_page(contents, frame, further))
    named = _join_frames([frame, *map(collect_main_rows, further)])
    named = named.assign(approach=named["approach"].map(contents.file_names))
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


def _make_markdown_page(contents: Contents, frame: pd.DataFrame, further: Sequence[Contents]) -> str:
    """Write summary.md. An ablation has a table for each group instead of all pairs of approaches."""
    groups = make_ablation_sections(contents) if contents.groups else make_comparison_sections(contents)
    tables = [*groups, make_rank_section(contents), *make_quality_sections(contents)]
    tables += make_timing_sections(contents)
    sections = [
        f"# lungseg benchmark `{contents.run['name']}`\n",
        format_bullets(write_verdict(contents)),
        make_main_section(contents, frame),
        escape_markdown(describe_images(contents)) + "\n",
        *map(write_test_set, further),
        *(table.to_markdown(warn_of_leaks(contents)) for table in tables if table),
        "" if contents.groups else _make_appendix(contents),
        "## Where this comes from\n",
        format_bullets(list_provenance(contents)),
        "Made again from the stored results with `lungseg report DIR`, where DIR is this folder.\n",
    ]
    return "\n".join(section for section in sections if section)


def _make_appendix(contents: Contents) -> str:
    """Write a row per comparison: what may be concluded, below what all have in common; "" without any."""
    comparisons = read_comparisons(contents)
    if not comparisons:
        return ""
    level = f"{LEVEL:.2f}".removeprefix("0")
    text = (
        f"A row per comparison of the mean Dice over {find_unit(contents)}s, tested at the level {level} "
        "after correction; in brackets the 95 % interval of the difference. A difference under "
        f"{NEGLIGIBLE} is called negligible: two physicians' outlines differ by several times as much."
    )
    rows = [[one.approach, one.other, conclude(one)] for one in comparisons]
    table = Table(["Approach", "Other", "What may be concluded"], rows, text={0, 1, 2})
    return Section("Appendix: each comparison in a sentence", table, text).to_markdown(
        warn_of_leaks(contents)
    )
