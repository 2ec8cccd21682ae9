"""Write the verdict: what a benchmark shows, in at most six sentences, however many approaches it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lungseg.report.contents import RANDOM, Contents
from lungseg.report.markup import (
    format_amount,
    format_count,
    format_difference,
    format_duration,
    format_interval,
    format_p,
    format_score,
    state_p,
)
from lungseg.report.numbers.ablation import collect_ablation
from lungseg.report.numbers.comparisons import collect_pairs
from lungseg.report.numbers.groups import LEVEL, find_equals
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.numbers.timing import find_as_fast
from lungseg.report.sentences.cautions import FEW
from lungseg.report.sentences.conclusions import NEGLIGIBLE, find_smallest_p, read_comparisons
from lungseg.report.sentences.images import count_patients, find_unit

MOST_NAMES = 4  # that a sentence lists
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_REASONS = 2  # of what must not be concluded


def write_verdict(contents: Contents) -> list[str]:
    """Return the verdict, a sentence each: who is best and by how much, what it costs, and what it is not.

    The groups are those of the sign-flip tests after Holm's correction. An ablation has differences within
    its groups of rows instead.
    """
    if not contents.ranked:
        return ["No approach has results."]
    best = contents.ranked[0]
    compared = [] if contents.groups else collect_pairs(contents, "dice").to_dict("records")
    of_best = {row["other"]: row for row in compared if row["approach"] == best}
    sentences = [_say_best(contents, best)]
    if contents.groups:
        sentences += _say_steps(contents)
    if not of_best:
        return [*sentences, *_say_cost(contents, [best]), _say_limit(contents, [])]
    group = [best]
    if (least := _find_least_p(contents, best)) > LEVEL:
        sentences.append(_say_too_few(contents, least))
    else:
        group += find_equals(contents, best)
        sentences += _say_differences(group[1:], of_best)
    sentences += [*_say_price(contents, compared), *_say_cost(contents, group)]
    small = [name for name, row in of_best.items() if row["high"] < NEGLIGIBLE]
    return [*sentences, _say_limit(contents, list(dict.fromkeys([*group, *small])))]


def _say_best(contents: Contents, best: str) -> str:
    row = contents.find_statistic(best, "dice")
    mean = format_interval(format_score, row["value"], row["low"], row["high"])
    verb = "has the highest mean Dice:" if len(contents.ranked) > 1 else "has a mean Dice of"
    return f"{best} {verb} {mean}, on {_describe_images(contents, best)}."


def _describe_images(contents: Contents, name: str) -> str:
    run, scores = contents.run, contents.scores
    images = scores[scores["approach"] == name]["image_id"].nunique()
    if run["data"]["dataset"] == "phantom":
        return format_count(images, "generated phantom")
    part = {"test": "test ", "validation": "validation "}.get(run["evaluate_on"], "")
    trained = f", trained on {run['training_data']['dataset']}" if run["training_data"] else ""
    return f"{format_count(images, f'{part}image')} of {run['data']['dataset']}{trained}"


def _find_least_p(contents: Contents, best: str) -> float:
    """Return the smallest p that a test of the best approach can give after Holm's correction; 1 if none."""
    pairs = [one for one in read_comparisons(contents) if best in (one.approach, one.other)]
    return min((find_smallest_p(one) for one in pairs if pd.notna(one.p_value)), default=1.0)


def _say_too_few(contents: Contents, least: float) -> str:
    number = format_count(count_patients(contents), find_unit(contents))
    if least >= 1:
        return f"With {number} no test is possible: nothing can be shown."
    more = f" and {contents.family} comparisons" if contents.family > 1 else ""
    return f"With {number}{more} no p under {format_p(least)} is possible: nothing can be shown."


def _say_differences(equals: Sequence[str], of_best: dict[str, dict[str, Any]]) -> list[str]:
    """Say which approaches the tests don't separate from the best one, and by how much the next is lower."""
    tested = {name: row for name, row in of_best.items() if name not in equals and pd.notna(row["p_holm"])}
    lower = {name: row for name, row in tested.items() if row["low"] > 0}
    small = {name: row for name, row in lower.items() if row["high"] < NEGLIGIBLE}
    large = [name for name in lower if name not in small]
    unclear = [name for name in tested if name not in lower]
    found = []
    if equals:
        text = f"The tests do not separate it from {_join(equals)}"
        found.append(f"{text}; this does not show {'it' if len(equals) == 1 else 'them'} to be equal.")
    if small:
        by = _join([f"{name} by {row['value']:.4f}" for name, row in small.items()])
        ends = "interval ends" if len(small) == 1 else "intervals end"
        text = f"It is above {by}: shown by the tests, but negligible"
        found.append(f"{text} (the 95 % {ends} below {NEGLIGIBLE}).")
    if large and not (equals and small):
        row, first = lower[large[0]], large[0]
        complete = len(of_best) == len(equals) + len(lower)
        who = "All others are" if complete else f"{len(large)} others are"
        start = f"{who} lower: the nearest, {first}," if len(large) > 1 else f"{first} is lower:"
        found.append(f"{start} by {_format_difference(row)}, {state_p(row['p_holm'])} after correction.")
    if unclear and len(found) < 2:
        found.append(f"Whether it is better than {_join(unclear)} stays open: test and interval disagree.")
    return found


def _say_steps(contents: Contents) -> list[str]:
    """Say which rows of an ablation differ most from the first row of their group, either way."""
    rows = collect_ablation(contents).dropna(subset=["first"])
    sure = rows[(rows["first_low"] > 0) | (rows["first_high"] < 0)]
    if rows.empty:
        return []
    if sure.empty:
        return ["No row differs from the first row of its group: every interval of a difference holds 0."]
    found = [
        f"{len(sure)} of {format_count(len(rows), 'row')} differ from the first row of their group: their "
        "interval, not corrected for the number of rows, leaves out 0."
    ]
    for word, row in (
        ("gain", sure[sure["first"] > 0].nlargest(1, "first")),
        ("loss", sure.nsmallest(1, "first")),
    ):
        if len(row) and (word == "gain") == (row["first"].iloc[0] > 0):
            one = row.iloc[0]
            amount = format_interval(format_difference, one["first"], one["first_low"], one["first_high"])
            found.append(f"The largest {word} is that of {one['approach']} in '{one['group']}': {amount}.")
    return found


def _say_price(contents: Contents, compared: Sequence[dict[str, Any]]) -> list[str]:
    """Compare the best on frozen features with the best network trained end to end, if there are both."""
    frozen, network = find_best_of_both(contents)
    rows = [row for row in compared if {row["approach"], row["other"]} == {frozen, network}]
    if not rows:
        return []
    row = rows[0]
    relation = "above" if row["approach"] == frozen else "below"
    if pd.isna(row["p_holm"]) or row["p_holm"] > LEVEL:
        size = "which the tests do not show to be a difference"
    elif row["high"] < NEGLIGIBLE:
        size = "which is negligible"
    else:
        size = "which the tests show to be a difference"
    how = "on frozen features"
    if not _learns_in_epochs(contents, frozen):
        how = f"without back-propagation ({how})"
    text = (
        f"{frozen}, the best {how}, is {_format_difference(row)} {relation} the best trained network, "
        f"{network}, {size}"
    )
    frame = collect_main_rows(contents).drop_duplicates("approach").set_index("approach")
    cost = "" if frozen == contents.ranked[0] else _format_cost(frame.loc[frozen])
    return [f"{text}; {frozen} takes {cost}." if cost else f"{text}."]


def find_best_of_both(contents: Contents) -> tuple[str | None, str | None]:
    """Return the best regressor of pixel rows, and the best network that was trained in epochs on images."""
    units = contents.training.drop_duplicates("approach").set_index("approach")["unit"]
    rows = [name for name in contents.ranked if units.get(name) == "rows"]
    images = [name for name in contents.ranked if units.get(name) == "images"]
    networks = [name for name in images if _learns_in_epochs(contents, name)]
    return next(iter(rows), None), next(iter(networks), None)


def _learns_in_epochs(contents: Contents, name: str) -> bool:
    """Return whether an approach's fitted part is trained by back-propagation."""
    steps = contents.history[contents.history["approach"] == name]["unit"]
    return bool((steps == "epoch").any())


def _say_cost(contents: Contents, group: Sequence[str]) -> list[str]:
    """Say what the fastest approach of the best group costs, beside the best one itself, which is first.

    Times are compared on one device: the first on which the best one was timed.
    """
    best, frame = group[0], collect_main_rows(contents)
    timed = frame[frame["approach"].isin(group) & frame["ms_per_image"].notna()]
    devices = timed[timed["approach"] == best]["device"]
    if devices.empty:
        return []
    timed = timed[timed["device"] == devices.iloc[0]].set_index("approach")
    fastest = timed["ms_per_image"].idxmin()
    fast = [fastest, *find_as_fast(contents, fastest, devices.iloc[0], timed.index)]
    if best in fast:
        others = f"; none of the {len(timed)} that the tests do not separate is faster"
        return [f"{best} takes {_format_cost(timed.loc[best])}{others if len(timed) > 1 else ''}."]
    among = f"Of the {len(timed)} that the tests do not separate, the fastest"
    if len(fast) == 1:
        start = f"{among} is {fastest}, with {_format_cost(timed.loc[fastest])}"
    else:
        times = " and ".join(format_amount(timed.loc[name, "ms_per_image"]) for name in fast[:MOST_NAMES])
        start = f"{among} are {_join(fast)}, not distinguishable from one another, with {times} ms an image"
    return [f"{start}; {best} takes {_format_cost(timed.loc[best])}."]


def _format_cost(row: pd.Series) -> str:
    """Format the time of an image and of a training, as far as they are known."""
    parts = []
    if pd.notna(row["ms_per_image"]):
        parts.append(f"{format_amount(row['ms_per_image'])} ms an image on the {DEVICES[row['device']]}")
    if pd.notna(row["training_seconds"]):
        parts.append(f"{format_duration(row['training_seconds'])} of training")
    return " and ".join(parts)


def _say_limit(contents: Contents, group: Sequence[str]) -> str:
    """Say what a reader must not conclude: the gravest reasons first, at most two."""
    run, number = contents.run, count_patients(contents)
    reasons = []
    if leaks := len(run["leaks"]):
        pairs = "1 pair of images is" if leaks == 1 else f"{leaks:,} pairs of images are"
        reasons.append(f"that new images get these scores: {pairs} on two sides of the split")
    if run["evaluate_on"] == "validation":
        reasons.append("that this is final: the approaches may have been chosen by these images")
    if run["data"]["dataset"] == "phantom":
        reasons.append("anything about X-rays of people: these are generated phantoms")
    if blind := [name for name in contents.ranked if contents.find_weights(name) == RANDOM]:
        who = "it" if len(blind) == 1 else "they"
        reasons.append(f"how good {_join(blind)} can be: {who} started from random weights")
    if apart := [name for name in contents.ranked if not _is_compared(contents, name)]:
        reasons.append(f"how {_join(apart)} compares: scored on other images")
    if 0 < number < FEW:
        count = format_count(number, find_unit(contents))
        reasons.append(f"much from {count}: a rare failure may be missing among so few")
    once = [name for name in group if name in contents.trained_once]
    if once:
        verb = "was" if len(once) == 1 else "were"
        reasons.append(f"that another training gives this order: {_join(once)} {verb} trained once")
    if not reasons:
        what = "order" if len(contents.ranked) > 1 else "score"
        reasons = [f"that images of another hospital give this {what}: these are of one dataset"]
    return f"Do not conclude {'; nor '.join(reasons[:_REASONS])}."


def _is_compared(contents: Contents, name: str) -> bool:
    """Return whether an approach was scored on the images of the best one."""
    images = contents.image_dice
    return bool((images[name].notna() == images[contents.ranked[0]].notna()).all())


def _join(names: Sequence[str]) -> str:
    """List names: "A", "A and B", "A, B and C", "A, B, C and 7 others"; with ";" if a label has a comma."""
    shown = list(names[:MOST_NAMES])
    if rest := len(names) - len(shown):
        shown.append(format_count(rest, "other"))
    mark = "; " if any("," in name for name in shown[:-1]) else ", "
    return shown[0] if len(shown) == 1 else f"{mark.join(shown[:-1])} and {shown[-1]}"


def _format_difference(row: dict[str, Any]) -> str:
    return format_interval(lambda value: f"{value:z.4f}", row["value"], row["low"], row["high"])
