"""Collect once what the summaries, the page and the terminal show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import Section
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.cautions import list_cautions, list_gaps
from lungseg.report.sentences.conclusions import Comparison, read_comparisons
from lungseg.report.sentences.verdict import write_verdict
from lungseg.report.tables.ablation import make_ablation_sections
from lungseg.report.tables.comparisons import make_comparison_sections
from lungseg.report.tables.quality import make_quality_sections
from lungseg.report.tables.ranks import make_rank_section
from lungseg.report.tables.test_sets import make_test_set_section
from lungseg.report.tables.timing import make_timing_sections
from lungseg.report.tables.trainings import make_training_sections


@dataclass(frozen=True)
class TestSet:
    """What there is to say of one further test set."""

    contents: Contents
    frame: pd.DataFrame  # of `collect_main_rows`
    verdict: list[str]
    section: Section


@dataclass(frozen=True)
class Findings:
    """What a results directory shows: numbers, sentences and tables, none of them formatted for a file."""

    contents: Contents
    frame: pd.DataFrame  # of `collect_main_rows`
    verdict: list[str]
    cautions: list[str]
    gaps: list[str]
    # What rows were trained on, if they differ in it; of an ablation its groups, else all pairs of
    # approaches; and the ranks.
    tests: list[Section]
    quality: list[Section]
    times: list[Section]
    comparisons: list[Comparison]  # none of an ablation
    test_sets: list[TestSet]


def collect_findings(contents: Contents, further: Sequence[Contents] = ()) -> Findings:
    """Collect what is shown of a results directory; `further` are its further test sets."""
    tests = make_training_sections(contents, further)
    tests += make_ablation_sections(contents) if contents.groups else make_comparison_sections(contents)
    return Findings(
        contents=contents,
        frame=collect_main_rows(contents),
        verdict=write_verdict(contents),
        cautions=list_cautions(contents),
        gaps=list_gaps(contents),
        tests=[section for section in (*tests, make_rank_section(contents)) if section],
        quality=[section for section in make_quality_sections(contents) if section],
        times=[section for section in make_timing_sections(contents) if section],
        comparisons=[] if contents.groups else read_comparisons(contents),
        test_sets=[_describe_test_set(one) for one in further],
    )


def _describe_test_set(contents: Contents) -> TestSet:
    frame, section = collect_main_rows(contents), make_test_set_section(contents)
    return TestSet(contents, frame, write_verdict(contents), section)
