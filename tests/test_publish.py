import json
import shutil

import pytest
from report.results_directory import write_results

from lungseg.errors import InputError
from lungseg.publish import publish
from lungseg.report.figures import SHOWS_IMAGES, draw_figures
from lungseg.report.tables import write_tables


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    directory = write_results(tmp_path_factory.mktemp("results") / "study")
    write_tables(directory)
    draw_figures(directory)
    return directory


@pytest.fixture
def results(drawn, tmp_path):
    """A finished results directory with every figure drawn."""
    return shutil.copytree(drawn, tmp_path / "results" / "study")


def set_record(directory, **values):
    record = json.loads((directory / "run.json").read_text())
    record.update(values)
    (directory / "run.json").write_text(json.dumps(record))
    return record


def test_of_real_data_no_picture_map_or_model_is_copied(results, tmp_path):
    record = set_record(results)
    set_record(results, data={**record["data"], "real": True})
    assert {path.stem for path in (results / "figures").iterdir()} >= SHOWS_IMAGES
    target, filled = publish(results, tmp_path / "reference", tmp_path / "README.md")
    assert not filled
    copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"run.json", "scores.csv", "summary.md", "figures/dice.png", "figures/dice.pdf"} <= copied
    assert not {path for path in copied if path.split("/")[-1].split(".")[0] in SHOWS_IMAGES}
    assert not {path for path in copied if path.startswith(("predictions", "models", "parts"))}


def test_real_training_images_count_too(results, tmp_path):
    record = set_record(results)
    set_record(
        results, data={**record["data"], "real": False}, training_data={**record["data"], "real": True}
    )
    target, _ = publish(results, tmp_path / "reference", tmp_path / "README.md")
    assert not {path.stem for path in (target / "figures").iterdir()} & SHOWS_IMAGES


def test_phantoms_may_be_shown(results, tmp_path):
    record = set_record(results)
    set_record(results, data={**record["data"], "real": False}, training_data=None)
    target, _ = publish(results, tmp_path / "reference", tmp_path / "README.md")
    assert {path.stem for path in (target / "figures").iterdir()} >= SHOWS_IMAGES


def test_the_readmes_block_is_filled_and_a_stale_copy_replaced(results, tmp_path):
    name = set_record(results)["name"]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n<!-- results:{name} -->\nold\n<!-- /results:{name} -->\nafter\n")
    stale = tmp_path / "reference" / name / "stale.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    _, filled = publish(results, tmp_path / "reference", readme)
    text = readme.read_text()
    assert filled
    assert "old" not in text
    assert "| " in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert not stale.exists()


def test_results_without_figures_are_not_published(results, tmp_path):
    shutil.rmtree(results / "figures")
    with pytest.raises(InputError, match="lungseg report"):
        publish(results, tmp_path / "reference", tmp_path / "README.md")


def test_an_unfinished_benchmark_is_not_published(results, tmp_path):
    set_record(results, finished=None)
    with pytest.raises(InputError, match="not finished"):
        publish(results, tmp_path / "reference", tmp_path / "README.md")
    shutil.rmtree(results)
    with pytest.raises(InputError, match=r"run\.json is missing"):
        publish(results, tmp_path / "reference", tmp_path / "README.md")
