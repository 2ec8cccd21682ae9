"""Fill the generated block of a README: no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path

from lungseg.report.contents import Contents
from lungseg.report.markup import escape_markdown
from lungseg.report.numbers.quality import collect_main_rows
from lungseg.report.sentences.images import describe_images
from lungseg.report.sentences.provenance import list_provenance
from lungseg.report.tables.main import make_main_section
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically


def fill_readme(readme: Path, contents: Contents) -> bool:
    """Put the main table of a benchmark between the two marks of a README that have its name.

    The marks are `<!-- results:NAME -->` and `<!-- /results:NAME -->`. What is between them is replaced.
    Return False if the README has no such marks.

    Raises InputError if it can't be read or written, or has only one of the marks or both in wrong order.
    """
    name = contents.run["name"]
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {readme}: {error}") from None
    if start not in text and end not in text:
        return False
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InputError(
            f"{readme} has one of the marks '{start}' and '{end}' but not both: add the other one"
        )
    write_atomically(readme, f"{before}{start}\n{_make_block(contents)}{end}{after}")
    return True


def _make_block(contents: Contents) -> str:
    """Write what was compared, the main table, and how it was measured."""
    images = escape_markdown(describe_images(contents))
    source = escape_markdown(" ".join(list_provenance(contents)))
    return f"\n{images}\n\n{make_main_section(contents, collect_main_rows(contents))}\n{source}\n\n"
