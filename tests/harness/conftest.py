"""A finished run of the tiny spec, computed once and copied for each test that reads or harms one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungseg.harness.run import benchmark
from lungseg.spec import read_spec
from tests.tiny import NO_TIMING, SPEC


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results directory that `finished` copies; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGSEG_CACHE", str(folder / "cache"))
        patch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
        benchmark(read_spec(folder / "tiny.toml", NO_TIMING), folder / "out")
    return folder / "out"


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """Results of `read_spec(spec_file, NO_TIMING)`, without figures; a test may change them."""
    return shutil.copytree(finished_once, tmp_path / "finished")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the trials that are computed from now on."""
    import lungseg.harness.run as harness

    labels, original = [], harness.run_trial
    monkeypatch.setattr(
        harness, "run_trial", lambda trial, *rest: (labels.append(trial.label), original(trial, *rest))
    )
    return labels
