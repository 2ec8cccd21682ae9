"""The sentences around the tables: what was compared, what to be careful about, where it was measured."""

from __future__ import annotations

from typing import Any

from lungseg.report.contents import Contents
from lungseg.report.markup import count, duration
from lungseg.system.errors import without_folders

SHOWN = 5  # leaks that are named
FEW = 50  # patients, below which no known interval of the mean holds when failures are rare


def title(contents: Contents) -> str:
    return f"lungseg benchmark `{contents.run['name']}`"


def compared(contents: Contents) -> str:
    """One sentence: which images, from where, divided how, with which seeds."""
    run, data = contents.run, contents.run["data"]
    trained = run.get("training_data")
    images = contents.scores["image_id"].nunique()
    who = "" if unit_of(contents) == "image" else f" of {count(patients(contents), 'patient')}"
    parts = [
        f"Dataset {data['dataset']} ({count(data['count'], 'image')}): "
        f"{count(images, 'image')}{who} of the {run.get('evaluate_on', 'test')} part",
        f"trained on {trained['dataset']} ({count(trained['count'], 'image')})" if trained else "",
        split(contents),
        seeds(contents),
    ]
    return "; ".join(part for part in parts if part) + "."


def patients(contents: Contents) -> int:
    """How many patients were scored; two hospitals may both have a patient "1"."""
    return len(contents.scores[["source", "patient"]].drop_duplicates())


def unit_of(contents: Contents) -> str:
    """What statistics count: "patient", or "image" where each patient has one."""
    return "image" if patients(contents) == contents.scores["image_id"].nunique() else "patient"


def leaks(contents: Contents) -> str:
    """The line that every table carries if the run went on with leaks; "" without any."""
    found = contents.run.get("leaks") or []
    if not found:
        return ""
    pairs = "1 pair of images stands" if len(found) == 1 else f"{len(found):,} pairs of images stand"
    return f"Leaks allowed: {pairs} on two sides of the split, so scores may be too good."


def split(contents: Contents) -> str:
    """The rule of the split and the first eight digits of its hash, of each fold if there are several."""
    found = []
    for approach, entries in _splits(contents).items():
        rules = ", ".join(dict.fromkeys(entry["rule"] for entry in entries))
        hashes = ", ".join(entry["sha256"][:8] for entry in entries)
        folds = f", {len(entries)} folds" if len(entries) > 1 else ""
        sizes = "/".join(str(entries[0].get(part, "?")) for part in ("train", "validation", "test"))
        text = f"split {rules}{folds} (train/validation/test {sizes}, sha256 {hashes})"
        found.append(f"{approach} has its own {text}" if approach else text)
    return "; ".join(found)


def _splits(contents: Contents) -> dict[str, list[dict]]:
    """Entries of run.json's `splits` by the approach that has them for itself; "" is everybody's."""
    found: dict[str, list[dict]] = {}
    for entry in contents.run["splits"]:
        found.setdefault(entry.get("approach", ""), []).append(entry)
    return found


def seeds(contents: Contents) -> str:
    """How many seeds and which; approaches that ran once beside them are named."""
    values = contents.run.get("seeds", [])
    if len(values) < 2:
        return f"one seed ({values[0]})" if values else ""
    text = f"{len(values)} seeds ({', '.join(str(seed) for seed in values)})"
    counts = {name: int(contents.statistic(name, "dice")["seeds"]) for name in contents.ranked()}
    once = [name for name, count in counts.items() if count == 1]
    fixed = [name for name in once if name not in contents.trained_once]
    once = [name for name in once if name in contents.trained_once]
    some = [f"{name} with {count}" for name, count in counts.items() if 1 < count < len(values)]
    text += f", but one training where chance plays no part ({', '.join(fixed)})" if fixed else ""
    text += f"; trained with fewer seeds: {', '.join(some)}" if some else ""
    return text + (f"; trained with seed {values[0]} alone: {', '.join(once)}" if once else "")


def cautions(contents: Contents) -> list[str]:
    """What a reader must know before believing the table, a sentence each."""
    run = contents.run
    units = patients(contents)
    found = [line for line in (leaks(contents), lookalikes(contents)) if line]
    if run.get("evaluate_on") == "validation":
        found.append(
            "Scored on the validation part, which the approaches may have been chosen by: no final result."
        )
    if 0 < units < FEW:
        found.append(
            f"Only {count(units, unit_of(contents))}: with under {FEW}, rare failures break any interval, "
            "since a sample may miss them; small differences between approaches may be chance."
        )
    if run["data"]["dataset"] == "phantom":
        found.append(
            "The images are generated phantoms: the numbers say that everything works and how fast, "
            "not how well an approach does on X-rays of people."
        )
    blind = [name for name in contents.ranked() if contents.weights(name) == "random weights"]
    if blind:
        found.append(f"Started from random weights, not from ImageNet's: {', '.join(blind)}.")
    splits = _splits(contents)
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
        found.append(f"Results on {', '.join(contents.other_datasets)} are stored too and not shown here.")
    return found


def audit(contents: Contents) -> str:
    """What the search for leaks looked at and found; "" if run.json says nothing of it."""
    entry = contents.run.get("audit")
    if not entry:
        return ""
    kinds = entry.get("kinds") or []
    found = contents.run.get("leaks") or []
    result = f"{count(len(found), 'pair')} on two sides: {_some(found)}" if found else "none on two sides"
    listed = f" ({', '.join(kinds)})" if kinds else ""
    parts = [
        f"Leak audit: {count(entry.get('checked', 0), 'image')} compared{listed}, {result}",
        f"{count(entry['twins'], 'pair')} of the same picture in all" if entry.get("twins") else "",
        ""
        if not kinds or "near-duplicate" in kinds
        else "near-duplicates are looked for among real X-rays alone",
        f"{entry['uncompared']:,} too small, blank or blurred to look for near-duplicates of"
        if entry.get("uncompared")
        else "",
    ]
    return "; ".join(part for part in parts if part)


def lookalikes(contents: Contents) -> str:
    """The caution about pairs on two sides that may show one person under two names; "" without any."""
    found = (contents.run.get("audit") or {}).get("lookalikes") or []
    if not found:
        return ""
    return (
        f"{count(len(found), 'pair')} of look-alikes on two sides of the split may show one person under two "
        f"names, and are no leak unless they do: {_some(found)}."
    )


def _some(sentences: list[str]) -> str:
    more = [f"and {len(sentences) - SHOWN} more in run.json"] if len(sentences) > SHOWN else []
    return "; ".join([*sentences[:SHOWN], *more])


def gaps(contents: Contents) -> list[str]:
    """What is missing, and why: approaches that were skipped, cells that could not be measured."""
    skipped = {
        entry["name"]: entry["skipped"] for entry in contents.run["approaches"] if entry.get("skipped")
    }
    reasons = [f"{name} was not run: {reason}" for name, reason in skipped.items()]
    reasons += [
        f"{cell} is empty: {reason}"
        for cell, reason in contents.run.get("empty", {}).items()
        if cell not in skipped
    ]
    return [_sentence(without_folders(reason)) for reason in reasons]


def provenance(contents: Contents) -> list[str]:
    """Where and with what it was measured, a sentence each, without folders of that machine."""
    run = contents.run
    devices = [f"{kind.upper()} {name}" for kind, name in run.get("devices", {}).items() if name]
    hardware = ", ".join(devices) + (f", {count(run['threads'], 'thread')}" if run.get("threads") else "")
    hardware += f", {run['processes']} processes" if run.get("processes", 1) > 1 else ""
    git = run.get("git") or {}
    revision = (git.get("revision") or "unknown")[:12] + (
        " with uncommitted changes" if git.get("dirty") else ""
    )
    data = [entry for entry in (run["data"], run.get("training_data")) if entry]
    hashes = ", ".join(
        f"{entry['dataset']} sha256 {entry['sha256'][:8]}" for entry in data if entry.get("sha256")
    )
    lines = [
        f"Hardware: {hardware}" if hardware else "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in run.get('versions', {}).items())}",
        f"Data: {hashes}" if hashes else "",
        audit(contents),
        f"Weights: {weights(contents)}",
        f"Code: revision {revision}",
        f"Run: {duration(run['seconds'])} in all, finished {run['finished']}" if run.get("finished") else "",
        _taken_over(run),
    ]
    return [_sentence(without_folders(line)) for line in lines if line]


def _taken_over(run: dict[str, Any]) -> str:
    """The trainings whose rows former results gave, and which results those were; "" without any."""
    found: dict[str, list[str]] = {}
    for trial in run.get("trials", []):
        if origin := trial.get("taken_over"):
            revision = ((origin.get("git") or {}).get("revision") or "unknown")[:12]
            source = f"{origin['name']} (revision {revision}, finished {origin['finished']})"
            label = f"{trial['approach']} fold {trial['fold']} seed {trial['seed']}"
            found.setdefault(source, []).append(label)
    return "; ".join(
        f"Taken over with their training times from {source}, where all that they depend on was the same: "
        f"{', '.join(labels)}"
        for source, labels in found.items()
    )


def weights(contents: Contents) -> str:
    """The files of pretrained weights, each named once, with the first eight digits of its hash."""
    found = []
    for entry in contents.run["approaches"]:
        info = entry.get("weights")
        if info and info["kind"] == "random":
            found.append(f"{info['network']} random")
        elif info:
            name = (info.get("file") or "").replace("\\", "/").rsplit("/", 1)[-1]
            details = ", ".join(part for part in (name, f"sha256 {(info.get('sha256') or '')[:8]}") if part)
            found.append(f"{info['network']} {info['kind']} ({details})")
    return ", ".join(dict.fromkeys(found)) or "none"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
