"""Measures what a device reaches in plain work: matrix products, copies, and the node step of the trees."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lungseg.learning.trees.llvm import compile_program
from lungseg.learning.trees.llvm_ir import LANES, ROWS
from lungseg.system.runtime import Runtime
from lungseg.timing.measure import PRODUCT_SIZE, measure_product_speed
from lungseg.timing.statistics import time_chain

COPIED_MIB = {"cpu": 256, "cuda": 1024}
REPEATS = 15
VISITS = 1 << 18  # nodes that each of ROWS rows visits, in one call

_VECTOR, _BITS = f"<{LANES} x i8>", f"<{LANES} x i1>"
_GROUPS = range(ROWS // LANES)


@dataclass(frozen=True)
class Ceilings:
    """The highest speeds measured on a device.

    Attributes:
        gflops: GFLOP/s of a large matrix product in the runtime's precision.
        gbytes: GB/s of a large copy, counting bytes read and bytes written.
        visits: 10^9 node visits/s: two byte comparisons and a selection for each row and node, on registers
            filled from the first-level cache. None where it isn't measured.
    """

    gflops: float
    gbytes: float
    visits: float | None


def measure_ceilings(runtime: Runtime, synchronise: Callable[[], None]) -> Ceilings:
    """Measure the ceilings of the runtime's device, which takes a few seconds."""
    device = runtime.device.type
    source = torch.randn(COPIED_MIB[device] << 18, device=runtime.device)  # zeros may be moved faster
    target = torch.empty_like(source)
    copying = [("copy", target.copy_)]
    copied = np.median(time_chain(copying, source, REPEATS, 2, synchronise)["copy"])
    return Ceilings(
        measure_product_speed(runtime.device, runtime.dtype, PRODUCT_SIZE[device]),
        2 * source.nbytes / copied / 1e9,
        _measure_visits(runtime.threads) if device == "cpu" else None,
    )


def _measure_visits(threads: int) -> float | None:
    """Return 10^9 node visits/s of all threads; None where llvmlite is missing or can't compile."""
    try:
        function = _compile_visits()
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    spaces = [rng.integers(0, 256, 2 * ROWS, np.uint8) for _ in range(threads)]
    nodes = (rng.integers(0, 256, (256, 4)) * 0x01010101).astype(np.uint32)
    with ThreadPoolExecutor(threads) as pool:

        def visit(_: object) -> None:
            list(pool.map(lambda space: function(space.ctypes.data, nodes.ctypes.data, VISITS), spaces))

        seconds = time_chain([("visits", visit)], None, REPEATS, 2, lambda: None)["visits"]
    return threads * VISITS * ROWS / float(np.median(seconds)) / 1e9


def _compile_visits() -> Any:
    engine = compile_program(_write_program())
    arguments = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function = ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address("visits"))
    function.engine = engine  # the code lives as long as its engine
    return function


def _write_program() -> str:
    """Return LLVM assembly of `visits`, which repeats the engine's step of a node on the same rows' codes.

    Its first argument is ROWS leaves and ROWS codes, its second 256 nodes as the engine has them, its third
    the number of steps.
    """
    starts = "".join(_load("start", g, 0) + _load("code", g, ROWS) for g in _GROUPS)
    leaves = "".join(
        f"\n  %leaf{g} = phi {_VECTOR} [%start{g}, %entry], [%leaf{g}.next, %step]" for g in _GROUPS
    )
    node = "".join(_spread(name, place) for place, name in enumerate(("limit", "here", "right"), 1))
    moves = "".join(map(_move, _GROUPS))
    ends = "".join(f"\n  store {_VECTOR} %leaf{g}.next, ptr %start{g}.p, align 1" for g in _GROUPS)
    return f"""
define void @visits(ptr noalias %space, ptr noalias %nodes, i64 %count) {{
entry:{starts}
  br label %step
step:
  %i = phi i64 [0, %entry], [%i.next, %step]{leaves}
  %which = and i64 %i, 255
  %node = getelementptr {{i32, i32, i32, i32}}, ptr %nodes, i64 %which{node}{moves}
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %count
  br i1 %more, label %step, label %done
done:{ends}
  ret void
}}
"""


def _load(name: str, group: int, offset: int) -> str:
    return f"""
  %{name}{group}.p = getelementptr i8, ptr %space, i64 {offset + group * LANES}
  %{name}{group} = load {_VECTOR}, ptr %{name}{group}.p, align 1"""


def _spread(name: str, place: int) -> str:
    words = f"<{LANES // 4} x i32>"
    return f"""
  %{name}.p = getelementptr i32, ptr %node, i64 {place}
  %{name}.word = load i32, ptr %{name}.p
  %{name}.one = insertelement {words} poison, i32 %{name}.word, i32 0
  %{name}.all = shufflevector {words} %{name}.one, {words} poison, {words} zeroinitializer
  %{name} = bitcast {words} %{name}.all to {_VECTOR}"""


def _move(group: int) -> str:
    g = group
    return f"""
  %at{g} = icmp eq {_VECTOR} %leaf{g}, %here
  %above{g} = icmp ugt {_VECTOR} %code{g}, %limit
  %moves{g} = and {_BITS} %at{g}, %above{g}
  %leaf{g}.next = select {_BITS} %moves{g}, {_VECTOR} %right, {_VECTOR} %leaf{g}"""
