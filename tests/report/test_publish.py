import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from lungseg.report.figures.all import FIGURE_SUFFIXES, FIGURES, SHOWS_IMAGES
from lungseg.report.publish import publish
from lungseg.results import read_table
from lungseg.system.errors import InputError
from lungseg.system.stored import write_record
from tests.report.results_tables import IDS


@pytest.fixture
def results(reported, tmp_path):
    """A finished results directory with a file for each figure that shows X-rays, and some other figures."""
    directory = shutil.copytree(reported, tmp_path / "results" / "study")
    for stem in SHOWS_IMAGES - {"samples"}:
        for suffix in FIGURE_SUFFIXES:
            shutil.copyfile(directory / f"figures/samples{suffix}", directory / f"figures/{stem}{suffix}")
    return directory


@pytest.fixture(autouse=True)
def _figures_drawn_before(request, reported, monkeypatch):
    """Figures that are drawn anew are those that were drawn before: to draw them takes seconds.

    A test marked `figures` draws them nevertheless.
    """

    def copy(contents):
        (contents.directory / "figures").mkdir(exist_ok=True)
        stored = (contents.directory / "predictions").exists()
        for path in (reported / "figures").iterdir():
            if stored or path.stem not in SHOWS_IMAGES:
                shutil.copyfile(path, contents.directory / "figures" / path.name)

    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr("lungseg.report.write.draw_figures", copy)


def set_record(directory, **values):
    record = json.loads((directory / "run.json").read_text())
    del record["sha256"]
    record.update(values)
    write_record(directory / "run.json", record)
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


@pytest.mark.parametrize("keep_names", [False, True])
def test_names_of_a_dataset_of_ones_own_become_numbers(results, tmp_path, keep_names):
    record = set_record(results)
    said = f"Doe-J and {IDS[0]} (folder) may show the same person (look-alike, similarity 0.91)"
    own = {**record["data"], "real": True, "public": False}
    unread = f"{own['dataset']}: 1 of 7 files in images/ isn't read: 1 .dcm ({IDS[2]}.dcm)"
    failure = {"approach": "gone", "fold": 0, "seed": 0, "reason": f"the map of {IDS[1]} has NaN"}
    sentences = {"leaks": [said], "audit": {**record["audit"], "lookalikes": [said]}, "failed": [failure]}
    set_record(results, data=own, notes=["3 masks are empty", unread], **sentences)
    target, _ = publish(results, tmp_path / "reference", tmp_path / "none.md", keep_names)
    texts = {path.name: path.read_text() for path in target.iterdir() if path.is_file()}
    names = [*IDS, "Doe-J", "Roe-K", *read_table(results, "scores")["patient"]]
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)")
    named = {name for name, text in texts.items() if pattern.search(text)}
    if keep_names:
        assert named >= {"run.json", "scores.csv"}
        return
    assert not named
    scores, copied = read_table(results, "scores"), read_table(target, "scores")
    same = scores.columns.difference(["image_id", "patient"])
    assert copied[same].equals(scores[same])
    assert copied.groupby("image_id").ngroups == scores.groupby("image_id").ngroups
    assert copied["patient"].factorize()[0].tolist() == scores["patient"].factorize()[0].tolist()
    assert texts["summary.md"].count("left out, since it may name images") == 4
    assert "3 masks are empty" in texts["summary.md"]
    assert {path.stem for path in (target / "figures").iterdir()} >= {"dice", "differences"}
    assert not {path.stem for path in (target / "figures").iterdir()} & SHOWS_IMAGES


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
    stale = tmp_path / "reference" / name / "figures" / "stale.png"
    publish(results, tmp_path / "reference", tmp_path / "none.md")
    stale.write_text("")
    _, filled = publish(results, tmp_path / "reference", readme)
    text = readme.read_text()
    assert filled
    assert "old" not in text
    assert "| " in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert not stale.exists()
    left = {path.name for path in (tmp_path / "reference").iterdir()}
    assert left == {name, "index.md", "index.html"}


def test_a_file_that_is_none_of_ours_is_not_copied(results, tmp_path):
    for name in ("figures/patient.png", "notes.csv"):
        (results / name).write_text("private")
    target, _ = publish(results, tmp_path / "reference", tmp_path / "none.md")
    assert not (target / "figures" / "patient.png").exists()
    assert not (target / "notes.csv").exists()


def everything_below(folder):
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def link_a_table(results, tmp_path):
    (results / "scores.csv").unlink()
    (results / "scores.csv").symlink_to(tmp_path / "mine" / "letter.txt")


def link_the_figures(results, tmp_path):
    (results / "figures").rename(tmp_path / "elsewhere")
    (results / "figures").symlink_to(tmp_path / "elsewhere")


def link_a_figure(results, tmp_path):
    (results / "figures" / "dice.png").unlink()
    (results / "figures" / "dice.png").symlink_to(tmp_path / "mine" / "letter.txt")


def target_is_my_folder(results, tmp_path):
    shutil.copytree(tmp_path / "mine", tmp_path / "reference" / "study")


def target_is_my_tables(results, tmp_path):
    target = tmp_path / "reference" / "study"
    target.mkdir(parents=True)
    (target / "scores.csv").write_text("mine")


def target_is_another_result(results, tmp_path):
    target = shutil.copytree(results, tmp_path / "reference" / "study")
    shutil.rmtree(target / "predictions")
    set_record(target, name="other")


def target_holds_trainings(results, tmp_path):
    (shutil.copytree(results, tmp_path / "reference" / "study") / "models").mkdir(exist_ok=True)


def target_is_a_file(results, tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "study").write_text("mine")


def target_is_a_link(results, tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "study").symlink_to(tmp_path / "mine")


def unfinished_copy_is_a_link(results, tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / ".study.new").symlink_to(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "to", "before"),
    [
        ("..", "reference", None),
        (".", "reference", None),
        ("", "reference", None),
        ("{tmp}/mine", "reference", None),
        ("../mine", "reference", None),
        (None, "reference", None),
        ("study\n", "reference", None),
        ("study", "results", None),  # the target is the source
        ("study", "results/study", None),  # it lies in the source
        ("results", ".", None),  # it holds the source
        ("study", "reference", link_a_table),
        ("study", "reference", link_a_figure),
        ("study", "reference", link_the_figures),
        ("study", "reference", target_is_my_folder),
        ("study", "reference", target_is_my_tables),
        ("study", "reference", target_is_another_result),
        ("study", "reference", target_holds_trainings),
        ("study", "reference", target_is_a_file),
        ("study", "reference", target_is_a_link),
        ("study", "reference", unfinished_copy_is_a_link),
    ],
)
def test_what_would_harm_other_files_is_refused_and_changes_nothing(results, tmp_path, name, to, before):
    (tmp_path / "mine" / "figures").mkdir(parents=True)
    (tmp_path / "mine" / "letter.txt").write_text("private")
    set_record(results, name=name and name.format(tmp=tmp_path))
    if before:
        before(results, tmp_path)
    there = everything_below(tmp_path)
    with pytest.raises(InputError):
        publish(results, tmp_path / to, tmp_path / "none.md")
    assert everything_below(tmp_path) == there


def test_damaged_tables_are_not_published(results, tmp_path):
    target, _ = publish(results, tmp_path / "reference", tmp_path / "none.md")
    there = everything_below(target)
    (results / "scores.csv").write_text("")
    with pytest.raises(InputError, match=r"scores\.csv has 0 bytes.* before publishing"):
        publish(results, tmp_path / "reference", tmp_path / "none.md")
    assert everything_below(target) == there


def test_a_source_that_is_named_by_a_link_is_still_the_source(results, tmp_path):
    set_record(results, name="study")
    (tmp_path / "by-link").symlink_to(tmp_path / "results")
    there = everything_below(tmp_path)
    with pytest.raises(InputError, match="not apart"):
        publish(results, tmp_path / "by-link", tmp_path / "none.md")
    assert everything_below(tmp_path) == there


def test_a_failure_half_way_leaves_the_published_result(results, tmp_path, monkeypatch):
    name = set_record(results)["name"]
    target, _ = publish(results, tmp_path / "reference", tmp_path / "none.md")
    there = everything_below(target)
    rename = Path.rename

    def failing(path, to):
        if path.name == f".{name}.new":
            raise OSError(errno.EIO, "input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="can't write"):
        publish(results, tmp_path / "reference", tmp_path / "none.md")
    assert everything_below(target) == there


@pytest.mark.parametrize("data", [None, {}, {"real": "no"}])
def test_a_record_that_does_not_say_whether_people_are_shown_is_not_published(results, tmp_path, data):
    set_record(results, data=data)
    with pytest.raises(InputError, match="real people"):
        publish(results, tmp_path / "reference", tmp_path / "none.md")


@pytest.mark.figures
def test_edited_summaries_and_missing_figures_are_made_anew(results, tmp_path, monkeypatch):
    few = {stem: FIGURES[stem] for stem in ("dice", "differences")}
    monkeypatch.setattr("lungseg.report.figures.all.FIGURES", few)
    whole = {name: (results / name).read_bytes() for name in ("summary.md", "figures/dice.png")}
    (results / "summary.md").write_text("ours is best")
    (results / "figures/dice.png").write_bytes(b"cut")
    (results / "figures/differences.pdf").unlink()
    target, _ = publish(results, tmp_path / "reference", tmp_path / "README.md", keep_names=True)
    assert {name: (target / name).read_bytes() for name in whole} == whole
    assert (target / "figures/differences.pdf").exists()


def test_an_unfinished_benchmark_is_not_published(results, tmp_path):
    set_record(results, finished=None)
    with pytest.raises(InputError, match="not finished"):
        publish(results, tmp_path / "reference", tmp_path / "README.md")
    shutil.rmtree(results)
    with pytest.raises(InputError, match=r"run\.json is missing"):
        publish(results, tmp_path / "reference", tmp_path / "README.md")
