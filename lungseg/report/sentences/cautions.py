"""List what a reader must be careful about, and what is missing."""

from __future__ import annotations

from typing import Any

from lungseg.report.contents import RANDOM, Contents
from lungseg.report.markup import end_sentence, format_count
from lungseg.report.sentences.images import count_patients, find_unit, group_splits
from lungseg.report.sentences.leaks import warn_of_leaks, warn_of_lookalikes
from lungseg.system.errors import shorten_paths

FEW = 50  # patients, below which no known interval of the mean holds when failures are rare


def list_cautions(contents: Contents) -> list[str]:
    """Return what a reader must know before trusting the table, a sentence each."""
    run = contents.run
    patients = count_patients(contents)
    splits = group_splits(contents)
    found = [line for line in (warn_of_leaks(contents), warn_of_lookalikes(contents)) if line]
    if run["evaluate_on"] == "validation":
        found.append(
            "Scored on the validation part, which the approaches may have been chosen by: no final result."
        )
    if 0 < patients < FEW:
        found.append(
            f"Only {format_count(patients, find_unit(contents))}: with under {FEW}, rare failures break any "
            "interval, since a sample may miss them; small differences between approaches may be chance."
        )
    if run["data"]["dataset"] == "phantom":
        found.append(
            "The images are generated phantoms: the numbers say that everything works and how fast, "
            "not how well an approach does on X-rays of people."
        )
    if blind := [name for name in contents.ranked if contents.find_weights(name) == RANDOM]:
        found.append(f"Started from random weights, not from ImageNet's: {', '.join(blind)}.")
    if beaten := list_beaten(contents):
        found.append(
            f"{', '.join(beaten)}: a lower mean Dice than the mean of the training masks, which looks at no "
            "image. It has hardly learnt: give it more images, more epochs or pretrained weights."
        )
    if own := [name for name in splits if name]:
        found.append(
            f"Scored on other images than the rest, and so not to be compared with it: {', '.join(own)}."
        )
    if any(len(entries) > 1 for entries in splits.values()):
        found.append(
            "The folds share training images, so intervals over all folds are narrower, and p-values "
            "smaller, than they should be."
        )
    if contents.other_datasets:
        found.append(f"Further test sets have tables of their own: {', '.join(contents.other_datasets)}.")
    return found


def list_beaten(contents: Contents) -> list[str]:
    """Return what was trained in epochs and has a lower mean Dice than the mean of the training masks."""
    uses = {entry["name"]: entry["use"] for entry in contents.run["approaches"]}
    means = {name: contents.find_statistic(name, "dice")["value"] for name in contents.ranked}
    bars = [mean for name, mean in means.items() if uses[name] == "mean-mask"]
    trained = set(contents.history[contents.history["unit"] == "epoch"]["approach"])
    return [name for name, mean in means.items() if name in trained and bars and mean < min(bars)]


def list_missing_rows(contents: Contents) -> list[str]:
    """Return which approaches have no row, and why: they failed, or can't run here."""
    reasons = [_describe_failure(failure) for failure in contents.run["failed"]]
    reasons += [
        f"{entry['name']} was not run: {entry['skipped']}"
        for entry in contents.run["approaches"]
        if entry["skipped"]
    ]
    return [end_sentence(shorten_paths(reason)) for reason in reasons]


def list_gaps(contents: Contents) -> list[str]:
    """Return what is missing and why: approaches, images, and cells."""
    skipped = {entry["name"] for entry in contents.run["approaches"] if entry["skipped"]}
    empty = {cell: reason for cell, reason in contents.run["empty"].items() if cell not in skipped}
    reasons = [*contents.run["notes"], *(f"{cell} is empty: {reason}" for cell, reason in empty.items())]
    return list_missing_rows(contents) + [end_sentence(shorten_paths(reason)) for reason in reasons]


def _describe_failure(failure: dict[str, Any]) -> str:
    name = failure["approach"]
    return f"{name} has no row, because a trial of it failed: {failure['reason']}"
