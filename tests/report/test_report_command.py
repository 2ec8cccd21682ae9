"""`lungseg report` as typed."""

import shutil

import pytest


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])


def test_it_prints_the_verdict_the_table_and_where_the_page_is(results, lungseg):
    run = lungseg("report", str(results))
    lines = run.stdout.splitlines()
    assert run.returncode == 0
    assert lines[0].startswith("- good_net has the highest mean Dice: ")
    assert any("good_net" in line and "│" in line for line in lines)
    assert f"Page:    {results / 'report.html'}" in lines
    assert max(map(len, lines[: lines.index("")])) <= 100
    # Not the whole summary: a log has what a terminal has.
    assert "## " not in run.stdout


def test_open_shows_the_page(results, lungseg, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    lungseg("report", str(results))
    assert opened == []
    lungseg("report", str(results), "--open")
    assert opened == [(results / "report.html").resolve().as_uri()]


def test_columns_of_the_paper_are_chosen_and_a_wrong_one_changes_nothing(results, lungseg):
    run = lungseg("report", str(results), "--columns", "dice,nothing")
    assert run.returncode == 2
    assert "nothing" in run.stderr
    assert not (results / "summary.tex").exists()
    run = lungseg("report", str(results), "--columns", "dice, pooled_f1")
    table = (results / "summary.tex").read_text()
    assert run.returncode == 0
    assert "F1" in table
    assert "HD95" not in table


def test_a_folder_of_results_gets_all_reports_and_an_index(results, lungseg, tmp_path):
    folder = tmp_path / "several"
    shutil.copytree(results, folder / "one")
    damaged = shutil.copytree(results, folder / "two")
    (damaged / "scores.csv").write_text("x")
    run = lungseg("report", str(folder))
    assert run.returncode == 1  # since one is left out
    assert (folder / "one" / "report.html").exists()
    assert f"Index: {folder / 'index.html'}" in run.stdout
    assert "scores.csv" in run.stdout  # what was left out, and why


def test_a_folder_of_nothing_is_a_sentence(lungseg, tmp_path):
    run = lungseg("report", str(tmp_path))
    assert run.returncode == 2
    assert "run.json is missing" in run.stderr
