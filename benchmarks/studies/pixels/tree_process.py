"""Evaluates one library's trees in a process of its own, for `tree_libraries.py`.

Any Python that has the library can run it. Arguments: the library's name, a LightGBM model text, rows float32
N x F as a .npy file, and a file for the raw scores. Writes a line of JSON once the scores are stored. After
that, each input line, a number of threads, asks for one prediction and is answered by a line.
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

Predict = Callable[[int], np.ndarray]  # takes the number of threads
TRANSLATION_UNITS = 8  # files of tl2cgen's C code: a single one would take the compiler many minutes


def load_lightgbm(model: Path, rows: np.ndarray) -> Predict:
    import lightgbm

    booster = lightgbm.Booster(model_file=str(model))
    return lambda threads: booster.predict(rows, raw_score=True, num_threads=threads)


def load_lungseg(model: Path, rows: np.ndarray) -> Predict:
    import torch

    from lungseg.learning.trees.evaluator import make_evaluator

    columns = torch.from_numpy(np.ascontiguousarray(rows.T)).T
    ready = lru_cache(lambda threads: make_evaluator(model.read_text(), "cpu", threads, "llvm"))
    return lambda threads: ready(threads).predict_raw(columns).numpy()


def load_tl2cgen(model: Path, rows: np.ndarray) -> Predict:
    import tl2cgen
    import treelite

    library = model.with_suffix(".so")
    trees = treelite.frontend.load_lightgbm_model(str(model))
    units = {"parallel_comp": TRANSLATION_UNITS}
    tl2cgen.export_lib(trees, toolchain="gcc", libpath=str(library), params=units)
    table = tl2cgen.DMatrix(rows)
    ready = lru_cache(lambda threads: tl2cgen.Predictor(str(library), nthread=threads))
    return lambda threads: ready(threads).predict(table, pred_margin=True)


def load_lleaves(model: Path, rows: np.ndarray) -> Predict:
    import lleaves

    trees = lleaves.Model(model_file=str(model))
    trees.compile(raw_score=True)
    return lambda threads: trees.predict(rows, n_jobs=threads)


def load_onnxruntime(model: Path, rows: np.ndarray) -> Predict:
    import lightgbm
    import onnxmltools
    import onnxruntime
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("rows", FloatTensorType([None, rows.shape[1]]))]
    booster = lightgbm.Booster(model_file=str(model))
    graph = onnxmltools.convert_lightgbm(booster, initial_types=inputs, target_opset=15).SerializeToString()

    def open_session(threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    ready = lru_cache(open_session)
    return lambda threads: ready(threads).run(None, {"rows": rows})[0]


# By the name of the distribution: modules that are imported before the clock starts, and the function that
# then makes the trees ready.
LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Path, np.ndarray], Predict]]] = {
    "lightgbm": (("lightgbm",), load_lightgbm),
    "lungseg": (("lungseg.learning.trees.evaluator", "llvmlite.binding"), load_lungseg),
    "tl2cgen": (("tl2cgen", "treelite"), load_tl2cgen),
    "lleaves": (("lleaves", "llvmlite"), load_lleaves),
    "onnxruntime": (("lightgbm", "onnxmltools", "onnxruntime"), load_onnxruntime),
}


def main() -> None:
    name, model, rows, scores = sys.argv[1:]
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # text that a library prints must not be taken for an answer
        answer = _prepare(name, Path(model), Path(rows), Path(scores))
        predict = answer.pop("predict", None)
        print(json.dumps(answer), file=answers)
        for line in sys.stdin if predict else ():
            predict(int(line))
            print("{}", file=answers)


def _prepare(name: str, model: Path, rows: Path, scores: Path) -> dict[str, object]:
    modules, load = LIBRARIES[name]
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        return {"absent": str(error)}
    try:
        table = np.load(rows)
        start = time.perf_counter()
        predict = load(model, table)
        first = predict(1)
        seconds = time.perf_counter() - start
        np.save(scores, np.asarray(first, np.float64).reshape(-1))
    except Exception as error:  # each library raises classes of its own
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    used = dict.fromkeys(module.split(".")[0] for module in modules)
    versions = ", ".join(f"{package} {version(package)}" for package in used)
    return {"versions": versions, "seconds": seconds, "predict": predict}


if __name__ == "__main__":
    main()
