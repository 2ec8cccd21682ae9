"""The index of published results."""

import json
import re
import shutil

import pytest

from lungseg.report.leaderboard import collect_boards, write_leaderboard
from lungseg.report.write import write_reports
from lungseg.results import read_table, write_table
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from lungseg.system.stored import write_record
from tests.report.results_directory import read_edited


@pytest.fixture
def published(results, tmp_path):
    """Two results on the same images and one on a validation part."""
    folder = tmp_path / "reference"
    for name, part in (("first", "test"), ("second", "test"), ("trial", "validation")):
        directory = shutil.copytree(results, folder / name)
        write_record(directory / "run.json", read_json(directory / "run.json") | {"evaluate_on": part})
        read_edited(directory)
    (folder / "a-study").mkdir()
    return folder


def test_rows_of_the_same_images_stand_in_one_table_best_first(published):
    boards, problems = collect_boards(published)
    assert problems == []
    assert [board.final for board in boards] == [True, False]
    assert boards[0].title == "made-up: 6 images, test part of split random"
    dice = [row["dice"] for row in boards[0].rows]
    assert dice == sorted(dice, reverse=True)
    assert {row["link"] for row in boards[0].rows} == {"first", "second"}


def test_other_images_of_the_same_name_and_number_stand_in_another_table(published):
    record = read_json(published / "second" / "run.json")
    record["data"] |= {"sha256": "99" * 32}
    write_record(published / "second" / "run.json", record)
    read_edited(published / "second")
    boards, _ = collect_boards(published)
    assert [board.final for board in boards] == [True, True, False]
    assert {board.title for board in boards[:2]} == {
        "made-up: 6 images, test part of split random, data 12121212",
        "made-up: 6 images, test part of split random, data 99999999",
    }


def test_other_images_of_the_same_dataset_do_too(published):
    scores = read_table(published / "second", "scores")
    scores["image_id"] = scores["image_id"].replace("img_1", "img_99")
    write_table(published / "second" / "scores.csv", "scores", scores)
    read_edited(published / "second")
    boards, _ = collect_boards(published)
    assert sum(board.final for board in boards) == 2


def test_both_pages_hold_all_rows_and_link_to_them(published):
    assert write_leaderboard(published) == []
    text, page = (published / "index.md").read_text(), (published / "index.html").read_text()
    for name in ("first", "second", "trial"):
        assert f"[{name}]({name}/summary.md)" in text
        assert f'href="{name}/report.html"' in page
    assert text.count("good\\_net") == page.count(">good_net<")
    assert not re.search(r"""(src|href)=["']http""", page)
    json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_what_cannot_be_read_is_named_and_the_rest_is_there(published):
    (published / "second" / "scores.csv").write_text("x")
    problems = write_leaderboard(published)
    assert len(problems) == 1
    assert "scores.csv" in problems[0]
    assert "[first](first/summary.md)" in (published / "index.md").read_text()


def test_all_reports_are_made_again(published, monkeypatch):
    monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
    page, problems = write_reports(published)
    assert page == published / "index.html"
    assert problems == []
    assert all((published / name / "report.html").exists() for name in ("first", "second", "trial"))


def test_a_folder_without_results_says_what_to_name(tmp_path):
    with pytest.raises(InputError, match="holds no results: name a results directory"):
        write_reports(tmp_path)
