"""One library's trees in a process of its own, for `tree_libraries.py`; any Python that has the library.

Arguments: the library's name, a LightGBM model text, rows float32 N x F as a .npy file, and a file for the
raw scores. Writes a line of JSON once the scores are written, then one after each prediction; a line on its
input, a number of threads, asks for one.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

Predict = Callable[[int], np.ndarray]  # of threads
TRANSLATION_UNITS = 8  # that tl2cgen's C is cut into: one of all trees takes the compiler many minutes


def lightgbm_own(model: Path, rows: np.ndarray) -> Predict:
    import lightgbm

    booster = lightgbm.Booster(model_file=str(model))
    return lambda threads: booster.predict(rows, raw_score=True, num_threads=threads)


def ours(model: Path, rows: np.ndarray) -> Predict:
    import torch

    from lungseg.learning.trees.evaluator import evaluator

    columns = torch.from_numpy(np.ascontiguousarray(rows.T)).T
    ready = lru_cache(lambda threads: evaluator(model.read_text(), "cpu", threads, "llvm"))
    return lambda threads: ready(threads).raw(columns).numpy()


def tl2cgen(model: Path, rows: np.ndarray) -> Predict:
    import tl2cgen
    import treelite

    library = model.with_suffix(".so")
    trees = treelite.frontend.load_lightgbm_model(str(model))
    units = {"parallel_comp": TRANSLATION_UNITS}
    tl2cgen.export_lib(trees, toolchain="gcc", libpath=str(library), params=units)
    table = tl2cgen.DMatrix(rows)
    ready = lru_cache(lambda threads: tl2cgen.Predictor(str(library), nthread=threads))
    return lambda threads: ready(threads).predict(table, pred_margin=True)


def lleaves(model: Path, rows: np.ndarray) -> Predict:
    import lleaves

    trees = lleaves.Model(model_file=str(model))
    trees.compile(raw_score=True)
    return lambda threads: trees.predict(rows, n_jobs=threads)


def onnxruntime(model: Path, rows: np.ndarray) -> Predict:
    import lightgbm
    import onnxmltools
    import onnxruntime
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("rows", FloatTensorType([None, rows.shape[1]]))]
    booster = lightgbm.Booster(model_file=str(model))
    graph = onnxmltools.convert_lightgbm(booster, initial_types=inputs, target_opset=15).SerializeToString()

    def session(threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    ready = lru_cache(session)
    return lambda threads: ready(threads).run(None, {"rows": rows})[0]


# By the name of the distribution: what is imported before the clock starts, and what then makes it ready.
LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Path, np.ndarray], Predict]]] = {
    "lightgbm": (("lightgbm",), lightgbm_own),
    "lungseg": (("lungseg.learning.trees.evaluator", "llvmlite.binding"), ours),
    "tl2cgen": (("tl2cgen", "treelite"), tl2cgen),
    "lleaves": (("lleaves", "llvmlite"), lleaves),
    "onnxruntime": (("lightgbm", "onnxmltools", "onnxruntime"), onnxruntime),
}


def main() -> None:
    name, model, rows, scores = sys.argv[1:]
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        answer = _prepare(name, Path(model), Path(rows), Path(scores))
        predict = answer.pop("predict", None)
        print(json.dumps(answer), file=answers)
        for line in sys.stdin if predict else ():
            predict(int(line))
            print("{}", file=answers)


def _prepare(name: str, model: Path, rows: Path, scores: Path) -> dict[str, object]:
    modules, make = LIBRARIES[name]
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        return {"absent": str(error)}
    try:
        table = np.load(rows)
        start = time.perf_counter()
        predict = make(model, table)
        first = predict(1)
        seconds = time.perf_counter() - start
        np.save(scores, np.asarray(first, np.float64).reshape(-1))
    except Exception as error:  # each library has classes of its own
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    used = dict.fromkeys(module.split(".")[0] for module in modules)
    versions = ", ".join(f"{package} {version(package)}" for package in used)
    return {"versions": versions, "seconds": seconds, "predict": predict}


if __name__ == "__main__":
    main()
