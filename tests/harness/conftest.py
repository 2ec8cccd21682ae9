"""What the tests of the harness share."""

from __future__ import annotations

import pytest


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the trials that are computed from now on."""
    import lungseg.harness.run as harness

    labels, original = [], harness.run_trial
    monkeypatch.setattr(
        harness, "run_trial", lambda trial, *rest: (labels.append(trial.label), original(trial, *rest))
    )
    return labels


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """For benchmarks that are run for their scores: a report takes as long as the rest of a tiny one.

    A test marked `report` or `figures` writes it nevertheless.
    """
    if not any(request.node.get_closest_marker(name) for name in ("report", "figures")):
        monkeypatch.setattr("lungseg.harness.run.write_report", lambda directory: None)
