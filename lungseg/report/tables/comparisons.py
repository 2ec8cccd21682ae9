"""Make the tables of paired differences between approaches."""

from __future__ import annotations

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import (
    EMPTY,
    Section,
    Table,
    format_count,
    format_difference,
    format_interval,
    format_p,
    format_signed,
    state_p,
)
from lungseg.report.numbers.comparisons import collect_pairs, read_ranking
from lungseg.report.numbers.quality import find_distance_unit
from lungseg.report.sentences.images import find_unit

_SECONDARY = [
    ("hd95", "HD95, {unit}", format_signed),
    ("assd", "ASSD, {unit}", format_signed),
    ("brier", "Brier score", format_difference),
]


def make_comparison_sections(contents: Contents) -> list[Section | None]:
    """Make the tables of the primary and of the secondary endpoints; None in place of one without any."""
    return [_make_primary_section(contents), _make_secondary_section(contents)]


def _make_primary_section(contents: Contents) -> Section | None:
    """Make a row per pair on the endpoint fixed in advance."""
    frame = collect_pairs(contents, "dice")
    if frame.empty:
        return None
    unit = find_unit(contents)
    header = ["Approach", "Other", "Mean difference [95 % interval]"]
    header += ["p (sign-flip)", "p (Holm)", "p (Wilcoxon)", "Rank-biserial", "Better on", "Worse on"]
    rows = [
        [
            row["approach"],
            row["other"],
            format_interval(format_difference, row["value"], row["low"], row["high"]),
            *(format_p(row[name]) for name in ("p_value", "p_holm", "wilcoxon_p")),
            EMPTY if pd.isna(row["rank_biserial"]) else f"{row['rank_biserial']:+z.3f}",
            _format_of(row["better"], row["n"]),
            _format_of(row["worse"], row["n"]),
        ]
        for row in frame.to_dict("records")
    ]
    table = Table(header, rows, text={0, 1})
    parts = (_PRIMARY.format(unit=unit), _describe_family(contents), _describe_ranks(contents))
    text = "\n\n".join(part for part in parts if part)
    return Section("Paired differences in Dice", table, text)


_PRIMARY = (
    "The primary endpoint, fixed in advance: Dice of the same {unit}, approach minus other; above 0, "
    "approach is better. Interval: bootstrap-t over {unit}s, not corrected for the number of comparisons. "
    "Sign-flip: studentised permutation test of a mean difference of 0, corrected for skewness. Wilcoxon "
    "signed-rank has another null, that the two are exchangeable (differences symmetric about 0): a small p "
    "of it doesn't say that means differ. Rank-biserial: matched pairs, from -1 (other always better) to 1. "
    "Better and worse count {unit}s; the rest are ties."
)


def _format_of(value: float, n: float) -> str:
    return EMPTY if pd.isna(value) else f"{int(value):,} of {int(n):,}"


def _describe_family(contents: Contents) -> str:
    if not contents.family:
        return ""
    where = "of this table and of the other test sets" if contents.other_datasets else "in this table"
    return f"Holm's correction is over the family of {format_count(contents.family, 'comparison')} {where}."


def _describe_ranks(contents: Contents) -> str:
    found = read_ranking(contents)
    if not found:
        return ""
    ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in found["ranks"].items())
    return (
        f"Mean ranks in Dice (1 is best): {ranks}. Friedman's test of equal ranks: "
        f"{state_p(found['p_value'])}; ranks that differ by less than {found['critical_difference']:.2f} are "
        "not distinguishable (Nemenyi, level .05)."
    )


def _make_secondary_section(contents: Contents) -> Section | None:
    """Make a row per pair on boundary distances and the Brier score, uncorrected."""
    frames = {metric: collect_pairs(contents, metric) for metric, _, _ in _SECONDARY}
    stored = [column for column in _SECONDARY if len(frames[column[0]])]
    if not stored:
        return None
    unit = find_distance_unit(contents)
    header = ["Approach", "Other"]
    by_pair: dict[tuple[str, str], list[str]] = {}
    for number, (metric, title, show) in enumerate(stored):
        header += [f"{title.format(unit=unit)} [95 % interval]", "p"]
        for row in frames[metric].to_dict("records"):
            cells = by_pair.setdefault((row["approach"], row["other"]), [])
            cells += [EMPTY] * (2 * number - len(cells))
            cells += [format_interval(show, row["value"], row["low"], row["high"]), format_p(row["p_value"])]
    width = 2 * len(stored)
    rows = [[*pair, *cells, *[EMPTY] * (width - len(cells))] for pair, cells in by_pair.items()]
    return Section("Secondary endpoints, exploratory", Table(header, rows, text={0, 1}), _SECONDARY_TEXT)


_SECONDARY_TEXT = (
    "Mean of approach minus other; below 0, approach is better. p: sign-flip, not corrected for the number "
    "of comparisons, and so no ground for a claim."
)
