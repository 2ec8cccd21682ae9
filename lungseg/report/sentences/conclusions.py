"""One sentence per comparison: what may be concluded from it and what may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lungseg.report.contents import Contents
from lungseg.report.markup import count, interval, p_equals
from lungseg.report.numbers.comparisons import family_size, paired_frame, turned
from lungseg.report.sentences.notes import FEW, unit_of

LEVEL = 0.05  # of the tests, after Holm's correction
# A difference in Dice. Outlines of two physicians differ by .017 to .038 (CheXmask), several times as much.
NEGLIGIBLE = 0.005


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two approaches in Dice, `approach` the one with the higher mean.

    Attributes:
        n: patients (or images, where each patient has one), as `unit` calls them.
        difference, low, high: mean of approach minus other, with its 95 % interval (NaN without one).
        p_value, p_holm: of the sign-flip test, alone and corrected over `family` comparisons (NaN untested;
            family is 0 if their number isn't known).
        better, worse: on how many of the n `approach` has the higher and the lower Dice.
        one_seed: those of the two that were trained once although chance plays a part in their training.
        training_sd: standard deviation, over seeds, of the difference of one training of each; NaN unknown.
        trainings: of each approach that chance plays a part in, the fewest; the difference is their mean.
        folds: of the split; they share training images, which no test allows for.
        where: the images that it speaks of.
        final: False if the approaches may have been chosen by these very images.
    """

    approach: str
    other: str
    n: int
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    better: int
    worse: int
    family: int = 1
    unit: str = "image"
    one_seed: tuple[str, ...] = ()
    training_sd: float = float("nan")
    trainings: int = 1
    folds: int = 1
    where: str = "images like these"
    final: bool = True


def conclusions(contents: Contents) -> list[str]:
    """A sentence per pair of approaches on the primary endpoint, in the order of their ranks."""
    return [conclude(comparison) for comparison in comparisons(contents)]


def comparisons(contents: Contents) -> list[Comparison]:
    """The stored comparisons in Dice, with what bears on their reading."""
    run = contents.run
    final = run.get("evaluate_on", "test") == "test"
    where = "the validation images" if not final else "images like these"
    if final and run["data"]["dataset"] == "phantom":
        where = "phantoms like these"
    return [
        Comparison(
            approach=row["approach"],
            other=row["other"],
            n=int(row["n"]),
            difference=row["value"],
            low=row["low"],
            high=row["high"],
            p_value=row["p_value"],
            p_holm=row["p_holm"],
            better=_whole(row["better"]),
            worse=_whole(row["worse"]),
            family=family_size(contents),
            unit=unit_of(contents),
            one_seed=_trained_once(contents, row["approach"], row["other"]),
            training_sd=_training_sd(contents, row),
            trainings=_trainings(contents, row),
            folds=sum("approach" not in entry for entry in run["splits"]),
            where=where,
            final=final,
        )
        for row in map(_higher_first, paired_frame(contents, "dice").to_dict("records"))
    ]


def _higher_first(row: dict[str, Any]) -> dict[str, Any]:
    # Ranks go by all images of an approach, a pair by those that both have: the two may disagree.
    return turned(row) if row["value"] < 0 else row


def conclude(comparison: Comparison) -> str:
    """What one comparison shows and what it doesn't, as one sentence."""
    c = comparison
    if c.better == c.worse == 0 and c.difference == 0:
        parts = [
            f"{c.approach} and {c.other} have the same Dice on {'the' if c.n == 1 else 'all'} "
            f"{count(c.n, c.unit)}: they can't be told apart here, which does not show that they are the "
            "same elsewhere"
        ]
    elif pd.isna(c.p_value):
        parts = [
            f"Nothing can be concluded about {c.approach} and {c.other}: {count(c.n, c.unit)} "
            f"{'is' if c.n == 1 else 'are'} too few for a test"
        ]
    elif _corrected(c) > LEVEL:
        parts = _not_shown(c)
    elif c.low <= 0:
        parts = [
            f"Whether {c.approach} or {c.other} has the higher mean Dice on {c.where} stays open: the test "
            f"of their difference, {_size(c)}, finds one ({_tested(c)}), but its interval holds 0"
        ]
    else:
        parts = _shown(c)
    return "; ".join([*parts, *_reservations(c)]) + "."


def _not_shown(c: Comparison) -> list[str]:
    alike = f"{c.difference:z.4f}" == "0.0000"
    by = "their means are equal to four digits," if alike else "the first is higher by"
    text = (
        f"No difference in mean Dice between {c.approach} and {c.other} on {c.where} was shown: {by} "
        f"{_size(c)}, {_tested(c)}"
    )
    # Patients and trainings both at their worst: on the safe side.
    limit = max(abs(c.low), abs(c.high)) + np.nan_to_num(_chance_of_training(c))
    equal = "that does not show that they are equal"
    if pd.notna(limit) and c.n >= FEW:
        models = " between these trained models" if c.one_seed else ""
        equal += f", but a difference{models} of more than {limit:.4f} is unlikely"
    return [text, equal]


def _shown(c: Comparison) -> list[str]:
    luck = _chance_of_training(c) >= c.difference
    head = f"{c.approach} has a higher mean Dice than {c.other} on {c.where}"
    head = f"As trained here, {head}" if luck else head
    negligible = c.high < NEGLIGIBLE
    parts = [f"{head}{', but negligibly so' if negligible else ''}: by {_size(c)}, {_tested(c)}"]
    if not negligible and c.low < NEGLIGIBLE:
        parts.append(f"the true difference may be as small as {c.low:.4f}, which would be negligible")
    parts.append(_share(c))
    if luck:
        parts.append(
            f"it can't be told from chance of training: {c.trainings} trainings leave the mean difference "
            f"uncertain by ±{_chance_of_training(c):.4f} (95 %) for that alone"
        )
    elif c.one_seed:
        parts.append(_models(c))
    return parts


def _chance_of_training(c: Comparison) -> float:
    """Half the 95 % interval, by Student's t over seeds, of a mean difference; NaN with one training."""
    if c.trainings < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, c.trainings - 1) * c.training_sd / np.sqrt(c.trainings))


def _share(c: Comparison) -> str:
    tied = c.n - c.better - c.worse
    equal = f" and equal on {tied:,}" if tied else ""
    text = f"better on {c.better:,}{equal} of {count(c.n, c.unit)}"
    if c.better < c.worse:
        return f"yet it is {text}, so a few large differences decide the mean"
    return text


def _models(c: Comparison) -> str:
    if len(c.one_seed) == 2:
        return "this holds for these trained models, not for their training recipes (one seed each)"
    return f"this holds for this trained {c.one_seed[0]}, not for its training recipe (one seed)"


def _reservations(c: Comparison) -> list[str]:
    found = []
    if c.n < FEW and pd.notna(c.p_value):
        found.append(f"with only {count(c.n, c.unit)}, interval and test are unreliable if failures are rare")
    if c.folds > 1:
        found.append("the folds share training images, so the interval is too narrow and p too small")
    if not c.final:
        found.append("no final claim, since the approaches may have been chosen by these images")
    return found


def _size(c: Comparison) -> str:
    return interval(lambda value: f"{value:z.4f}", c.difference, c.low, c.high)


def _corrected(c: Comparison) -> float:
    return c.p_value if pd.isna(c.p_holm) else c.p_holm


def _tested(c: Comparison) -> str:
    corrected = _corrected(c)
    if c.family == 1 or pd.isna(c.p_holm):
        return p_equals(corrected)
    after = "after Holm's correction" + (f" for {c.family} comparisons" if c.family else "")
    if c.p_value <= LEVEL < corrected:
        return f"{p_equals(c.p_value)} by itself but {p_equals(corrected)} {after}"
    return f"{p_equals(corrected)} {after}"


def _trained_once(contents: Contents, *names: str) -> tuple[str, ...]:
    """Of the named approaches, those with one seed for want of others and not for want of chance."""
    return tuple(name for name in names if name in contents.trained_once and name not in contents.baselines)


def _training_sd(contents: Contents, row: dict[str, Any]) -> float:
    if pd.notna(row["seed_sd"]):
        return row["seed_sd"]
    # Seeds of one of the two, or different ones: the spreads of both add up.
    spreads = [contents.statistic(row[side], "dice").get("seed_sd", np.nan) for side in ("approach", "other")]
    known = [spread for spread in spreads if pd.notna(spread)]
    return float(np.hypot.reduce(known)) if known else float("nan")


def _trainings(contents: Contents, row: dict[str, Any]) -> int:
    several = [contents.statistic(row[side], "dice").get("seeds", 1) for side in ("approach", "other")]
    return int(min((seeds for seeds in several if seeds > 1), default=1))


def _whole(value: float) -> int:
    return 0 if pd.isna(value) else int(value)
