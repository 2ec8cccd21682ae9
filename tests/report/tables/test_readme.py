"""The generated block of a README."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungseg.report.tables.readme import fill_readme
from lungseg.system.errors import InputError
from tests.report.results_directory import read_edited

BEFORE, AFTER = "# Title\n\n<!-- results:tiny -->", "<!-- /results:tiny -->\n\nThe end — with ünicode.\n"


def test_only_the_block_is_replaced_and_a_second_time_changes_nothing(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEFORE}\nold numbers\n{AFTER}", encoding="utf-8")
    assert fill_readme(readme, read_edited(results))
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(BEFORE)
    assert text.endswith(AFTER)
    assert "old numbers" not in text
    assert "**0.8900 [0.8600, 0.9200]**" in text
    for fact in ("6 images of the test part of made-up", "Some CPU", "](results/reference/tiny/summary.md)"):
        assert fact in text
    header = next(line for line in text.splitlines() if line.startswith("| Approach"))
    assert header.count("|") - 1 <= 7
    assert len(text.split("\n\n")) <= 7  # the verdict, one table and one line
    assert "/home" not in text
    assert fill_readme(readme, read_edited(results))
    assert readme.read_text(encoding="utf-8") == text


def test_without_marks_of_that_name_nothing_is_written(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:other -->\n<!-- /results:other -->\n")
    assert not fill_readme(readme, read_edited(results))
    assert readme.read_text() == "<!-- results:other -->\n<!-- /results:other -->\n"


@pytest.mark.parametrize(
    "text", ["<!-- results:tiny -->", "<!-- /results:tiny -->", "<!-- /results:tiny --><!-- results:tiny -->"]
)
def test_a_mark_alone_or_in_the_wrong_order_is_refused(results: Path, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(InputError, match="not both"):
        fill_readme(readme, read_edited(results))
    assert readme.read_text() == text


def test_a_missing_readme_is_one_sentence(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"README\.md"):
        fill_readme(tmp_path / "README.md", read_edited(results))
