"""Stages that measure: ceilings, training, prediction, pixels and trees, and a card of 8 GB."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import torch

from benchmarks.studies.ceilings import measure_ceilings
from benchmarks.studies.deeplab.ways import Workload, build_our_prediction, build_our_training, make_noise
from benchmarks.studies.deeplab.ways import use_torch_defaults as be_free
from benchmarks.studies.gpu_first.found import Findings, Scale, time_ms
from benchmarks.studies.pixels.models import fit_small
from benchmarks.studies.turns import synchronise
from lungseg.approaches.base import Approach
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50, DeepLabV3PlusSettings
from lungseg.learning.trees.evaluator import make_evaluator
from lungseg.system.nvml import NoNvmlError, open_gpu
from lungseg.system.runtime import be_deterministic
from lungseg.timing.statistics import time_chain

SMALL_CARD_GIB = 7.0  # what a card of 8 GB leaves: its context and a screen take the rest
ROWS = (4096, 16384, 524288)
DRY_MODEL = {
    "size": 64, "scales": [64, 32], "components": 4, "grid": 32, "coarse": 16, "contexts": 1,
    "boosting": {"rounds": 2, "leaves": 7}, "pixels_per_image": 60,
}  # fmt: skip


def find_ceilings(found: Findings, scale: Scale) -> None:
    """Measure matrix products and copies, with the state of the GPU afterwards, and the cost of a launch."""
    for precision in dict.fromkeys(("float32", scale.runtime.precision)):
        ceilings = measure_ceilings(replace(scale.runtime, precision=precision), synchronise)
        found.add(f"matrix product, {precision}", f"{ceilings.gflops / 1e3:.2f} TFLOP/s{_read_gpu(scale)}")
    found.add("copy on the device", f"{ceilings.gbytes:.0f} GB/s read and written")
    one = torch.ones(1, device=scale.runtime.device)
    found.add("launch and wait", f"{1e3 * time_ms(lambda: one.add_(1), scale):.1f} us")
    if scale.on_gpu:
        for pinned in (False, True):
            host = torch.randn(4 << 20, pin_memory=pinned)
            ms = time_ms(lambda host=host: host.to(scale.runtime.device), scale)
            found.add(f"16 MiB to the GPU, pinned {pinned}", f"{host.nbytes / ms / 1e6:.1f} GB/s")


def _read_gpu(scale: Scale) -> str:
    with suppress(NoNvmlError):
        if scale.on_gpu:
            state = open_gpu(scale.runtime.device).read_state()
            return "; " + ", ".join(f"{name} {value}" for name, value in state.items() if value)
    return ""


def find_training_speed(found: Findings, scale: Scale) -> None:
    """Time steps with and without deterministic algorithms and augmentation."""
    kinds: dict[str, Callable[[], None]] = {"deterministic": be_deterministic, "free": be_free}
    for batch in dict.fromkeys((scale.training_batch, max(scale.training_batch, scale.batches[-2]))):
        load = _make_load(scale, batch)
        for (name, switch), augment in ((kind, one) for kind in kinds.items() for one in (True, False)):
            what = f"{name}, batch {batch}, {'augmented' if augment else 'not augmented'}"
            found.attempt(what, lambda s=switch, a=augment, one=load: _time_training(scale, one, s, a))
    if scale.on_gpu:
        found.attempt("waits for the GPU in a step", lambda: _count_waits(_make_load(scale, 8)))


def _make_load(scale: Scale, batch: int) -> Workload:
    return Workload(scale.network, scale.runtime, scale.size, batch)


def _time_training(scale: Scale, load: Workload, switch: Callable[[], None], augment: bool) -> str:
    switch()
    turn, batch = build_our_training(load, augment), make_noise(load)
    ms = time_ms(lambda: turn(batch), scale)
    return f"{1e3 * load.batch / ms:.1f} images/s, {ms:.2f} ms{_read_gpu(scale)}"


def _count_waits(load: Workload) -> str:
    """Return how often torch says that a call waits, over three steps after the first two."""
    be_deterministic()
    turn, batch = build_our_training(load), make_noise(load)
    for _ in range(2):
        turn(batch)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                turn(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    return f"{len(places) / 3:.1f} ({', '.join(sorted(set(places))) or 'nowhere'})"


def find_prediction_speed(found: Findings, scale: Scale) -> None:
    """Time logits alone by batch size, and whole predictions by stage from and to the host's memory."""
    for batch in scale.batches:
        found.attempt(f"logits, batch {batch}", lambda b=batch: _time_logits(scale, b))
    approach = DeepLabV3PlusResNet50(
        DeepLabV3PlusSettings(size=scale.size, weights="random", network=scale.network), scale.runtime
    )
    approach._use_network(approach.make_network(0))
    for side in (scale.size, 3000 if scale.on_gpu else 100):
        batch = scale.training_batch
        what = f"ms an image by stage, {side} px, batch {batch}"
        found.attempt(what, lambda s=side, b=batch: _time_stages(approach, s, b))


def _time_logits(scale: Scale, batch: int) -> str:
    load = _make_load(scale, batch)
    turn, noise = build_our_prediction(load), make_noise(load)
    with torch.inference_mode():
        ms = time_ms(lambda: turn(noise), scale)
    return f"{1e3 * batch / ms:.0f} images/s, {ms:.3f} ms{_read_gpu(scale)}"


def _time_stages(approach: Approach, side: int, batch: int) -> str:
    image = np.random.default_rng(0).random((side, side), np.float32)
    sizes = [image.shape] * batch
    steps: list[tuple[str, Callable[[Any], Any]]] = [
        ("prepare", approach.prepare),
        *((stage.name, stage.run) for stage in approach.stages()),
        ("finish", lambda maps: approach.finish(maps, sizes)),
    ]
    with torch.inference_mode():
        seconds = time_chain(steps, [image] * batch, 5, 3, synchronise)
    times = ", ".join(f"{name} {1e3 * np.median(taken) / batch:.3f}" for name, taken in seconds.items())
    facts = approach.execution_facts()
    return f"{times}; graph {facts.get('graph', 'unknown')}"


def find_pixel_speed(found: Findings, scale: Scale) -> None:
    """Time vgg19-context by stage, and rows a second through 300 trees of 63 leaves."""
    changes = {"weights": "random", **({} if scale.on_gpu else DRY_MODEL)}
    with tempfile.TemporaryDirectory() as folder:
        approach = fit_small(changes, scale.runtime, Path(folder)).load(scale.runtime)
    for batch in scale.batches[:3]:
        what = f"vgg19-context, ms an image by stage, batch {batch}"
        found.attempt(what, lambda b=batch: _time_stages(approach, scale.size, b))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20000 if scale.on_gpu else 500, 64)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + rows[:, 8] * rows[:, 9]
    parameters = {"verbosity": -1, "num_leaves": 63, "num_threads": scale.runtime.threads}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), 300 if scale.on_gpu else 3)
    evaluator = make_evaluator(booster.model_to_string(), scale.runtime.device, scale.runtime.threads)
    wanted = "triton" if scale.on_gpu else "llvm"
    found.add("engine of the trees", evaluator.engine, wanted, evaluator.engine == wanted)
    for count in ROWS if scale.on_gpu else ROWS[:1]:
        values = torch.randn(64, count, device=scale.runtime.device).T
        ms = time_ms(lambda v=values: evaluator.predict_raw(v), scale)
        found.add(f"trees, {count} rows", f"{count / ms / 1e3:.1f} million rows/s")


def try_small_card(found: Findings, scale: Scale) -> None:
    """Train where torch may take no more than a card of 8 GB leaves; on a CPU there is no such limit."""
    if scale.on_gpu:
        total = torch.cuda.get_device_properties(scale.runtime.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, SMALL_CARD_GIB * 2**30 / total))
    for precision in dict.fromkeys((scale.runtime.precision, "float32")):
        load = _make_load(replace(scale, runtime=replace(scale.runtime, precision=precision)), 8)
        if not scale.on_gpu:
            load = replace(load, batch=scale.training_batch)
        found.attempt(f"three steps, {precision}, batch {load.batch}", lambda one=load: _train_three(one))


def _train_three(load: Workload) -> tuple[str, str, bool]:
    be_deterministic()
    device = load.runtime.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        turn, batch = build_our_training(load), make_noise(load)
        for _ in range(3):
            turn(batch)
    words = [str(one.message) for one in caught if "memory is full" in str(one.message)]
    if device.type == "cuda":
        taken = torch.cuda.max_memory_allocated() >> 20, torch.cuda.max_memory_reserved() >> 20
        words.insert(0, f"{taken[0]} MiB allocated, {taken[1]} MiB reserved at most")
    return "; ".join(words) or "ran", "no error", True


SPEEDS: dict[str, Callable[[Findings, Scale], None]] = {
    "ceilings": find_ceilings,
    "training": find_training_speed,
    "prediction": find_prediction_speed,
    "pixels": find_pixel_speed,
    "small-card": try_small_card,
}
