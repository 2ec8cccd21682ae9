"""The generated blocks of a README: no number in it is typed by hand."""

from __future__ import annotations

from pathlib import Path

from lungseg.report.contents import read_contents
from lungseg.report.markup import escape_markdown
from lungseg.report.numbers.quality import main_frame
from lungseg.report.sentences import notes
from lungseg.report.tables.summary import main_section
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically


def fill_readme(readme: Path, name: str, directory: Path) -> bool:
    """Puts the main table of the results in `directory` between two marks of a README.

    The marks are `<!-- results:NAME -->` and `<!-- /results:NAME -->`; what stands between them is replaced.

    Returns:
        True if it was filled, False if the README has no such marks.

    Raises InputError if the README can't be read or only one of the marks is there, in this order.
    """
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
    write_atomically(readme, f"{before}{start}\n{readme_block(directory)}{end}{after}")
    return True


def readme_block(directory: Path) -> str:
    """The Markdown of such a block: what was compared, the main table, and how it was measured."""
    contents = read_contents(directory)
    compared = escape_markdown(notes.compared(contents))
    source = escape_markdown(" ".join(notes.provenance(contents)))
    return f"\n{compared}\n\n{main_section(contents, main_frame(contents))}\n{source}\n\n"
