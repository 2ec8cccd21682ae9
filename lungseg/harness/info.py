"""What `lungseg info` and `lungseg data list` print."""

from __future__ import annotations

import os

from lungseg.approaches.registry import APPROACHES
from lungseg.data.datasets.registry import DATASETS
from lungseg.data.loading import find_data_root, find_dataset
from lungseg.harness.runtime import resolve_runtime
from lungseg.learning.trees.evaluator import find_engine
from lungseg.learning.weights import find_weights
from lungseg.spec import RuntimeSpec
from lungseg.system.errors import InputError
from lungseg.system.machine import describe_cpu, find_git_revision, find_gpu_name, list_versions


def list_facts() -> list[tuple[str, str]]:
    """List (what, value): versions, devices, engines, and where data and weights were found."""
    runtime = resolve_runtime(RuntimeSpec())
    revision = find_git_revision()
    rows = [
        ("versions", ", ".join(f"{name} {number}" for name, number in list_versions().items())),
        (
            "revision",
            f"{revision['revision']}{' with changes' if revision['dirty'] else ''}"
            if revision
            else "unknown",
        ),
        ("CPU", describe_cpu()),
        ("CUDA", find_gpu_name() or "no device"),
        ("runs on", f"{runtime.device.type}, {runtime.precision}, {runtime.threads} threads"),
        ("trees on CPU", _trees_text("cpu")),
        *([("trees on CUDA", _trees_text("cuda"))] if find_gpu_name() else []),
        ("LUNGSEG_DATA", os.environ.get("LUNGSEG_DATA") or "not set"),
        *((f"dataset {name}", text) for name, text in list_datasets()),
        ("LUNGSEG_WEIGHTS", os.environ.get("LUNGSEG_WEIGHTS") or "not set"),
        *((f"weights {network}", _weights_text(network)) for network in ("vgg19", "resnet50")),
        ("approaches", ", ".join(APPROACHES)),
    ]
    return rows


def _trees_text(device: str) -> str:
    engine, passed_over = find_engine(device)
    return "; ".join([engine, *passed_over])


def _weights_text(network: str) -> str:
    try:
        file = find_weights(network, "auto")
        return f"ImageNet: {file.path}, sha256 {file.sha256[:16]}" if file else "none on this machine"
    except InputError as error:
        return str(error)


def list_datasets() -> list[tuple[str, str]]:
    """List (dataset, how many samples it has here, or why none)."""
    return [(name, _dataset_text(name)) for name in DATASETS]


def _dataset_text(name: str) -> str:
    try:
        return f"{len(find_dataset(name, {}, find_data_root()).samples())} images with masks"
    except InputError as error:
        return str(error)
