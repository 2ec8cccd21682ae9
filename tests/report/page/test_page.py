"""What report.html holds, without a browser."""

import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest

from lungseg.report.contents import read_contents
from lungseg.report.findings import collect_findings
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.page.cases import collect_cases
from lungseg.report.page.colours import PAPER, compute_contrast, fit_to_paper
from lungseg.report.page.page import write_page
from lungseg.report.page.plots import make_dice_axis, place_images, place_scatter
from lungseg.report.publish import publish
from lungseg.report.sentences.verdict import write_verdict
from lungseg.system.files import read_json
from lungseg.system.stored import write_record
from tests.report.results_directory import read_edited


def draw_page(directory):
    return write_page(collect_findings(read_edited(directory)))


def read_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_it_asks_nothing_from_elsewhere_and_holds_the_verdict(reported):
    page = (reported / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page
    for sentence in write_verdict(read_contents(reported)):
        assert sentence in page


def test_names_are_escaped(results):
    record = read_json(results / "run.json")
    for entry in record["approaches"]:
        entry["label"] = f"<b>{entry['name']}</b></script>&"
    write_record(results / "run.json", record)
    page = draw_page(results).read_text()
    assert "<b>good_net" not in page
    assert "&lt;b&gt;good_net&lt;/b&gt;" in page
    assert "</script>&" in " ".join(read_data(page)["cases"]["approaches"])


@pytest.fixture
def drawn(reported, tmp_path, monkeypatch):
    """A results directory with its figures, which aren't drawn again."""
    monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
    return shutil.copytree(reported, tmp_path / "drawn")


def test_a_published_page_of_people_has_no_picture(drawn, tmp_path):
    record = read_json(drawn / "run.json")
    record["data"] |= {"real": True, "public": True}
    write_record(drawn / "run.json", record)
    page = draw_page(drawn).read_text()
    assert read_data(page)["cases"]["total"] == 6
    assert "<b>samples</b>" in page
    target, _ = publish(drawn, tmp_path / "reference", tmp_path / "none.md")
    page = (target / "report.html").read_text()
    assert read_data(page)["cases"] is None
    assert "image/jpeg" not in page
    shown = re.findall(r"<figcaption><b>([\w-]+)</b>", page)
    assert not {"samples", "cases", "feature-maps", "stage-maps", "pipeline"} & set(shown)


def test_a_published_page_of_phantoms_keeps_its_cases(drawn, tmp_path):
    target, _ = publish(drawn, tmp_path / "reference", tmp_path / "none.md")
    assert read_data((target / "report.html").read_text())["cases"]["total"] == 6


def test_it_keeps_them_when_it_is_made_again_and_not_those_of_another_run(drawn, tmp_path):
    target, _ = publish(drawn, tmp_path / "reference", tmp_path / "none.md")
    assert read_data(draw_page(target).read_text())["cases"]["total"] == 6
    record = read_json(target / "run.json")
    write_record(target / "run.json", record | {"finished": "2026-05-06T07:08:09"})
    assert read_data(draw_page(target).read_text())["cases"] is None


def test_the_page_of_people_that_is_replaced_gives_no_picture(drawn):
    draw_page(drawn)
    shutil.rmtree(drawn / "predictions")
    record = read_json(drawn / "run.json")
    record["data"] |= {"real": True, "public": True}
    write_record(drawn / "run.json", record)
    assert read_data(draw_page(drawn).read_text())["cases"] is None


def test_without_pictures_times_and_scores_parts_are_left_out(results):
    shutil.rmtree(results / "predictions")
    (results / "timings.csv").unlink()
    page = draw_page(results).read_text()
    assert 'id="cases"' not in page
    assert 'id="speed"' not in page
    assert 'id="images"' in page


def test_cases_are_sorted_and_disagreement_is_counted(results):
    cases = collect_cases(read_contents(results))
    means = [np.mean(case["dice"]) for case in cases["cases"]]
    assert means == sorted(means)
    # All approaches were given the same maps.
    assert {case["disagreement"] for case in cases["cases"]} <= {0.0, None}
    assert all(
        one.startswith("data:image/png;base64,") for case in cases["cases"] for one in case["overlays"]
    )


def test_places_in_the_plots_follow_the_numbers(results):
    contents = read_contents(results)
    scatter = place_scatter(collect_main_rows(contents))
    by_time = sorted(scatter["points"], key=lambda point: point["row"]["ms_per_image"])
    assert [point["x"] for point in by_time] == sorted(point["x"] for point in by_time)
    by_dice = sorted(scatter["points"], key=lambda point: -point["row"]["dice"])
    assert [point["y"] for point in by_dice] == sorted(point["y"] for point in by_dice)
    names = sorted(point["name_y"] for point in scatter["points"])
    assert all(lower - upper >= 18 for upper, lower in pairwise(names))
    images = place_images(contents)
    for row in images["rows"]:
        values = [images["values"][row["name"]][image] for image, _, _ in row["points"]]
        order = np.argsort(values, kind="stable")
        assert (np.diff(np.array([x for _, x, _ in row["points"]])[order]) >= 0).all()


def test_the_dice_axis_is_logarithmic_in_one_minus_dice():
    axis = make_dice_axis([0.9, 0.99], 0, 100)
    at = {text: place for place, text in axis.ticks}
    # From .9 to .95 is as far as from .95 to .975 would be; .98 to .99 is the same distance again.
    assert at["0.95"] - at["0.9"] == pytest.approx(at["0.99"] - at["0.98"], abs=0.05)


def test_contrast_is_that_of_the_wcag():
    assert compute_contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert compute_contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert compute_contrast("#FFFF00", "#FFFFFF") == pytest.approx(1.07, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["#FFFFFF", "#000000", "#E69F00", "#332288", "#777777"])
def test_every_colour_can_be_seen_on_both_papers(colour, theme):
    assert compute_contrast(fit_to_paper(colour, theme), PAPER[theme]) >= 3
