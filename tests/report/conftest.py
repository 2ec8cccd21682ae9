"""The results directory that the tests of the report read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lungseg.report.write import write_report
from tests.report.results_directory import write_results


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results directory that `results` copies; not to be changed."""
    return write_results(tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture
def results(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "tiny")


@pytest.fixture(scope="session")
def reported(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its tables and figures, which take seconds; not to be changed."""
    directory = shutil.copytree(written, tmp_path_factory.mktemp("reported") / "study")
    write_report(directory)
    return directory
