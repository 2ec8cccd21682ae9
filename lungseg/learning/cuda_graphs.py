"""CUDA graphs: work of fixed shapes, recorded once, is one launch in place of hundreds."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lungseg.system.errors import is_out_of_memory, summarise_error

WARM_UP = 3  # calls before a graph is recorded, in which libraries choose their algorithms
MOST_SHAPES = 4  # of batches whose graphs are kept; each shape's graphs have memory of their own


def record_graph(call: Callable[[], Any], pool: Any | None = None) -> tuple[Any, Callable[[], None]]:
    """Record a call as a CUDA graph; return its result, and what computes it anew in the same memory.

    If that fails, the process goes on as if nothing had been recorded.

    Args:
        call: what it computes, on the device alone and without waiting for it.
        pool: of `torch.cuda.graph_pool_handle`, for graphs that never run at once; None: memory of its own.

    Raises:
        RuntimeError: the call can't be recorded, or the device's memory is full. It is the error of the call
            itself, which torch's end of a recording would hide behind one of its own.
    """
    current, handled, first = torch.cuda.current_stream(), sys.exception(), None
    _warm_up(call, current)
    graph = torch.cuda.CUDAGraph()
    # What other threads do meanwhile, such as to pin memory, spoils no recording of this one.
    recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    try:
        # The first puts the stream back, which the second doesn't if the end of the recording raises.
        with torch.cuda.stream(current), recording:
            try:
                result = call()
            except BaseException as error:
                first = error
                raise
    except BaseException as error:
        first = first or error
    else:
        return result, graph.replay
    _drop_recording(graph)
    try:
        raise _find_full_memory(first, handled) or first
    finally:
        del first  # else this frame and the error would keep each other, and the tensors that fill the memory


def _warm_up(call: Callable[[], Any], current: torch.cuda.Stream) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    current.wait_stream(stream)


def _drop_recording(graph: torch.cuda.CUDAGraph) -> None:
    """Give back the memory of a recording that failed, and end it for the random generators."""
    with suppress(RuntimeError):
        graph.reset()
    # A generator of an older torch goes on believing that it is recorded, and the next dropout fails.
    for generator in torch.cuda.default_generators:
        generator.graphsafe_set_state(generator.clone_state())


def _find_full_memory(error: BaseException | None, handled: BaseException | None) -> BaseException | None:
    """Find a full memory among an error and those beneath it, down to one that was handled before."""
    while error is not None and error is not handled:
        if is_out_of_memory(error):
            return error
        error = error.__context__
    return None


class RecordedCalls:
    """The graphs of the calls that make a prediction, one after the other, for batches of a few shapes.

    A call is recorded when it has a batch of the same shape for the second time. It then computes in the same
    memory at every call, so what it returns is valid until its next call, but for the result of the last one.
    """

    def __init__(self, enabled: bool, most_images: int | None = None, share_memory: bool = False) -> None:
        """Prepare to record; nothing is, unless `enabled`.

        `most_images` of a batch are recorded, None: any number. With `share_memory` graphs use the same
        memory; then every call has to be the last one of its prediction.
        """
        self.enabled = enabled
        self._most_images, self._share_memory = most_images, share_memory
        self._failure: str | None = None  # why nothing can be recorded
        self._replayed: dict[str, bool] = {}  # how each call last ran
        self._seen: set[tuple[str, torch.Size]] = set()
        # By the shape of the batch, that used last at the end; then by the calls that led to it.
        self._shapes: dict[torch.Size, dict[tuple[str, ...], _Recorded]] = {}
        self._pool: Any | None = None

    def describe(self) -> str:
        """Return how the last prediction ran: "replayed", "in part", "none", or "failed: " and the reason.

        "in part" says that some calls were replayed and others weren't.
        """
        if self._failure is not None:
            return f"failed: {self._failure}"
        how = set(self._replayed.values())
        return "in part" if len(how) > 1 else "replayed" if how == {True} else "none"

    def drop(self) -> None:
        """Drop all graphs with their memory. A shape that was seen before is recorded anew at once."""
        self._shapes.clear()
        self._pool = None

    def run(
        self, name: str, call: Callable[[Any], Any], value: Any, last: bool = False, recordable: bool = True
    ) -> Any:
        """Return call(value), by the graph of that name for such a value if there is one, or can be one.

        Args:
            name: of the call.
            call: what it computes, on the device alone and without waiting for it.
            value: a batch, or what a call before it returned.
            last: whether the result is a tensor that the caller keeps.
            recordable: whether the call is as described; if not it is only called.

        Raises:
            RuntimeError: the device's memory is full.
        """
        self._replayed[name] = False
        recorded = self._find(name, call, value) if self.enabled and recordable else None
        if recorded is None:
            return call(value)
        result = recorded.replay(value)
        self._replayed[name] = True
        return result.clone() if last else result

    def _find(self, name: str, call: Callable[[Any], Any], value: Any) -> _Recorded | None:
        """Return the graph of a call on such a value; record it if it is due. None if there is none."""
        shape, path = self._place(name, value)
        if shape is None:
            return None
        if shape in self._shapes:
            self._shapes[shape] = self._shapes.pop(shape)
        recorded = self._shapes.get(shape, {}).get(path)
        if recorded is None and len(path) == 1 and (name, shape) not in self._seen:
            self._seen.add((name, shape))
            return None
        return recorded or self._record(shape, path, call, value)

    def _place(self, name: str, value: Any) -> tuple[torch.Size | None, tuple[str, ...]]:
        """Return the shape of the batch and the calls up to this one; no shape if it isn't to be recorded."""
        for shape, graphs in self._shapes.items():
            for path, one in graphs.items():
                if one.result is value:
                    return shape, (*path, name)
        most = self._most_images
        small = isinstance(value, Tensor) and (most is None or len(value) <= most)
        return (value.shape if small else None), (name,)

    def _record(
        self, shape: torch.Size, path: tuple[str, ...], call: Callable[[Any], Any], value: Any
    ) -> _Recorded | None:
        if shape not in self._shapes and len(self._shapes) >= MOST_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        if self._share_memory and not self._shapes:
            self._pool = torch.cuda.graph_pool_handle()  # torch refuses one that no graph uses any longer
        try:
            recorded = _Recorded(call, value.clone() if len(path) == 1 else value, self._pool)
        except RuntimeError as error:  # what waits for the device can't be recorded
            if is_out_of_memory(error):
                raise
            self._give_up(summarise_error(error))
            return None
        self._shapes.setdefault(shape, {})[path] = recorded
        return recorded

    def _give_up(self, reason: str) -> None:
        warnings.warn(f"no CUDA graph ({reason}): predictions run without", stacklevel=5)
        self.enabled, self._failure = False, reason
        self.drop()


class _Recorded:
    """A call on one value, recorded; later values are copied into its memory, unless they are there."""

    def __init__(self, call: Callable[[Any], Any], value: Any, pool: Any | None) -> None:
        self._value = value
        self.result, self._replay = record_graph(lambda: call(value), pool)

    def replay(self, value: Any) -> Any:
        if value is not self._value:
            self._value.copy_(value)
        self._replay()
        return self.result
