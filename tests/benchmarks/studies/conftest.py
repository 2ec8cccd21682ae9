"""What tests of studies share: processes that start quickly, and ceilings that take no time."""

from multiprocessing import get_context
from multiprocessing.context import BaseContext

import pytest

from benchmarks.studies import ceilings, turns

IMPORTED = [
    "lungseg.harness.run",
    "lungseg.approaches.deeplabv3plus.approach",
    "lungseg.approaches.vgg19_pixels.cluster",
    "benchmarks.studies.deeplab.ways",
]


@pytest.fixture(scope="session")
def forks() -> BaseContext:
    """Processes forked from one that has done nothing but import the libraries, which takes seconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


@pytest.fixture
def quick_ceilings(monkeypatch) -> None:
    """Small products and copies, and one round of turns."""
    monkeypatch.setattr(ceilings, "PRODUCT_SIZE", {"cpu": 128})
    monkeypatch.setattr(ceilings, "COPIED_MIB", {"cpu": 1})
    monkeypatch.setattr(ceilings, "VISITS", 256)
    monkeypatch.setattr(turns, "ROUNDS", 1)
