"""The figures of the synthetic results, drawn once for all tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lungseg.report.contents import read_contents
from lungseg.report.figures.all import FIGURES
from lungseg.report.figures.style import lay_out_figure, use_house_style


@pytest.fixture(scope="session")
def drawn(written: Path) -> dict[str, Figure]:
    """Each figure that can be drawn, laid out; not to be changed."""
    contents = read_contents(written)
    with use_house_style():
        found = {stem: figure for stem, draw in FIGURES.items() if (figure := draw(contents))}
        for figure in found.values():
            lay_out_figure(figure)
    return found
