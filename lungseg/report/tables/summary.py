"""Write summary.md, summary.csv and summary.tex: the tables that people read."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lungseg.report.contents import Contents, list_further_contents
from lungseg.report.markup import escape_markdown, escape_tex, format_bullets
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.cautions import list_cautions
from lungseg.report.sentences.conclusions import LEVEL, NEGLIGIBLE, list_conclusions
from lungseg.report.sentences.images import describe_images, find_unit
from lungseg.report.sentences.leaks import warn_of_leaks
from lungseg.report.sentences.provenance import list_provenance
from lungseg.report.tables.ablation import make_ablation_sections
from lungseg.report.tables.comparisons import make_comparison_sections
from lungseg.report.tables.main import describe_columns, make_main_section, make_main_table
from lungseg.report.tables.quality import make_quality_sections
from lungseg.report.tables.test_sets import write_test_set
from lungseg.report.tables.timing import make_timing_sections
from lungseg.system.files import write_atomically


def write_tables(contents: Contents) -> str:
    """Write summary.md, .csv and .tex; return the Markdown. Raises InputError if they can't be written."""
    directory, frame = contents.directory, collect_main_rows(contents)
    further = list_further_contents(contents)
    text = _make_markdown_page(contents, frame, further)
    write_atomically(directory / "summary.md", text)
    rows = [frame, *map(collect_main_rows, further)]
    whole = pd.concat([part.astype(object) for part in rows], ignore_index=True) if further else frame
    named = whole.assign(approach=whole["approach"].map(contents.file_names))
    csv = named.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(directory / "summary.csv", csv)
    write_atomically(directory / "summary.tex", _make_tex_page(contents, frame))
    return text


def _make_markdown_page(contents: Contents, frame: pd.DataFrame, further: Sequence[Contents]) -> str:
    """Write summary.md. An ablation has a table for each group instead of all pairs of approaches."""
    tables = [
        *(make_ablation_sections(contents) if contents.groups else make_comparison_sections(contents)),
        *make_quality_sections(contents),
        *make_timing_sections(contents),
    ]
    sections = [
        f"# lungseg benchmark `{contents.run['name']}`\n",
        escape_markdown(describe_images(contents)) + "\n",
        make_main_section(contents, frame),
        "" if contents.groups else _make_conclusion_section(contents),
        *map(write_test_set, further),
        *(table.to_markdown(warn_of_leaks(contents)) for table in tables if table),
        "## Where this comes from\n",
        format_bullets(list_provenance(contents)),
        "Made again from the stored results with `lungseg report DIR`, where DIR is this folder.\n",
    ]
    return "\n".join(section for section in sections if section)


def _make_conclusion_section(contents: Contents) -> str:
    """Write a sentence per comparison below what all have in common; "" without comparisons."""
    sentences = list_conclusions(contents)
    if not sentences:
        return ""
    level = f"{LEVEL:.2f}".removeprefix("0")
    preface = (
        f"A sentence per comparison of the mean Dice over {find_unit(contents)}s, tested at the level "
        f"{level} after correction; in brackets the 95 % interval of the difference. A difference under "
        f"{NEGLIGIBLE} is called negligible: two physicians' outlines differ by several times as much."
    )
    text = escape_markdown(f"{preface} {warn_of_leaks(contents)}")
    return f"## What may be concluded\n\n{text}\n\n{format_bullets(sentences)}"


def _make_tex_page(contents: Contents, frame: pd.DataFrame) -> str:
    """Write summary.tex: the main table as a float over both columns, to be read with \\input."""
    caption = " ".join([describe_images(contents), describe_columns(frame), *list_cautions(contents)])
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx} in the preamble, then \input{summary}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape_tex(caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            make_main_table(frame).to_tex().rstrip("\n") + "}",
            r"\end{table*}",
            "",
        ]
    )
