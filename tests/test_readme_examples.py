import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.harness.run import benchmark
from lungseg.results import read_table
from lungseg.spec import read_spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEC = """
name = "readme"
runtime = { device = "cpu" }
[data]
dataset = "readme_examples:Clinic"
[[approach]]
use = "readme_examples:Dark"
name = "dark"
[timing]
enabled = false
"""


@pytest.fixture
def clinic(tmp_path, monkeypatch, discs):
    """The README's Python as a module, and a folder of images for its dataset."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    (tmp_path / "readme_examples.py").write_text(code)
    for index, sample in enumerate(discs(10)):
        for side, values in (("images", sample.image()), ("masks", sample.mask())):
            path = tmp_path / "clinic" / side / f"p{index}_front.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(values * 255.0).astype(np.uint8)).save(path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path))
    return tmp_path


def test_the_readmes_approach_and_dataset_run_as_printed(clinic, without_figures):
    spec = clinic / "readme.toml"
    spec.write_text(SPEC)
    benchmark(read_spec(spec), clinic / "out")
    scores = read_table(clinic / "out", "scores")
    assert set(scores["patient"]) <= {f"p{index}" for index in range(10)}
    assert scores["dice"].min() > 0.5


def test_the_readmes_spec_is_valid(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (tmp_path / "mine.toml").write_text(text)
    assert read_spec(tmp_path / "mine.toml").data.options["suffix"] == "_mask"


def test_make_help_lists_the_targets_that_the_readme_names():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"make ([a-z]+)", README)):
        assert f"make {target} " in listed or target == "help", target
