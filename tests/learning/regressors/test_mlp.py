"""The dense network's rows: where they are kept on a GPU, and how often a pass over them waits for it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.regressors.mlp import Mlp, MlpSettings, soft_cross_entropy


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def table() -> PixelTable:
    rng = np.random.default_rng(0)
    features = rng.random((700, 4), np.float32)
    return PixelTable(features, (features[:, 0] > 0.5).astype(np.float32))


def make(runtime, **keys) -> Mlp:
    return Mlp(MlpSettings(hidden=8, batch_rows=64, dropout=0, **keys), runtime)


@pytest.mark.parametrize(("free", "where"), [(1 << 30, "meta"), (700 * 5 * 4, "cpu")])
def test_rows_are_on_the_device_where_they_take_at_most_half_of_its_memory(
    free, where, table, runtime, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 1 << 35))
    mlp = make(replace(runtime, device=torch.device("meta")))  # in place of a GPU
    assert [each.device.type for each in mlp._place(table)] == [where, where]


def test_a_pass_waits_for_the_device_as_often_with_many_steps_as_with_one(table, runtime, new_fit_context):
    waits = {}
    for rows in (64, 640):
        mlp = make(runtime, epochs=1)
        few = PixelTable(table.features[:rows], table.targets[:rows])
        with Operations() as seen:
            mlp.fit(few, few, new_fit_context())
        assert seen.counts["aten._fused_adam_.default"] == rows // 64
        waits[rows] = seen.counts["aten._local_scalar_dense.default"]
    assert waits[640] == waits[64] > 0


def test_losses_and_accuracies_are_those_of_all_rows(table, runtime, new_fit_context, monkeypatch):
    monkeypatch.setattr("lungseg.learning.regressors.mlp.ROWS_A_CALL", 300)  # two whole blocks and a rest
    mlp, context = make(runtime, epochs=2), new_fit_context()
    mlp.fit(table, table, context)
    last = context.rows[mlp.best_step - 1]
    with torch.inference_mode():
        logits, targets = mlp._logits(torch.from_numpy(table.features)), torch.from_numpy(table.targets)
        assert last["validation_loss"] == pytest.approx(float(soft_cross_entropy(logits, targets)), rel=1e-6)
        right = (mlp.predict(table.features) >= 0.5) == (table.targets >= 0.5)
    assert last["validation_accuracy"] == right.mean()
