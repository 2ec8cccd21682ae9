"""The tour runs from its first cell to its last, and its text is short."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
WORDS = 250  # of its text


def sources(kind):
    cells = json.loads(TOUR.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.usefixtures("without_figures")
def test_the_tour_runs_and_ends_with_a_verdict(capsys, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    names = {"__name__": "tour"}
    for source in sources("code"):
        exec(compile(source, str(TOUR), "exec"), names)
    assert len(plt.get_fignums()) == 3
    plt.close("all")
    printed = capsys.readouterr().out
    assert "A · Pixels + context" in printed
    assert "mean Dice" in printed
    assert names["dice"]["vgg19-context"] > names["dice"]["mean-mask"]


def test_its_text_is_short():
    assert sum(len(text.split()) for text in sources("markdown")) <= WORDS
