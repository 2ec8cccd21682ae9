"""Cache which pictures were compared with each other and what was found, by their content.

It is stored while pictures are compared: an interruption loses some seconds, and a picture that is added
later is compared alone. A record lists pictures of which every two have been compared, and the pairs among
them that are alike. A cache that can't be read or written counts as missing; nothing fails because of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lungseg.data.audit.descriptor import PROJECTION
from lungseg.system.cache import find_cache_folder
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_code, hash_value
from lungseg.system.stored import DamagedError, read_record, write_record

# The code that reads and compares files.
_CODE = ("lungseg.data.audit.compare", "lungseg.data.files.images")


@dataclass(frozen=True)
class Compared:
    """Pictures of which every two have been compared, by hashes (hex) of their pixels, and what was found."""

    pictures: list[str]
    alike: list[tuple[str, str, float]]  # (picture, picture, similarity) from LOOKALIKE up

    def restrict(self, wanted: Sequence[str]) -> Compared:
        """Return what it says of these pictures, in their order."""
        known = set(self.pictures)
        kept = [picture for picture in wanted if picture in known]
        chosen = set(kept)
        return Compared(kept, [pair for pair in self.alike if pair[0] in chosen and pair[1] in chosen])


def find_audit_folder() -> Path | None:
    """Return the folder of the cache for this code; None without one. It may be missing."""
    folder = find_cache_folder("audit")
    if folder is None:
        return None
    learned = hashlib.sha256(PROJECTION.read_bytes()).hexdigest()
    return folder / hash_value([hash_code(*_CODE), learned])[:32]


def recall(folder: Path | None, wanted: Sequence[str]) -> Compared:
    """Return the stored comparison that says most about these pictures, without others."""
    best = Compared([], [])
    for path in _list_records(folder):
        found = _read(path)
        if found and len(found.pictures) > len(best.pictures):
            shared = found.restrict(wanted)
            best = max(best, shared, key=lambda each: len(each.pictures))
    return best


def store(folder: Path | None, wanted: Sequence[str], found: Compared) -> None:
    """Store what was found so far on the way to comparing all these pictures.

    Once all are compared, records that say no more than this one are removed.
    """
    if folder is None:
        return
    path = folder / f"{hash_value(sorted(wanted))[:32]}.compared.json"
    with suppress(InputError):  # an unwritable folder or a full disk: no cache
        write_record(path, {"pictures": found.pictures, "alike": found.alike})
        if len(found.pictures) == len(wanted):
            _remove_contained(folder, path, set(wanted))


def _list_records(folder: Path | None) -> list[Path]:
    return sorted(folder.glob("*.compared.json")) if folder is not None else []


def _read(path: Path) -> Compared | None:
    try:
        record = read_record(path)
    except DamagedError:
        return None
    if record is None or record.keys() != {"pictures", "alike"}:
        return None
    return Compared(record["pictures"], [tuple(pair) for pair in record["alike"]])


def _remove_contained(folder: Path, kept: Path, pictures: set[str]) -> None:
    for path in _list_records(folder):
        other = _read(path) if path != kept else None
        if other and pictures.issuperset(other.pictures):
            with suppress(OSError):
                path.unlink(missing_ok=True)
