"""Write docs/spec.md and docs/results.md: every key of a spec, and every file and column of a result.

Run `python -m benchmarks.studies.reference_pages` in the root of the repository after a key, a column or a
description has changed.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.reference_pages.results_page import make_results_page
from benchmarks.studies.reference_pages.spec_page import make_spec_page
from lungseg.system.files import write_atomically

DOCS = Path(__file__).parents[3] / "docs"
PAGES = {"spec.md": make_spec_page, "results.md": make_results_page}


def main() -> None:
    for name, make in PAGES.items():
        write_atomically(DOCS / name, make())
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
