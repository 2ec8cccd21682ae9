"""Models of the tiny run, exported once, and pictures to predict."""

from pathlib import Path

import pytest

from lungseg.data.datasets.export import write_phantoms
from lungseg.prediction.export import export_model
from lungseg.prediction.models import Model, load_model
from tests.networks import settings  # noqa: F401


@pytest.fixture(scope="session")
def exported_once(finished_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models by the names of their rows; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    for row in ("mean-mask", "pixels"):
        export_model(finished_once, row, folder / row)
    return folder


@pytest.fixture
def model(exported_once: Path) -> Model:
    """A model whose mask is the same for every picture."""
    return load_model(exported_once / "mean-mask", device="cpu")


@pytest.fixture
def other(exported_once: Path) -> Model:
    return load_model(exported_once / "pixels", device="cpu")


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A folder of ten X-rays of 64 pixels a side."""
    write_phantoms(tmp_path / "ward", 10, 64, 3)
    return tmp_path / "ward" / "images"
