"""The tour runs from its first cell to its last, and its text is short."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
WORDS = 250  # of its text
# Of what it trains: all cells and keys are the printed ones, the numbers are smaller.
SMALLER = {"size = 96": "size = 48", "epochs = 6": "epochs = 2"}


def sources(kind):
    cells = json.loads(TOUR.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.usefixtures("without_figures", "short_backbone")
def test_the_tour_runs_and_ends_with_a_verdict(capsys, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    names = {"__name__": "tour"}
    code = "\n".join(sources("code"))
    assert all(code.count(number) == 1 for number in SMALLER)
    for source in sources("code"):
        for number, smaller in SMALLER.items():
            source = source.replace(number, smaller)
        exec(compile(source, str(TOUR), "exec"), names)
    assert len(plt.get_fignums()) == 3
    plt.close("all")
    printed = capsys.readouterr().out
    assert "A · Pixels + context" in printed
    assert "mean Dice" in printed
    assert names["dice"]["vgg19-context"] > names["dice"]["mean-mask"]


def test_its_text_is_short():
    assert sum(len(text.split()) for text in sources("markdown")) <= WORDS
