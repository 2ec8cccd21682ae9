"""Stages that check: facts, agreement with the CPU, the same bits again, and the suite's GPU tests."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import torch
from torch import nn

from benchmarks.studies.deeplab.ways import Workload, make_noise
from benchmarks.studies.gpu_first.found import Findings, Scale, measure_distance
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, NetworkSettings, group_parameters
from lungseg.harness.commands.info import list_facts
from lungseg.learning.images.clahe import apply_clahe
from lungseg.learning.images.resize import to_batch
from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.training import Training
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.evaluator import make_evaluator
from lungseg.system.runtime import Runtime, be_deterministic, keep_float32_precision

GPU_TESTS = (
    *("tests/learning/trees/test_triton.py", "tests/learning/networks", "tests/learning/images"),
    *("tests/timing", "tests/approaches/vgg19_context/test_approach.py"),
)
DRY_TESTS = ("tests/learning/networks/test_losses.py",)


def find_facts(found: Findings, scale: Scale) -> None:
    """List what `lungseg info` lists, and what an empty CUDA context takes."""
    for name, value in list_facts():
        found.add(name, value)
    if scale.on_gpu:
        torch.zeros(1, device=scale.runtime.device)
        free, total = torch.cuda.mem_get_info()
        found.add("MiB that are taken before any work", (total - free) >> 20)


def check_agreement(found: Findings, scale: Scale) -> None:
    """Compare the device's numbers with the CPU's, in full float32 and as they are used."""
    images = torch.rand((3, 1, scale.size, scale.size), generator=torch.Generator().manual_seed(0))
    network = _make_network(images, scale.network)
    with torch.inference_mode():
        expected = network(images)
    exact, used = replace(scale.runtime, precision="float32"), scale.runtime
    with keep_float32_precision():
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        found.check("logits, float32", lambda: _compare(network, images, expected, exact), 1e-4)
    found.check(
        f"logits, {used.precision}, as it is used", lambda: _compare(network, images, expected, used), 3e-2
    )
    found.attempt("one image: recorded as not recorded", lambda: _compare_graph(network, images[:1], used))
    found.check("gradients, float32", lambda: _compare_gradients(network, images, exact), 1e-2)
    raw = [np.random.default_rng(0).random((300, 211), np.float32)]
    host = to_batch(raw, scale.size)
    found.check("resizing", lambda: measure_distance(to_batch(raw, scale.size, used.device), host), 1e-6)
    found.check(
        "CLAHE", lambda: measure_distance(apply_clahe(images.to(used.device)), apply_clahe(images)), 1e-5
    )
    found.check("codes of pixels that differ", lambda: _count_codes(used.device), 0)
    found.check("trees, largest difference from LightGBM", lambda: _compare_trees(used), 1e-12)


def _make_network(images: torch.Tensor, settings: NetworkSettings) -> nn.Module:
    """A network whose batch norms have seen these images."""
    torch.manual_seed(0)
    network = DeepLabV3Plus(settings).train()
    with torch.no_grad():
        network(images)
    return network.eval()


def _copy_network(network: nn.Module, runtime: Runtime) -> nn.Module:
    other = copy.deepcopy(network)
    return other.to(runtime.device, memory_format=runtime.memory_format).eval()


def _make_predictor(network: nn.Module, images: torch.Tensor, runtime: Runtime) -> Predictor:
    settings = DeepLabV3PlusSettings(size=images.shape[-1], weights="random")
    return Predictor(_copy_network(network, runtime), settings, runtime)


def _compare(network: nn.Module, images: torch.Tensor, expected: torch.Tensor, runtime: Runtime) -> float:
    predictor = _make_predictor(network, images, runtime)
    return measure_distance(predictor.predict_logits(images.to(runtime.device)), expected)


def _compare_graph(network: nn.Module, images: torch.Tensor, runtime: Runtime) -> tuple[str, str, bool]:
    predictor, given = _make_predictor(network, images, runtime), images.to(runtime.device)
    predictor.predict_logits(given)  # a shape is recorded when it comes for the second time
    recorded = predictor.predict_logits(given)
    same = torch.equal(recorded, predictor.predict_logits(given, counted=True))
    wanted = "replayed" if runtime.device.type == "cuda" else "none"
    text = f"graph {predictor.graph}, {'the same bits' if same else 'other bits'}"
    return text, f"graph {wanted}, the same bits", same and predictor.graph == wanted


def _compare_gradients(network: nn.Module, images: torch.Tensor, runtime: Runtime) -> float:
    """Compare the gradient of the first convolution, which all others lead to."""
    cpu = Runtime(torch.device("cpu"), channels_last=runtime.channels_last, threads=runtime.threads)
    gradients = []
    with keep_float32_precision():
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        for one in (runtime, cpu):
            copied = _copy_network(network, one)
            copied(images.to(one.device)).square().mean().backward()
            gradients.append(copied.backbone.conv1.weight.grad)
    return measure_distance(*gradients)


def _count_codes(device: torch.device) -> int:
    rows = torch.randn((2000, 33), generator=torch.Generator().manual_seed(0)).relu()
    bins = Bins.from_sample(rows.numpy())
    return int((bins.encode(rows) != bins.encode(rows.to(device)).cpu()).sum())


def _compare_trees(runtime: Runtime) -> float:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 12)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + (rows[:, 2] > 0)
    parameters = {"verbosity": -1, "num_leaves": 31, "num_threads": runtime.threads}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), 10)
    evaluator = make_evaluator(booster.model_to_string(), runtime.device, runtime.threads)
    rows[:3, 0] = np.nan, np.inf, 1e-36
    expected, worst = booster.predict(rows, raw_score=True), 0.0
    for count in (1, 17, len(rows)):
        given = torch.from_numpy(rows[:count]).to(runtime.device)
        for values in (given, given.T.contiguous().T):
            raw = evaluator.predict_raw(values).cpu().numpy()
            worst = max(worst, float(np.abs(raw - expected[:count]).max()))
    return worst


def check_repeatability(found: Findings, scale: Scale) -> None:
    """Train twice, and once cut and resumed: are the bits the same, and which operations warn?"""
    be_deterministic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = _train(scale)
    texts = sorted({str(one.message).split("(Triggered")[0][:150] for one in caught})
    found.add("warnings of a training step", "; ".join(texts) or "none")
    found.attempt("a second training", lambda: _say_same(_train(scale) == first))
    found.attempt("a training cut and resumed", lambda: _say_same(_cut_and_train(scale) == first))


def _say_same(same: bool) -> tuple[str, str, bool]:
    return "the same bits" if same else "other bits", "the same bits", same


def _train(scale: Scale, resume: Path | None = None, save: Path | None = None) -> str:
    """Train on one batch of noise; return a hash of the weights. To `save`, half of the steps are done."""
    torch.manual_seed(0)
    batch, size = scale.training_batch, scale.size
    settings = DeepLabV3PlusSettings(size=size, batch_size=batch, weights="random")
    training = Training(
        DeepLabV3Plus(scale.network), group_parameters, settings, scale.runtime, 0, scale.steps * batch
    )
    training.network.train()
    if resume is not None:
        training.resume(resume)
    noise = make_noise(Workload(scale.network, scale.runtime, size, batch))
    while training.step < (scale.steps if save is None else scale.steps // 2):
        training.take_step(noise)
        training.step += 1
    if save is not None:
        training.save(save)
    digest = hashlib.sha256()
    for value in training.network.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _cut_and_train(scale: Scale) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        _train(scale, save=path)
        return _train(scale, resume=path)


def run_tests(found: Findings, scale: Scale) -> None:
    """Run the tests of what has code of its own for a GPU."""
    names = GPU_TESTS if scale.on_gpu else DRY_TESTS
    words = ["-q", "--no-header", "-p", "no:cacheprovider", *names]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    for line in [line for line in lines if line.startswith(("FAILED", "ERROR"))][:20]:
        found.add("a test", line[:200], "none", False)
    found.add("tests", lines[-1] if lines else "no words", "all pass", done.returncode == 0)


CHECKS: dict[str, Callable[[Findings, Scale], None]] = {
    "facts": find_facts,
    "agreement": check_agreement,
    "repeatability": check_repeatability,
    "tests": run_tests,
}
