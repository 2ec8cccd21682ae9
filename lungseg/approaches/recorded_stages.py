"""CUDA graphs of an approach's stages: one launch in place of hundreds, for batches of few images."""

from __future__ import annotations

from lungseg.learning.cuda_graphs import RecordedCalls
from lungseg.system.runtime import Runtime

MOST_IMAGES = 8  # of a batch: on more, computing takes longer than launching, and graphs keep their memory


class RecordedStages(RecordedCalls):
    """The graphs of one fitted approach. On a CPU there are none, and every stage is simply called."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.device.type == "cuda" and runtime.tuned, MOST_IMAGES)
