import numpy as np
import pytest
import torch

from lungseg.system.memory import PeakMemory

CPU = torch.device("cpu")
BLOCK = 200 * 2**20


@pytest.mark.parametrize("kernel_keeps_it", [True, False])
def test_peak_memory_sees_what_was_there_for_a_while_only(kernel_keeps_it, monkeypatch):
    if not kernel_keeps_it:
        monkeypatch.setattr(PeakMemory, "_reset_kernel_peak", staticmethod(lambda: False))
    with PeakMemory(CPU) as idle:
        pass
    with PeakMemory(CPU) as busy:
        block = np.ones(BLOCK, np.uint8)
        for _ in range(20):  # long enough to be looked at
            block += 1
        del block
    with PeakMemory(CPU) as after:
        pass
    assert busy.mib > idle.mib + 150
    assert after.mib < busy.mib - 100  # a peak of its own, not that of the process's life
