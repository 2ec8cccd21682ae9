"""The results directory that the tests of the report read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungseg.report.figures.all import FIGURES
from lungseg.report.write import write_report
from tests.report.results_directory import write_results

# Few, since to draw all takes ten seconds: one with pictures, and two whose data each result has.
REPORTED = ("samples", "dice", "differences")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results directory that `results` copies; not to be changed."""
    return write_results(tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture
def results(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "tiny")


@pytest.fixture(scope="session")
def reported(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its tables, page and the figures of REPORTED; not to be changed."""
    directory = shutil.copytree(written, tmp_path_factory.mktemp("reported") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lungseg.report.figures.all.FIGURES", {stem: FIGURES[stem] for stem in REPORTED})
        write_report(directory)
    return directory
