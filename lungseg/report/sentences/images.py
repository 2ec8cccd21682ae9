"""Describe which images were scored, how they were divided, and which seeds trained on them."""

from __future__ import annotations

from typing import Any

from lungseg.report.contents import Contents
from lungseg.report.markup import format_count


def describe_images(contents: Contents) -> str:
    """Return one sentence: which images, from where, divided how, with which seeds."""
    run, data, trained = contents.run, contents.run["data"], contents.run["training_data"]
    images = contents.scores["image_id"].nunique()
    who = "" if find_unit(contents) == "image" else f" of {format_count(count_patients(contents), 'patient')}"
    parts = [
        f"Dataset {data['dataset']} ({format_count(data['count'], 'image')}): "
        f"{format_count(images, 'image')}{who} of the {run['evaluate_on']} part",
        f"trained on {trained['dataset']} ({format_count(trained['count'], 'image')})" if trained else "",
        _describe_splits(contents),
        describe_seeds(contents),
    ]
    return "; ".join(part for part in parts if part) + "."


def count_patients(contents: Contents) -> int:
    """Count the patients that were scored. Two sources may both have a patient "1"."""
    return len(contents.scores[["source", "patient"]].drop_duplicates())


def find_unit(contents: Contents) -> str:
    """Return what statistics count: "patient", or "image" if each patient has one."""
    return "image" if count_patients(contents) == contents.scores["image_id"].nunique() else "patient"


def group_splits(contents: Contents) -> dict[str, list[dict[str, Any]]]:
    """Return run.json's `splits` by the approach that alone has them; those of all others are under ""."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in contents.run["splits"]:
        found.setdefault(entry.get("approach", ""), []).append(entry)
    return found


def _describe_splits(contents: Contents) -> str:
    """Name the rule and the sizes of each split, and the first eight digits of each fold's hash."""
    found = []
    for approach, entries in group_splits(contents).items():
        rules = ", ".join(dict.fromkeys(entry["rule"] for entry in entries))
        hashes = ", ".join(entry["sha256"][:8] for entry in entries)
        folds = f", {len(entries)} folds" if len(entries) > 1 else ""
        sizes = "/".join(str(entries[0][part]) for part in ("train", "validation", "test"))
        text = f"split {rules}{folds} (train/validation/test {sizes}, sha256 {hashes})"
        found.append(f"{approach} has its own {text}" if approach else text)
    return "; ".join(found)


def describe_seeds(contents: Contents) -> str:
    """Name the seeds, and the approaches that were trained with fewer."""
    values = contents.run["seeds"]
    if len(values) == 1:
        return f"one seed ({values[0]})"
    trainings = {name: int(contents.find_statistic(name, "dice")["seeds"]) for name in contents.ranked}
    once = [name for name, number in trainings.items() if number == 1]
    fixed = [name for name in once if name not in contents.trained_once]
    single = [name for name in once if name in contents.trained_once]
    fewer = [f"{name} with {number}" for name, number in trainings.items() if 1 < number < len(values)]
    text = f"{len(values)} seeds ({', '.join(str(seed) for seed in values)})"
    text += f", but one training of what is deterministic ({', '.join(fixed)})" if fixed else ""
    text += f"; trained with fewer seeds: {', '.join(fewer)}" if fewer else ""
    return text + (f"; trained with seed {values[0]} alone: {', '.join(single)}" if single else "")
