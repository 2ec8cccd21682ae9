"""CUDA graphs: work of fixed shapes, recorded once, is one launch in place of hundreds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 3  # calls before a graph is recorded, in which libraries choose their algorithms


def record_graph(call: Callable[[], Any], pool: Any | None = None) -> tuple[Any, Callable[[], None]]:
    """Record a call as a CUDA graph; return its result, and what computes it anew in the same memory.

    Args:
        call: what it computes, on the device alone and without waiting for it.
        pool: of `torch.cuda.graph_pool_handle`, for graphs that never run at once; None: memory of its own.

    Raises:
        RuntimeError: the call can't be recorded, or the device's memory is full.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = call()
    return result, graph.replay
