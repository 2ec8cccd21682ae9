"""Write a fitted model as a folder with its card, which `predict` and Python load on any machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.approaches.registry import APPROACHES
from lungseg.learning.model_files import write_tensors
from lungseg.learning.weights import (
    PACKAGED,
    WeightsFile,
    describe_weights,
    find_weights,
    read_tensors,
    require_weights,
)
from lungseg.prediction.models import CARD, RECORD, find_row, hash_facts
from lungseg.results import read_table
from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, make_folder, write_atomically
from lungseg.system.stored import write_record

METRICS = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "assd": "ASSD"}  # of the card
LICENCES = {
    "vgg19": "VGG19's layers: Simonyan and Zisserman (Oxford), Creative Commons Attribution License.",
    "resnet50": "The training began from torchvision's ImageNet weights of ResNet50 (BSD 3-Clause).",
}


def export_model(directory: Path, row: str, out: Path, onnx: bool = False) -> list[str]:
    """Write the model of a row of a results directory to a folder.

    The folder has the fitted files, the frozen weights if they don't come with lungseg, model.json, the card
    README.md and, if `onnx`, model.onnx.

    Args:
        directory: a results directory with its models.
        row: the name of the row.
        out: made if it isn't there.
        onnx: write model.onnx too, if it is equal.

    Returns:
        Sentences on what was written.

    Raises:
        InputError: there is no such model or it is damaged, `out` isn't empty or can't be written, or the
            model has no exact ONNX form, or one that differs.
    """
    folder, facts = find_row(directory, row)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty: choose another folder with --out")
    if facts["use"] not in APPROACHES:
        raise InputError(
            f"the class of {row!r} isn't part of lungseg, so its model can't be handed on: give the results "
            "directory to `lungseg predict`"
        )
    facts["scores"] = list(_list_scores(directory, row))
    said = [f"{row} in {out}: fitted files, {RECORD} and the card {CARD}"]
    graph = None
    if onnx:  # before anything is written, since it may be refused
        from lungseg.prediction.onnx import FILE, export_onnx  # its packages are an extra

        graph, sentence = export_onnx(folder, facts)
        said.append(f"{out / FILE}: {sentence}")
    make_folder(out)
    try:
        for name in facts["files"]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
        _copy_weights(facts, folder, out)
    except OSError as error:
        raise explain_write_error(out, error) from error
    if graph is not None:
        write_atomically(out / FILE, graph)
    write_atomically(out / CARD, write_card(facts))
    write_record(out / RECORD, facts)  # last: it is what makes the folder a model
    return said


def _copy_weights(facts: dict[str, Any], folder: Path, out: Path) -> None:
    """Copy the frozen weights that the model needs, unless every installation of lungseg has them."""
    weights = facts["weights"]
    if not weights or weights["network"] != "vgg19" or weights["kind"] == "random":
        return
    with require_weights(weights["sha256"], folder):
        file = find_weights("vgg19", "imagenet")
    if file.sha256 == WeightsFile("vgg19", PACKAGED["vgg19"]).sha256:
        return
    target = out / "vgg19.safetensors"
    if file.path.suffix == ".safetensors":
        shutil.copyfile(file.path, target)
    else:  # a pickle of torchvision's, of which the convolutions are needed
        write_tensors(target, read_tensors(file, "features."))
        facts["weights"] = asdict(describe_weights("vgg19", WeightsFile("vgg19", target)))


def _list_scores(directory: Path, row: str) -> Iterator[dict[str, Any]]:
    statistics = read_table(directory, "statistics")
    own = statistics[(statistics["approach"] == row) & (statistics["kind"] == "mean")]
    for found in own[own["metric"].isin(METRICS)].to_dict("records"):
        kept = {key: found[key] for key in ("dataset", "metric")}
        yield kept | {key: _round(found[key]) for key in ("n", "value", "low", "high")}


def _round(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 6)


def write_card(facts: dict[str, Any]) -> str:
    """Write the card of a model in Markdown, from its model.json."""
    on, revision = facts["trained_on"], (facts["git"] or {}).get("revision", "unknown")
    weights = facts["weights"]
    start = (
        "none" if weights is None else f"{weights['network']}, {weights['kind']} weights {weights['file']}"
    )
    folds = f", fold {on['fold']} of {on['folds']}" if on["folds"] > 1 else ""
    licences = [LICENCES[weights["network"]]] if weights and weights["kind"] == "imagenet" else []
    licences.append(
        f"The images of {on['dataset']} have terms of their own: look at them before you pass the model on."
        if on["real"]
        else "The training images were generated. No patient's image was used."
    )
    return "\n".join(
        [
            f"# {facts['label']}",
            "",
            "Finds the lungs in frontal chest X-rays. **For research, not for diagnosis.**",
            "",
            "| | |",
            "| :-- | :-- |",
            f"| approach | `{facts['use']}` |",
            f"| trained on | {on['train']} images of `{on['dataset']}`{folds}, seed {on['seed']} |",
            f"| chosen by | {on['validation']} validation images |",
            f"| started from | {start or 'nothing'} |",
            f"| threshold | {facts['threshold']:g} |",
            f"| benchmark | `{facts['benchmark']}`, {facts['trained']} |",
            f"| made with | lungseg {facts['versions']['lungseg']}, revision {revision} |",
            f"| trained on the machine | {facts['device']} |",
            f"| pairs of images on two sides of the split | {facts['leaks']} |",
            f"| sha256 | `{hash_facts(facts)}` |",
            "",
            "## Scores",
            "",
            *_write_scores(facts.get("scores", []), facts["evaluated_on"]),
            "",
            "## Use",
            "",
            "```",
            "lungseg predict THIS_FOLDER PICTURES --out masks",
            "```",
            "",
            "```python",
            "import lungseg",
            "",
            'probability = lungseg.load("THIS_FOLDER").predict(image)  # H x W in [0, 1]',
            "```",
            "",
            "## Limits",
            "",
            "- It was made for frontal X-rays of adults. Look at the overlays before you use a mask.",
            "- Images of other hospitals may give worse masks than the scores say.",
            "- Masks follow readers' outlines: the heart and what lies between the lungs are no lung.",
            "- A lung behind much fluid, or a collapsed one, is often missed.",
            "",
            "## Licences",
            "",
            *(f"- {text}" for text in ["The code of lungseg: MIT.", *licences]),
            "",
        ]
    )


def _write_scores(scores: list[dict[str, Any]], side: str) -> Iterator[str]:
    if not scores:
        yield "None are stored."
        return
    if side == "validation":
        yield "Of the validation images, which may have chosen the model: too good."
        yield ""
    yield "| dataset | metric | mean [95 % interval] | patients |"
    yield "| :-- | :-- | --: | --: |"
    for row in scores:
        value, low, high = (
            "–" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "low", "high")
        )
        yield f"| {row['dataset']} | {METRICS[row['metric']]} | {value} [{low}, {high}] | {row['n']:g} |"
    yield ""
    yield "Distances are in pixels unless the dataset has a pixel spacing."
