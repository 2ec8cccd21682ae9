"""Results directory -> the tables, pictures and README block that people read. Computes no score."""

from lungseg.report.figures.all import SHOWS_IMAGES, draw_figures
from lungseg.report.tables.readme import fill_readme
from lungseg.report.tables.summary import write_tables

__all__ = ["SHOWS_IMAGES", "draw_figures", "fill_readme", "write_tables"]
