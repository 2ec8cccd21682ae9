"""The CPU engine "llvm": evaluates forests by a small program that LLVM compiles once per process.

The program reads the forest as data. So one program serves all forests, and none is stored on the disk.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.trees.coded import CodedForest, encode_forest
from lungseg.learning.trees.forest import Forest
from lungseg.learning.trees.llvm_ir import LANES, ROWS, write_program

MOST_LEAVES = 256  # of a tree: a leaf's number is a byte
_TASKS_A_THREAD = 4  # if another program delays a thread, the other threads take its remaining tasks
_COMPILING = threading.Lock()


class LlvmForest:
    """A forest that predicts on the CPU; raw scores are equal to LightGBM's own.

    Raises:
        ValueError: a tree has more than 256 leaves.
        ImportError: llvmlite isn't installed, or can't compile for this processor.
    """

    def __init__(self, forest: Forest, threads: int) -> None:
        coded = encode_forest(forest)
        if coded.most_leaves > MOST_LEAVES:
            raise ValueError(f"a tree has more than {MOST_LEAVES} leaves")
        with _COMPILING:
            self._function = _compile_once()
        self._threads = threads
        self._constant = coded.constant
        self._columns, self._thresholds = _pack_columns(coded)
        self._nodes, self._trees = _pack_nodes(coded), _pack_trees(coded)
        self._leaves = np.ascontiguousarray(coded.leaves)

    def predict_raw(self, rows: Tensor) -> Tensor:
        """Predict raw scores float64 N of CPU rows float32 N x F of any strides."""
        count = len(rows)
        scores = np.zeros(-(-count // ROWS) * ROWS)
        whole = count // ROWS
        if len(self._trees):
            self._run(rows, scores, whole)
            if count > whole * ROWS:
                rest = rows.new_zeros(ROWS, rows.shape[1])
                rest[: count - whole * ROWS] = rows[whole * ROWS :]
                self._run_blocks(rest, scores[whole * ROWS :], 1)
        scores += self._constant
        return torch.from_numpy(scores[:count])

    def _run(self, rows: Tensor, scores: np.ndarray, blocks: int) -> None:
        if self._threads == 1 or blocks < 2:
            self._run_blocks(rows, scores, blocks)
            return
        pool = _get_pool(self._threads, os.getpid())
        size = max(1, blocks // (self._threads * _TASKS_A_THREAD))
        tasks = [
            pool.submit(
                self._run_blocks, rows[start * ROWS :], scores[start * ROWS :], min(size, blocks - start)
            )
            for start in range(0, blocks, size)
        ]
        for task in tasks:
            task.result()

    def _run_blocks(self, rows: Tensor, scores: np.ndarray, blocks: int) -> None:
        if blocks == 0:
            return
        space = np.empty(len(self._columns) * ROWS + LANES, np.uint8)
        codes = space.ctypes.data + -space.ctypes.data % LANES
        values = rows.data_ptr(), *rows.stride(), blocks
        columns = self._columns.ctypes.data, len(self._columns), self._thresholds.ctypes.data, 1
        trees = self._nodes.ctypes.data, self._trees.ctypes.data, len(self._trees), self._leaves.ctypes.data
        self._function(*values, *columns, *trees, codes, scores.ctypes.data)


def _pack_columns(coded: CodedForest) -> tuple[np.ndarray, np.ndarray]:
    """Return {column, start, stop, 0} of each coded column, and the thresholds, padded with infinity."""
    table = np.zeros((len(coded.column), 4), np.int32)
    thresholds = []
    for index, (start, stop) in enumerate(zip(coded.bounds[:-1], coded.bounds[1:], strict=True)):
        padded = np.full(-(-(stop - start) // LANES) * LANES, np.inf, np.float32)
        padded[: stop - start] = coded.thresholds[start:stop]
        begin = table[index - 1, 2] if index else 0
        table[index] = coded.column[index], begin, begin + len(padded), 0
        thresholds.append(padded)
    return table, np.concatenate(thresholds or [np.zeros(0, np.float32)])


def _pack_nodes(coded: CodedForest) -> np.ndarray:
    """Return {offset of the codes, code, here, right} of each node; the last three are bytes, four times."""
    table = np.zeros((len(coded.slot), 4), np.uint32)
    table[:, 0] = coded.slot * ROWS
    table[:, 1:] = np.stack([coded.code, coded.here, coded.right], 1).astype(np.uint32) * 0x01010101
    return table


def _pack_trees(coded: CodedForest) -> np.ndarray:
    """Return {first node, stop, first leaf, 0} of each tree."""
    unused = np.zeros_like(coded.first_leaf)
    table = np.stack([coded.first[:-1], coded.first[1:], coded.first_leaf, unused], 1)
    return np.ascontiguousarray(table, np.int32)


@cache
def _get_pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads that all forests share; a forked process has none of its parent's threads."""
    return ThreadPoolExecutor(threads)


@cache
def _compile_once() -> Any:
    """Return the program as a function of ctypes, which lets other Python threads run meanwhile."""
    engine = compile_program(write_program())
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    arguments = [pointer, count, count, count, pointer, count, pointer, ctypes.c_int32]
    arguments += [pointer, pointer, count, pointer, pointer, pointer]
    function = ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("forest"))
    function.engine = engine  # the code lives as long as its engine
    return function


def compile_program(text: str) -> Any:
    """Compile LLVM assembly for this processor; the functions live as long as the returned llvmlite engine.

    Raises ImportError if llvmlite isn't installed, or can't compile for this processor.
    """
    import llvmlite.binding as llvm

    try:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(text)
        # By default LLVM uses half of AVX-512's width, for the sake of old processors; others ignore this.
        features = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit".lstrip(",")
        wide = llvm.get_process_triple().startswith("x86_64")
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features if wide else "", opt=3
        )
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        passes.getModulePassManager().run(module, passes)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
    except (AttributeError, RuntimeError) as error:
        raise ImportError(f"llvmlite can't compile here: {error}") from error
    return engine
