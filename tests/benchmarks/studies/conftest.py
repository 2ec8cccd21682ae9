"""What tests of studies share: ceilings that take no time."""

import pytest

from benchmarks.studies import ceilings, turns


@pytest.fixture
def quick_ceilings(monkeypatch) -> None:
    """Small products and copies, and one round of turns."""
    monkeypatch.setattr(ceilings, "PRODUCT_SIZE", {"cpu": 128})
    monkeypatch.setattr(ceilings, "COPIED_MIB", {"cpu": 1})
    monkeypatch.setattr(ceilings, "VISITS", 256)
    monkeypatch.setattr(turns, "ROUNDS", 1)
