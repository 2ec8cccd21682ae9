"""CUDA graphs of an approach's stages: one launch in place of hundreds, for batches of few images.

A stage is recorded when it has a batch of the same shape for the second time. It then computes in the same
memory at every call, so what it returns is valid until its next call, except for the last stage's maps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lungseg.learning.cuda_graphs import record_graph
from lungseg.system.errors import is_out_of_memory, summarise_error
from lungseg.system.runtime import Runtime

MOST_IMAGES = 8  # of a batch: on more, computing takes longer than launching, and graphs keep their memory


class RecordedStages:
    """The graphs of one fitted approach. On a CPU there are none, and every stage is simply called."""

    def __init__(self, runtime: Runtime) -> None:
        self._enabled = runtime.device.type == "cuda" and runtime.tuned
        self._failed = self._replayed = False  # the latter of the last call
        self._seen: set[tuple[str, torch.Size]] = set()
        self._recorded: dict[tuple[str, Any], _Recorded] = {}

    def describe(self) -> str:
        """Return how the last stage ran: "replayed", "none", or "failed" if no graph can be recorded."""
        return "failed" if self._failed else "replayed" if self._replayed else "none"

    def run(self, name: str, call: Callable[[Any], Any], value: Any, last: bool = False) -> Any:
        """Return call(value), by the graph of that name for such a value if there is one, or can be one.

        Args:
            name: of the stage.
            call: what it computes, on the device alone and without waiting for it.
            value: a batch, or what a stage before it returned.
            last: whether the result is a tensor that the caller keeps.

        Raises:
            RuntimeError: the device's memory is full.
        """
        self._replayed = False
        known = next((one for one in self._recorded.values() if one.result is value), None)
        batch = isinstance(value, Tensor) and len(value) <= MOST_IMAGES
        if not self._enabled or not (known or batch):
            return call(value)
        key = (name, id(known) if known else value.shape)
        if key not in self._recorded:
            if known is None and key not in self._seen:
                self._seen.add(key)
                return call(value)
            try:
                self._recorded[key] = _Recorded(call, value if known else value.clone())
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._give_up(error)
                return call(value)
        result = self._recorded[key].replay(value)
        self._replayed = True
        return result.clone() if last else result

    def _give_up(self, error: RuntimeError) -> None:
        warnings.warn(f"no CUDA graph ({summarise_error(error)}): the stages run without", stacklevel=3)
        self._enabled, self._failed = False, True
        self._recorded.clear()


class _Recorded:
    """A call on one value, recorded; later values are copied into its memory, unless they are there."""

    def __init__(self, call: Callable[[Any], Any], value: Any) -> None:
        self._value = value
        self.result, self._replay = record_graph(lambda: call(value))

    def replay(self, value: Any) -> Any:
        if value is not self._value:
            self._value.copy_(value)
        self._replay()
        return self.result
