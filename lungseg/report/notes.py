"""The sentences around the tables: what was compared, what to be careful about, where it was measured."""

from __future__ import annotations

from lungseg.report.contents import Contents
from lungseg.report.markup import count, duration, without_folders

FEW = 50  # images, below which a difference between approaches may well be chance


def title(contents: Contents) -> str:
    return f"lungseg benchmark `{contents.run['name']}`"


def compared(contents: Contents) -> str:
    """One sentence: which images, from where, divided how, with which seeds."""
    run, data = contents.run, contents.run["data"]
    trained = run.get("training_data")
    images = contents.scores["image_id"].nunique()
    patients = contents.scores["patient"].nunique()
    who = "" if patients in (0, images) else f" of {count(patients, 'patient')}"
    parts = [
        f"Dataset {data['dataset']} ({count(data['count'], 'image')}): "
        f"{count(images, 'image')}{who} of the {run.get('evaluate_on', 'test')} part",
        f"trained on {trained['dataset']} ({count(trained['count'], 'image')})" if trained else "",
        split(contents),
        seeds(contents),
    ]
    return "; ".join(part for part in parts if part) + "."


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
    values = contents.run.get("seeds", [])
    return (
        f"{'seed' if len(values) == 1 else 'seeds'} {', '.join(str(seed) for seed in values)}"
        if values
        else ""
    )


def cautions(contents: Contents) -> list[str]:
    """What a reader must know before believing the table, a sentence each."""
    run = contents.run
    images = contents.scores["image_id"].nunique()
    found = []
    if run.get("evaluate_on") == "validation":
        found.append(
            "Scored on the validation part, which the approaches may have been chosen by: no final result."
        )
    if 0 < images < FEW:
        found.append(f"Only {count(images, 'image')}: small differences between approaches may be chance.")
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
            "The folds share training images, so intervals over all folds are narrower than they should be."
        )
    if contents.other_datasets:
        found.append(f"Results on {', '.join(contents.other_datasets)} are stored too and not shown here.")
    return found


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
        f"Weights: {weights(contents)}",
        f"Code: revision {revision}",
        f"Run: {duration(run['seconds'])} in all, finished {run['finished']}" if run.get("finished") else "",
    ]
    return [_sentence(without_folders(line)) for line in lines if line]


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
