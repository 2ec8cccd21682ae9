"""Write one sentence per comparison: what may be concluded from it and what may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lungseg.report.contents import RANDOM, Contents
from lungseg.report.markup import format_count, format_interval, state_p
from lungseg.report.numbers.comparisons import collect_pairs, turn_pair
from lungseg.report.numbers.groups import LEVEL
from lungseg.report.sentences.cautions import FEW
from lungseg.report.sentences.images import find_unit

# A difference in Dice. Outlines of two physicians differ by .017 to .038 (CheXmask), several times as much.
NEGLIGIBLE = 0.005
SMALLEST_P = 1e-4  # of the test with its 9999 random patterns of signs


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two approaches in Dice; `approach` has the higher mean. NaN: unknown."""

    approach: str
    other: str
    n: int  # of `unit`s
    difference: float  # of the means, approach minus other
    low: float  # ends of its 95 % interval
    high: float
    p_value: float  # of the sign-flip test
    p_holm: float  # corrected for `family` comparisons
    better: int  # on how many of the n `approach` has the higher Dice
    worse: int
    family: int = 1  # 0 if unknown
    unit: str = "image"  # or "patient"
    one_seed: tuple[str, ...] = ()  # those of the two that depend on a seed and were trained with one only
    training_sd: float = float("nan")  # over seeds, of the difference of one training each
    trainings: int = 1  # that the difference is a mean of; the fewer of the two approaches'
    folds: int = 1  # of the split. They share training images, which no test allows for
    where: str = "images like these"
    untaught: tuple[str, ...] = ()  # those of the two that started from random weights
    final: bool = True  # False if the approaches may have been chosen by these images


def list_conclusions(contents: Contents) -> list[str]:
    """Return a sentence per pair of approaches on the primary endpoint, in the order of their ranks."""
    return [conclude(comparison) for comparison in read_comparisons(contents)]


def read_comparisons(contents: Contents) -> list[Comparison]:
    """Return the stored comparisons in Dice with all that their sentences need."""
    run = contents.run
    final = run["evaluate_on"] == "test"
    where = "images like these" if final else "the validation images"
    if final and run["data"]["dataset"] == "phantom":
        where = "phantoms like these"
    family, unit = contents.family, find_unit(contents)
    once = contents.trained_once - contents.baselines
    same = ("approach", "other", "low", "high", "p_value", "p_holm")
    # Ranks go by all images of an approach, a pair by those that both have: the two may disagree.
    pairs = collect_pairs(contents, "dice").to_dict("records")
    rows = [turn_pair(row) if row["value"] < 0 else row for row in pairs]
    return [
        Comparison(
            **{column: row[column] for column in same},
            n=int(row["n"]),
            difference=row["value"],
            better=_to_count(row["better"]),
            worse=_to_count(row["worse"]),
            family=family,
            unit=unit,
            one_seed=tuple(name for name in (row["approach"], row["other"]) if name in once),
            training_sd=_find_training_sd(contents, row),
            trainings=_count_trainings(contents, row),
            folds=sum("approach" not in entry for entry in run["splits"]),
            where=where,
            untaught=tuple(
                name for name in (row["approach"], row["other"]) if contents.find_weights(name) == RANDOM
            ),
            final=final,
        )
        for row in rows
    ]


def conclude(c: Comparison) -> str:
    """Return one sentence: what a comparison shows and what it does not."""
    if c.better == c.worse == 0 and c.difference == 0:
        parts = [
            f"{c.approach} and {c.other} have the same Dice on {'the' if c.n == 1 else 'all'} "
            f"{format_count(c.n, c.unit)}: no difference was shown here, which does not show that they are "
            "the same elsewhere"
        ]
    elif pd.isna(c.p_value):
        parts = [
            f"Nothing can be concluded about {c.approach} and {c.other}: {format_count(c.n, c.unit)} "
            f"{'is' if c.n == 1 else 'are'} too few for a test"
        ]
    elif _choose_p(c) > LEVEL:
        parts = _say_not_shown(c)
    elif c.low <= 0:
        parts = [
            f"Whether {c.approach} or {c.other} has the higher mean Dice on {c.where} stays open: the test "
            f"of their difference, {_format_difference(c)}, finds one ({_state_test(c)}), but its interval "
            "holds 0"
        ]
    else:
        parts = _say_shown(c)
    return "; ".join([*parts, *_list_reservations(c)]) + "."


def find_smallest_p(c: Comparison) -> float:
    """Return the smallest p that the test can give so few patients, after Holm's correction."""
    alone = max(2.0 ** (1 - c.n), SMALLEST_P)
    return min(1.0, alone if pd.isna(c.p_holm) else alone * max(1, c.family))


def _say_not_shown(c: Comparison) -> list[str]:
    least = find_smallest_p(c)
    if least > LEVEL:
        number = format_count(c.n, c.unit) + (f" and {c.family} comparisons" if c.family > 1 else "")
        return [
            f"Nothing can be shown about {c.approach} and {c.other} with {number}: the test can't give a p "
            f"below {least:.2g} then, however far apart they are; the difference is {_format_difference(c)}, "
            f"{_state_test(c)}"
        ]
    alike = f"{c.difference:z.4f}" == "0.0000"
    by = "their means are equal to four digits," if alike else "the first is higher by"
    text = (
        f"No difference in mean Dice between {c.approach} and {c.other} on {c.where} was shown: {by} "
        f"{_format_difference(c)}, {_state_test(c)}"
    )
    # The worst of both, patients and trainings: on the safe side.
    limit = max(abs(c.low), abs(c.high)) + np.nan_to_num(_compute_training_chance(c))
    equal = "that does not show that they are equal"
    if pd.notna(limit) and c.n >= FEW:
        models = " between these trained models" if c.one_seed else ""
        equal += f", but a difference{models} of more than {limit:.4f} is unlikely"
    return [text, equal]


def _say_shown(c: Comparison) -> list[str]:
    luck = _compute_training_chance(c) >= c.difference
    head = f"{c.approach} has a higher mean Dice than {c.other} on {c.where}"
    head = f"As trained here, {head}" if luck else head
    negligible = c.high < NEGLIGIBLE
    head += ", but negligibly so" if negligible else ""
    parts = [f"{head}: by {_format_difference(c)}, {_state_test(c)}"]
    if not negligible and c.low < NEGLIGIBLE:
        parts.append(f"the true difference may be as small as {c.low:.4f}, which would be negligible")
    parts.append(_say_better(c))
    if luck:
        parts.append(
            f"it is not distinguishable from chance in training: that alone leaves the mean difference of "
            f"{c.trainings} trainings uncertain by ±{_compute_training_chance(c):.4f} (95 %)"
        )
    elif c.one_seed:
        parts.append(_limit_to_models(c))
    return parts


def _compute_training_chance(c: Comparison) -> float:
    """Return half the 95 % interval of the mean difference, by Student's t over seeds; NaN with one seed."""
    if c.trainings < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, c.trainings - 1) * c.training_sd / np.sqrt(c.trainings))


def _say_better(c: Comparison) -> str:
    tied = c.n - c.better - c.worse
    equal = f" and equal on {tied:,}" if tied else ""
    text = f"better on {c.better:,}{equal} of {format_count(c.n, c.unit)}"
    if c.better < c.worse:
        return f"yet it is {text}, so a few large differences decide the mean"
    return text


def _limit_to_models(c: Comparison) -> str:
    if len(c.one_seed) == 2:
        return "this holds for these trained models, not for their training recipes (one seed each)"
    return f"this holds for this trained {c.one_seed[0]}, not for its training recipe (one seed)"


def _list_reservations(c: Comparison) -> list[str]:
    found = [f"{name} started from random weights" for name in c.untaught]
    if c.n < FEW and pd.notna(c.p_value):
        number = format_count(c.n, c.unit)
        found.append(f"with only {number}, interval and test are unreliable if failures are rare")
    if c.folds > 1:
        found.append("the folds share training images, so the interval is too narrow and p too small")
    if not c.final:
        found.append("no final claim, since the approaches may have been chosen by these images")
    return found


def _format_difference(c: Comparison) -> str:
    return format_interval(lambda value: f"{value:z.4f}", c.difference, c.low, c.high)


def _choose_p(c: Comparison) -> float:
    return c.p_value if pd.isna(c.p_holm) else c.p_holm


def _state_test(c: Comparison) -> str:
    corrected = _choose_p(c)
    if c.family == 1 or pd.isna(c.p_holm):
        return state_p(corrected)
    after = "after Holm's correction" + (f" for {c.family} comparisons" if c.family else "")
    if c.p_value <= LEVEL < corrected:
        return f"{state_p(c.p_value)} by itself but {state_p(corrected)} {after}"
    return f"{state_p(corrected)} {after}"


def _find_training_sd(contents: Contents, row: dict[str, Any]) -> float:
    if pd.notna(row["seed_sd"]):
        return row["seed_sd"]
    # Only one has seeds, or they have different ones: the variances of both add up.
    means = [contents.find_statistic(row[side], "dice") for side in ("approach", "other")]
    known = [mean["seed_sd"] for mean in means if pd.notna(mean["seed_sd"])]
    return float(np.hypot.reduce(known)) if known else float("nan")


def _count_trainings(contents: Contents, row: dict[str, Any]) -> int:
    seeds = [contents.find_statistic(row[side], "dice")["seeds"] for side in ("approach", "other")]
    return int(min((number for number in seeds if number > 1), default=1))


def _to_count(value: float) -> int:
    return 0 if pd.isna(value) else int(value)
