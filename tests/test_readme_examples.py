"""The examples of README and docs: Python runs as printed, and each TOML block is a valid spec."""

import ast
import importlib
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
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SMALL = ["data.count=12", "data.size=64", "timing.enabled=false", "runtime.device=cpu"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


SPECS = [(page.name, i, text) for page in PAGES for i, text in enumerate(blocks(page, "toml"))]
PYTHON = [(page.name, i, text) for page in PAGES for i, text in enumerate(blocks(page, "python"))]


def run(spec: Path, changes=SMALL):
    out = spec.parent / f"out-{spec.stem}"
    benchmark(read_spec(spec, changes), out)
    return read_table(out, "scores")


@pytest.fixture
def clinic(tmp_path, monkeypatch, discs):
    """The Python of own-approach.md as a module, its specs, and a folder of images for its dataset."""
    page = ROOT / "docs" / "own-approach.md"
    (tmp_path / "my_module.py").write_text("\n".join(blocks(page, "python")))
    for name, text in zip(("dark", "clinic"), blocks(page, "toml"), strict=True):
        (tmp_path / f"{name}.toml").write_text(text)
    for index, sample in enumerate(discs(10)):
        for side, values in (("images", sample.image()), ("masks", sample.mask())):
            path = tmp_path / "clinic" / side / f"p{index}_front.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(values * 255.0).astype(np.uint8)).save(path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path))
    return tmp_path


def test_the_approach_and_the_dataset_run_as_printed(clinic, without_figures):
    scores = run(clinic / "clinic.toml", SMALL[2:])
    assert set(scores["patient"]) <= {f"p{index}" for index in range(10)}
    assert scores["dice"].min() > 0.5
    assert set(run(clinic / "dark.toml")["approach"]) == {"my_module-Dark", "mean-mask"}


@pytest.mark.parametrize("own", [False, True], ids=["named", "derived"])
def test_the_regressors_run_as_printed(own, tmp_path, monkeypatch, without_figures):
    page = ROOT / "docs" / "own-regressor.md"
    (code,), (spec,) = blocks(page, "python"), blocks(page, "toml")
    (tmp_path / "my_regressor.py").write_text(code)
    (tmp_path / "forest.toml").write_text(spec)
    monkeypatch.syspath_prepend(tmp_path)
    changes = [*SMALL, "approach.vgg19-pixels.size=16"]
    if own:
        name = re.search(r'regressor = "(my_regressor:\w+)"', code)[1]
        changes += [f"approach.vgg19-pixels.regressor={name}", "approach.vgg19-pixels.regressor_settings={}"]
    assert run(tmp_path / "forest.toml", changes)["dice"].mean() > 0.3


@pytest.mark.parametrize(("page", "number", "text"), SPECS, ids=lambda value: str(value)[:20])
def test_each_spec_that_is_printed_is_valid(page, number, text, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    read_spec(tmp_path / "mine.toml")


def test_the_readme_has_a_spec_for_own_images(tmp_path):
    (text,) = blocks(ROOT / "README.md", "toml")
    (tmp_path / "mine.toml").write_text(text)
    spec = read_spec(tmp_path / "mine.toml")
    assert spec.data.split == "kfold"
    assert "patient_pattern" in spec.data.options
    assert spec.approach[0].use == "mean-mask"


@pytest.mark.parametrize(("page", "number", "text"), PYTHON, ids=lambda value: str(value)[:20])
def test_what_printed_python_imports_is_there(page, number, text):
    for node in ast.walk(ast.parse(text)):
        # What a cluster's own software needs is nothing of ours.
        if isinstance(node, ast.ImportFrom) and node.module != "dask_jobqueue":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_make_help_lists_the_targets_that_pages_name():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for page in PAGES:
        for target in set(re.findall(r"^make ([a-z]+)", page.read_text("utf-8"), re.M)):
            assert f"make {target} " in listed or target == "help", target
