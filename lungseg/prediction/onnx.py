"""Write a model as ONNX, after ONNX Runtime has given the same maps and masks."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lungseg.approaches.base import Approach
from lungseg.data.datasets.phantom import render
from lungseg.prediction.models import hash_facts, make_model
from lungseg.system.errors import InputError, summarise_error

FILE = "model.onnx"
OPSET = 20
TOLERANCE = 1e-4  # of a probability
BATCHES = (1, 3)  # images a call that are compared
INPUT, OUTPUT = "images", "maps"


def export_onnx(folder: Path, facts: Mapping[str, Any]) -> tuple[bytes, str]:
    """Make the ONNX file of a fitted model, and compare it with the model by ONNX Runtime on the CPU.

    Its input is `images`, float32 N x 1 x s x s in [0, 1], shrunk by area average as `lungseg` does. Its
    output is `maps`, float32 N x 1 x h x w in [0, 1]. N is free. The metadata has s, the threshold and the
    sha256 of the model.

    Returns:
        The file's bytes, and a sentence on the comparison.

    Raises:
        InputError: the model has no exact ONNX form, a package is missing, or the results differ.
    """
    onnx, runtime = _import_packages()
    approach = make_model(folder, facts, device="cpu", precision="float32").approach
    module = approach.to_module()
    if module is None:
        raise InputError(
            f"{facts['name']} has no exact ONNX form (trees and most other regressors have none): export it "
            "without --onnx. Networks, and vgg19-pixels with ridge or mlp, have one"
        )
    images = [render(seed=0, index=index, size=256)[0] for index in range(max(BATCHES))]
    batch = approach.prepare(images)
    graph = onnx.load_from_string(_convert(module.eval(), batch))
    onnx.helper.set_model_props(
        graph,
        {
            "lungseg.model": facts["name"],
            "lungseg.sha256": hash_facts(facts),
            "lungseg.size": str(batch.shape[-1]),
            "lungseg.threshold": repr(facts["threshold"]),
            "lungseg.input": "grey in [0, 1], white is dense, shrunk to size x size by area average",
        },
    )
    onnx.checker.check_model(graph)
    data = graph.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = max(_compare(session, approach, images[:count], facts["threshold"]) for count in BATCHES)
    if not worst <= TOLERANCE:
        raise InputError(
            f"the ONNX form of {facts['name']} differs from it by {worst:.2g} in a probability, more than "
            f"{TOLERANCE:g}: it wasn't written"
        )
    return data, f"checked with ONNX Runtime, the largest difference of a probability is {worst:.1g}"


def _import_packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise InputError(f"--onnx needs further packages ({error}): pip install 'lungseg[onnx]'") from error
    return onnx, onnxruntime


def _convert(module: nn.Module, batch: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    sample = batch.contiguous()[:2]
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (sample,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("count")},),
                verbose=False,
            )
            program.save(buffer)
    except Exception as error:  # the exporter raises errors of many kinds
        raise InputError(f"torch can't write this model as ONNX ({summarise_error(error)})") from error
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own work from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(session: Any, approach: Approach, images: list[np.ndarray], threshold: float) -> float:
    """The largest difference of a probability; infinity if a mask differs by more than that explains."""
    batch = approach.prepare(images)
    (found,) = session.run([OUTPUT], {INPUT: batch.contiguous().cpu().numpy()})
    sizes = [image.shape for image in images]
    maps = approach.finish(torch.from_numpy(found), sizes)
    wanted = approach.predict(images, len(images))
    worst = 0.0
    for one, other in zip(maps, wanted, strict=True):
        worst = max(worst, float(np.abs(one - other).max()))
        apart = ((one >= threshold) != (other >= threshold)) & (np.abs(other - threshold) > TOLERANCE)
        worst = np.inf if apart.any() else worst
    return worst
