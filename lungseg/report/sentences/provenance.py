"""Say where, when and with what the results were measured."""

from __future__ import annotations

from typing import Any

from lungseg.report.contents import Contents
from lungseg.report.markup import end_sentence, format_count, format_duration
from lungseg.report.sentences.leaks import describe_audit
from lungseg.system.errors import shorten_paths
from lungseg.system.nvml import format_gpu


def list_provenance(contents: Contents) -> list[str]:
    """Return where and with what the results were measured, a sentence each, without folders."""
    run = contents.run
    data = [entry for entry in (run["data"], run["training_data"], *run.get("test_data", [])) if entry]
    hashes = ", ".join(f"{entry['dataset']} sha256 {entry['sha256'][:8]}" for entry in data)
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    dirty = " with uncommitted changes" if run["git"] and run["git"]["dirty"] else ""
    time = f"Run: {format_duration(run['seconds'])} in all, finished {run['finished']}"
    lines = [
        f"Hardware: {describe_hardware(run)}",
        f"Versions: {versions}",
        f"Data: {hashes}",
        describe_audit(contents),
        f"GPU: {format_gpu(run['gpu'])}" if run.get("gpu") else "",  # older results don't have it
        f"Weights: {_describe_weights(run)}",
        f"Code: revision {name_revision(run)}{dirty}",
        time if run["finished"] else "",
        _describe_reuse(run),
        _list_names(contents),
    ]
    return [end_sentence(shorten_paths(line)) for line in lines if line]


def describe_hardware(run: dict[str, Any]) -> str:
    """Name the processors, and how many threads and processes worked."""
    devices = ", ".join(f"{kind.upper()} {name}" for kind, name in run["devices"].items() if name)
    processes = run.get("processes", 1)  # some published results are from before this was recorded
    text = f"{devices}, {format_count(run['threads'], 'thread')}"
    return text + (f", {processes} processes" if processes > 1 else "")


def _list_names(contents: Contents) -> str:
    """Say how the rows are called in the spec and in all files, where that isn't their label."""
    names = [f"{name} ({label})" for label, name in contents.file_names.items() if name != label]
    return f"Names in the spec and in all files: {'; '.join(names)}" if names else ""


def name_revision(record: dict[str, Any]) -> str:
    """Return the revision of the code that made a record; "unknown" if it was no Git checkout."""
    return record["git"]["revision"][:12] if record["git"] else "unknown"


def _describe_reuse(run: dict[str, Any]) -> str:
    """Name the trials whose rows are from former results, and these results; "" without any."""
    found: dict[str, list[str]] = {}
    for trial in run["trials"]:
        if origin := trial.get("taken_over"):
            source = f"{origin['name']} (revision {name_revision(origin)}, finished {origin['finished']})"
            label = f"{trial['approach']} fold {trial['fold']} seed {trial['seed']}"
            found.setdefault(source, []).append(label)
    return "; ".join(
        f"Taken over with their training times from {source}, where all that they depend on was the same: "
        f"{', '.join(labels)}"
        for source, labels in found.items()
    )


def _describe_weights(run: dict[str, Any]) -> str:
    """Name the pretrained weights, each file once with the first eight digits of its hash."""
    found = []
    for weights in [entry["weights"] for entry in run["approaches"] if entry["weights"]]:
        text = f"{weights['network']} {weights['kind']}"
        if weights["kind"] != "random":
            name = weights["file"].replace("\\", "/").rsplit("/", 1)[-1]
            text += f" ({name}, sha256 {weights['sha256'][:8]})" if name else ""
        found.append(text)
    return ", ".join(dict.fromkeys(found)) or "none"
