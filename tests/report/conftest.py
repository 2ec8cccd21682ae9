"""The results directory that the tests of the report read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.results_directory import write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    directory.mkdir()
    return write_results(directory)
