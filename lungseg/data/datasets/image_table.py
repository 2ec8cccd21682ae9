"""A CSV with what is known of each image of a folder: patient, source, label and pixel spacing."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lungseg.data.files.matching import normalise_name
from lungseg.system.errors import InputError
from lungseg.system.plugins import suggest

COLUMNS = ("image", "patient", "source", "label", "spacing_mm")
LARGEST_SPACING = 100.0  # mm


@dataclass(frozen=True)
class ImageTable:
    """The rows of a table, by the name of the image's file, with or without its ending; texts are in NFC."""

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def require_no_other(self, keys: Collection[str], column: str, key: str) -> None:
        """Raise InputError if the spec sets a key that says the same as a column of the table."""
        if key in keys and column in self.columns:
            raise InputError(
                f"{self.path} has the column {column} and the spec sets {key}: remove one of the two"
            )

    def find_row(self, image: Path, name: str) -> Mapping[str, str]:
        """Return the row of an image. Raises InputError if it has none, or several.

        `name` is the image's name for its mask, with the sub-folder, as in "north/p1". A row that has the
        sub-folder too is preferred to one without.
        """
        folder = "".join(name.rpartition("/")[:2])
        file, stem = normalise_name(image.name), normalise_name(image.stem)
        for names in ((folder + file, folder + stem, name), (file, stem)):
            found = [each for each in dict.fromkeys(names) if each in self.rows]
            if len(found) > 1:
                raise InputError(f"{self.path} has two rows for the image {folder + file}: remove one")
            if found:
                return self.rows[found[0]]
        raise InputError(f"{self.path} has no row for the image {folder + file}: add one")

    def require_own_rows(self, images: Iterable[tuple[Path, str]]) -> None:
        """Raise InputError if two images, each with its name as in `find_row`, have one row."""
        taken: dict[str, str] = {}
        for image, name in images:
            row = self.find_row(image, name)["image"]
            if row in taken:
                below = name if "/" in name else taken[row]
                raise InputError(
                    f"{self.path}: the row {row} fits {taken[row]} and {name}: write the sub-folder too, "
                    f"as in {below}"
                )
            taken[row] = name

    def parse_spacing(self, row: Mapping[str, str]) -> tuple[float, float] | None:
        """Return the (vertical, horizontal) spacing of a row in mm, None for an empty cell.

        Raises InputError for anything but one or two numbers in (0, 100].
        """
        text = row["spacing_mm"]
        try:
            numbers = [float(word) for word in text.split()]
        except ValueError:
            numbers = [0.0]
        if not numbers:
            return None
        if len(numbers) > 2 or not all(0 < number <= LARGEST_SPACING for number in numbers):
            raise InputError(
                f"{self.path}: spacing_mm of {row['image']} is {text!r}: give a number in mm, such as 0.2, "
                "or two for vertical and horizontal, such as 0.2 0.18"
            )
        return numbers[0], numbers[-1]


def read_image_table(path: Path) -> ImageTable:
    """Read a CSV with the column `image` and any other of `COLUMNS`; its cells stay texts.

    Raises InputError for a file that is missing or no CSV, a column that is nearly one of `COLUMNS`, an empty
    cell in `image`, `patient` or `source`, and two rows of one name.
    """
    lines = _read_lines(path)
    if not lines:
        raise InputError(f"{path} is empty: its first line names the columns, such as image,patient")
    columns = tuple(lines[0][1])
    _require_columns(columns, path)
    rows: dict[str, dict[str, str]] = {}
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise InputError(f"{path}: line {number} has {len(cells)} cells, the first line {len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        for column in ("image", "patient", "source"):
            if row.get(column) == "":
                raise InputError(f"{path}: line {number} has an empty cell in {column}: fill it in")
        if row["image"] in rows:
            raise InputError(f"{path} has two rows for the image {row['image']}: remove one")
        rows[row["image"]] = row
    return ImageTable(path, columns, rows)


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that aren't blank, each with its number."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [
            (reader.line_num, [normalise_name(cell.strip()) for cell in cells])
            for cells in reader
            if any(cells)
        ]
    except FileNotFoundError:
        raise InputError(f"the table {path} doesn't exist: check the path") from None
    except OSError as error:
        raise InputError(f"the table {path} can't be read ({error.strerror}): check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"the table {path} is not UTF-8 text: save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"the table {path} is no CSV ({error}): save it as CSV with commas") from None


def _require_columns(columns: tuple[str, ...], path: Path) -> None:
    for column in columns:
        # Lists of patients have columns of their own, which are left alone. A misspelt one isn't.
        if column not in COLUMNS and get_close_matches(column, COLUMNS, cutoff=0.8):
            known = suggest(column, COLUMNS, "; the known columns are")
            raise InputError(f"{path}: unknown column {column!r}{known} {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise InputError(f"{path} has the column {column} twice: remove one")
    if "image" not in columns:
        raise InputError(f"{path} lacks the column image, the name of each file: separate columns by commas")
