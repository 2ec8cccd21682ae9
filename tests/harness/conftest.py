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
