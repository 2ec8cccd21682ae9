"""A small synthetic results directory with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lungseg.report.contents import Contents, list_further_contents, read_contents
from lungseg.report.findings import collect_findings
from lungseg.report.tables.summary import write_tables
from lungseg.results import FORMAT, TABLES, finish_run, write_table
from lungseg.system.files import read_json
from lungseg.system.stored import SEAL, describe_files, write_record
from tests.report import results_tables
from tests.report.results_tables import DICE, IDS, SEEDS

SIZE = 48


def write_results(directory: Path) -> Path:
    """Three approaches and a skipped one, six images of two sources, two seeds; no timings of `mean-mask`."""
    for name in TABLES:
        write_table(directory / f"{name}.csv", name, getattr(results_tables, name)())
    finish_run(directory, run_record())
    write_predictions(directory)
    return directory


def read_edited(directory: Path) -> Contents:
    """Read a results directory whose run.json or tables a test has edited, as if its run had made them so."""
    path = directory / "run.json"
    if path.exists():
        record = read_json(path)
        finish_run(directory, {name: record[name] for name in record if name not in (SEAL, "tables")})
    if (directory / "predictions").exists():
        record_pictures(directory)
    return read_contents(directory)


def write_summary(directory: Path) -> str:
    """Write the tables of an edited results directory; return summary.md."""
    contents = read_edited(directory)
    write_tables(collect_findings(contents, list_further_contents(contents)))
    return (directory / "summary.md").read_text(encoding="utf-8")


def approach_record(name: str, use: str = "x", **changes: Any) -> dict[str, Any]:
    """Return an entry of run.json's `approaches`."""
    record = {"name": name, "use": use, "group": [], "weights": None, "skipped": None}
    return record | {"depends_on_seed": True} | changes


def run_record() -> dict[str, Any]:
    def weights(network: str, kind: str) -> dict[str, str]:
        file = f"/home/somebody/{network}.safetensors"
        return {"network": network, "kind": kind, "file": file, "sha256": "ab" * 32}

    return {
        "format": FORMAT,
        "name": "tiny",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "devices": {"cpu": "Some CPU", "cuda": None},
        "threads": 2,
        "processes": 1,
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "data": {"dataset": "made-up", "real": False, "public": False, "count": 30, "sha256": "12" * 32},
        "training_data": None,
        "splits": [
            {"rule": "random", "fold": 0, "sha256": "deadbeef" * 8, "train": 20, "validation": 4, "test": 6}
            | {"ids": {"train": ["Doe-J"], "validation": ["Roe-K"], "evaluated": list(IDS)}}
        ],
        "evaluate_on": "test",
        "seeds": list(SEEDS),
        "notes": [],
        "failed": [],
        "approaches": [
            approach_record("mean-mask", "mean-mask", depends_on_seed=False),
            approach_record("pixels", weights=weights("vgg19", "random")),
            approach_record("good_net", weights=weights("resnet50", "imagenet")),
            approach_record("absent", skipped="needs 80 % of /opt/models/big.bin"),
        ],
        "trials": [],
        "audit": audit_record(),
        "leaks": [],
        "empty": {"timings: cuda": "no CUDA device on this machine"},
        "finished": "2026-01-02T03:04:05",
        "seconds": 200.0,
    }


def audit_record(**changes: Any) -> dict[str, Any]:
    """Return run.json's `audit` of generated images."""
    kinds = ["same file", "same pixels", "same patient"]
    return {"checked": 30, "kinds": kinds, "twins": 0, "uncompared": 0, "lookalikes": []} | changes


def write_predictions(directory: Path) -> None:
    rows, columns = np.mgrid[:SIZE, : SIZE + 8]
    for index, image_id in enumerate(IDS):
        left = ((columns - 16) / (6 + index)) ** 2 + ((rows - 24) / 15) ** 2 < 1
        right = ((columns - 40) / (6 + index)) ** 2 + ((rows - 24) / 14) ** 2 < 1
        truth = left | right
        save_grey(directory / "predictions/images" / f"{image_id}.png", np.where(truth, 60, 180) + rows)
        save_grey(directory / "predictions/truth" / f"{image_id}.png", truth * 255)
        for name in DICE:
            save_grey(
                directory / "predictions/maps" / name / "f0-s0" / f"{image_id}.png", np.roll(truth, 3) * 220
            )
    maps = np.stack([np.roll(rows, shift, axis=0) for shift in range(5)]).astype(np.float16)
    features = directory / "predictions/features/pixels.npz"
    features.parent.mkdir(parents=True)
    np.savez(features, maps=maps, image_id=IDS[0])
    stages = directory / "predictions/stages/pixels.npz"
    stages.parent.mkdir(parents=True)
    made = {"map_0": np.full((8, 8), 0.25, np.float16), "map_1": np.eye(16, dtype=np.float16)}
    np.savez(stages, **made, titles=["shape prior", "stage 1"], dice=[0.5, 0.8], image_id=IDS[0])
    record_pictures(directory)


def record_pictures(directory: Path) -> None:
    """Say of all that lies below `predictions` that the run stored it."""
    folder = directory / "predictions"
    (folder / "images.json").unlink(missing_ok=True)
    write_record(folder / "images.json", {"dataset": "12" * 32, "files": describe_files(folder)})


def save_grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)
