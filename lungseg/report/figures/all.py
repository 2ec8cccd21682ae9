"""All figures of a results directory, as PNG and PDF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from lungseg.report.contents import Contents, read_contents
from lungseg.report.figures.ablation import ablation
from lungseg.report.figures.calibration import lung_area, reliability
from lungseg.report.figures.comparisons import critical_difference, differences
from lungseg.report.figures.images import cases, feature_maps, samples
from lungseg.report.figures.importance import importance
from lungseg.report.figures.scores import accuracy_time, curves, dice
from lungseg.report.figures.style import house_style, save
from lungseg.report.figures.timing import stages, throughput
from lungseg.report.figures.violins import dice_violins

# Each draws from the stored results, or returns None if what it needs isn't stored.
FIGURES: dict[str, Callable[[Contents], Figure | None]] = {
    "samples": samples,
    "feature-maps": feature_maps,
    "curves": curves,
    "cases": cases,
    "dice": dice,
    "accuracy-time": accuracy_time,
    "differences": differences,
    "dice-violins": dice_violins,
    "critical-difference": critical_difference,
    "lung-area": lung_area,
    "reliability": reliability,
    "throughput": throughput,
    "stages": stages,
    "importance": importance,
    "ablation": ablation,
}

# Pictures that show X-rays: never published if those are of real people.
SHOWS_IMAGES = {"samples", "feature-maps", "cases"}

# Pictures with every approach, or every pair of them, in one panel: the dozens of an ablation, which has its
# own figure, would not fit.
OF_A_FEW = {"dice", "differences", "critical-difference", "reliability"}


def draw_figures(directory: Path) -> list[Path]:
    """Writes `figures/STEM.png` and `.pdf` of a results directory; returns the paths in order.

    A figure whose data isn't stored is left out. The same results give the same bytes.

    Raises InputError if the directory holds no results, damaged ones, or can't be written.
    """
    contents = read_contents(directory)
    paths: list[Path] = []
    with house_style():
        for stem, draw in FIGURES.items():
            if contents.groups and stem in OF_A_FEW:
                continue
            figure = draw(contents)
            if figure is not None:
                paths += save(figure, directory / "figures", stem)
    return paths
