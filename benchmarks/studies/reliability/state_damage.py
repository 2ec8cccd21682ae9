"""Damages the files of a results directory, one in each state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = (".csv", ".json", ".md", ".tex", ".txt")
OTHER_TYPES = (None, True, 0, -1, 1e9, "text", [], {}, ["a"], {"a": 1})
Damage = Callable[[Path, list[Path], np.random.Generator], None]


def list_files(directory: Path, kind: str) -> list[Path]:
    """List the files that a kind of damage can be done to, in a fixed order."""
    suffixes = {
        "row of a table dropped": (".csv",),
        "digit edited": TEXTS,
        "JSON value of another type": (".json",),
    }
    wanted = suffixes.get(kind)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path for path in files if wanted is None or path.suffix in wanted]


def draw_file(directory: Path, kind: str, rng: np.random.Generator) -> tuple[Path, list[Path]]:
    """Draw a file, each sort of file as likely as the others; return it with those of its sort."""
    sorts: dict[str, list[Path]] = {}
    for path in list_files(directory, kind):
        sorts.setdefault(_find_sort(path, directory), []).append(path)
    group = sorts[sorted(sorts)[rng.integers(len(sorts))]]
    return group[rng.integers(len(group))], group


def _find_sort(path: Path, directory: Path) -> str:
    """Tables of the whole run are of another sort than those of a trial; pictures go by their folder."""
    place = path.relative_to(directory).parts
    if path.suffix in (".png", ".pdf", ".npz"):
        return "/".join(place[:2]) if place[0] == "predictions" else f"{place[0]}/*{path.suffix}"
    return f"{place[0]}/{path.name}" if len(place) > 1 else path.name


def _keep(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    """Nothing is damaged."""


def _delete(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    path.unlink()


def _cut(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(max(len(data), 1)))])


def _flip(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def _empty(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def _exchange(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    """Put another file of its sort, or else of its suffix, in the file's place."""
    others = [other for other in alike if other != path and other.read_bytes() != path.read_bytes()]
    if not others:
        near = sorted(path.parent.glob(f"*{path.suffix}"))
        others = [other for other in near if other.is_file() and other != path]
    if others:
        shutil.copyfile(others[rng.integers(len(others))], path)


def _drop_row(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[rng.integers(len(lines))]
    path.write_bytes(b"".join(lines))


def _edit_digit(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if digits:
        at = digits[rng.integers(len(digits))]
        data[at] = 48 + (data[at] - 48 + int(rng.integers(1, 10))) % 10
    path.write_bytes(data)


def _change_json(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    value = json.loads(path.read_bytes())
    places = _list_places(value)
    table, key = places[rng.integers(len(places))]
    table[key] = OTHER_TYPES[rng.integers(len(OTHER_TYPES))]
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _list_places(value: Any) -> list[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in entries:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _list_places(inner)
    return found


def _leave_part(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    """Leave what a kill leaves of a file that was being written."""
    data = path.read_bytes()
    path.with_name(f".{path.name}.{rng.bytes(4).hex()}.part").write_bytes(data[: len(data) // 2])


def _make_folder(path: Path, alike: list[Path], rng: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "note.txt").write_text("mine")


DAMAGES: dict[str, Damage] = {
    "untouched": _keep,
    "deleted": _delete,
    "cut": _cut,
    "bit flipped": _flip,
    "emptied": _empty,
    "exchanged for another": _exchange,
    "row of a table dropped": _drop_row,
    "digit edited": _edit_digit,
    "JSON value of another type": _change_json,
    "unfinished file beside it": _leave_part,
    "folder in its place": _make_folder,
}
