"""Draw all figures of a results directory, as PNG and PDF.

A new figure: a function of this folder that returns a Figure, or None if its data isn't stored, and a line in
FIGURES; one that shows X-rays goes into SHOWS_IMAGES too, and is never published.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from lungseg.report.contents import Contents
from lungseg.report.figures.accuracy_time import draw_accuracy_time
from lungseg.report.figures.calibration import draw_lung_area, draw_reliability
from lungseg.report.figures.comparisons import draw_ablation, draw_differences
from lungseg.report.figures.curves import draw_curves
from lungseg.report.figures.dice import draw_dice, draw_dice_violins
from lungseg.report.figures.importance import draw_importance
from lungseg.report.figures.ranks import draw_critical_difference, draw_rank_stability
from lungseg.report.figures.style import save_figure, use_house_style
from lungseg.report.figures.timing import draw_stages, draw_throughput
from lungseg.report.figures.trainings import draw_learning, draw_transfer
from lungseg.report.figures.xrays.cases import draw_cases
from lungseg.report.figures.xrays.feature_maps import draw_feature_maps
from lungseg.report.figures.xrays.pipeline import draw_pipeline
from lungseg.report.figures.xrays.samples import draw_samples
from lungseg.report.figures.xrays.stage_maps import draw_stage_maps
from lungseg.system.files import explain_write_error

# Each draws from the stored results, or returns None if these lack what it needs.
FIGURES: dict[str, Callable[[Contents], Figure | None]] = {
    "samples": draw_samples,
    "pipeline": draw_pipeline,
    "feature-maps": draw_feature_maps,
    "stage-maps": draw_stage_maps,
    "curves": draw_curves,
    "cases": draw_cases,
    "dice": draw_dice,
    "accuracy-time": draw_accuracy_time,
    "transfer": draw_transfer,
    "learning": draw_learning,
    "differences": draw_differences,
    "dice-violins": draw_dice_violins,
    "critical-difference": draw_critical_difference,
    "rank-stability": draw_rank_stability,
    "lung-area": draw_lung_area,
    "reliability": draw_reliability,
    "throughput": draw_throughput,
    "stages": draw_stages,
    "importance": draw_importance,
    "ablation": draw_ablation,
}

FIGURE_SUFFIXES = (".png", ".pdf")

# Figures that show X-rays: never published if these are of real people.
SHOWS_IMAGES = {"samples", "pipeline", "feature-maps", "stage-maps", "cases"}

# Figures with every approach, or every pair of them, in one panel: the dozens of an ablation would not fit,
# and it has a figure of its own.
OF_A_FEW = {"dice", "differences", "critical-difference", "rank-stability", "reliability"}


def draw_figures(contents: Contents) -> list[Path]:
    """Write `figures/STEM.png` and `.pdf` into the results directory; return the paths in order.

    A figure whose data isn't stored is left out, and that of an earlier report removed. The same results give
    the same bytes. Raises InputError if a stored picture is damaged, or the directory can't be written.
    """
    folder = contents.directory / "figures"
    paths: list[Path] = []
    with use_house_style():
        for stem, draw in FIGURES.items():
            skipped = contents.groups and stem in OF_A_FEW
            if not skipped and (figure := draw(contents)):
                paths += save_figure(figure, folder, stem)
            elif stem not in SHOWS_IMAGES or contents.pictures:
                _remove_figure(folder, stem)
            # Else it may be a published figure of phantoms, whose pictures are elsewhere: it stays.
    return paths


def _remove_figure(folder: Path, stem: str) -> None:
    for suffix in FIGURE_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain_write_error(path, error) from error


def list_figure_files() -> list[str]:
    """List the names of all files that a report may write into `figures`."""
    return [f"{stem}{suffix}" for stem in FIGURES for suffix in FIGURE_SUFFIXES]
