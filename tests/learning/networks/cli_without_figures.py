"""The command line, but it draws no figures, which would take most of the time."""

from lungseg.cli import main
from lungseg.report import write

write.draw_figures = lambda contents: []
main()
