"""Keep what was read of pictures, so that none is read twice: descriptions and small pictures.

Pictures are kept some hundreds a file, by the hash of the file that was read, as they are read: an
interruption loses some seconds. A pack is two files. NAME.pack has hashes and descriptions, and ends with its
own sha256. NAME.pictures has the small pictures one behind the other. It is read a picture at a time, and
each is checked by its sha256. What is damaged or missing is read anew from the samples. Where nothing can be
written, the small pictures stay in memory.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lungseg.data.audit.alignment import SIDE
from lungseg.data.audit.descriptor import DIMENSIONS, ROWS
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.stored import DIGEST_BYTES, append_digest

PACK = 512  # pictures: 18 MB
FLUSH_EVERY_S = 5.0
_MOST_SMALL = 8  # packs that are less than half full; more are joined
_HASHED, _SHOWS_TOO_LITTLE, _DESCRIBED = 0, 1, 2  # states: only hashed, not to be compared, described
_PICTURE_BYTES = SIDE * SIDE * 2

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ReadPicture:
    """What was read of one file.

    Attributes:
        pixels: hash (hex) of the decoded pixels.
        compared: False if only the pixels were hashed; the others are None then.
        small: of `prepare_picture`; None if it shows too little.
        description: of `describe_picture`; None without `small`.
    """

    pixels: str
    compared: bool
    small: np.ndarray | None = None
    description: np.ndarray | None = None


@dataclass(frozen=True)
class _Place:
    """Where a small picture is kept, and its sha256."""

    file: Path
    number: int
    digest: bytes


class KeptPictures:
    """What is known of the pictures of some files (hashes, hex); see the module."""

    def __init__(self, folder: Path | None, files: Iterable[str], compared: bool) -> None:
        """Load what is kept in the folder; `compared`: what was only hashed doesn't count."""
        self.pixels: dict[str, str] = {}  # hash of a file -> hash of its decoded pixels
        self.descriptions: dict[str, np.ndarray] = {}  # hash of decoded pixels -> of `describe_picture`
        self.uncompared: set[str] = set()  # hashes of the pixels of pictures that show too little
        self._folder, self._compared = folder, compared
        self._places: dict[str, _Place] = {}
        self._in_memory: dict[str, np.ndarray] = {}
        self._new: list[tuple[str, ReadPicture]] = []
        self._flushed_at = time.monotonic()
        if folder is not None:
            wanted = set(files)
            for pack, arrays in _open_packs(folder).items():
                self._load(pack, arrays, wanted)

    def add(self, file: str, read: ReadPicture) -> None:
        """Add what was read of a file; now and then, everything new is written."""
        self._enter(file, read.pixels, read.description)
        if read.small is not None:
            self._in_memory[read.pixels] = read.small
        self._new.append((file, read))
        if len(self._new) >= PACK or time.monotonic() - self._flushed_at >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what is new. If that fails, the small pictures stay in memory."""
        new, self._new = self._new, []
        self._flushed_at = time.monotonic()
        if self._folder is None or not new:
            return
        with suppress(InputError):  # an unwritable folder or a full disk: no cache
            smalls = [(read.pixels, read.small) for _, read in new if read.small is not None]
            path = _write_pack(
                self._folder, _to_arrays(new), b"".join(small.tobytes() for _, small in smalls)
            )
            for number, (pixels, small) in enumerate(smalls):
                self._places[pixels] = _Place(path, number, hashlib.sha256(small.tobytes()).digest())
                self._in_memory.pop(pixels, None)

    def read_small(self, pixels: str, read_anew: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a small picture by the hash of its pixels; `read_anew` if it is damaged or missing."""
        if (small := self._in_memory.get(pixels)) is not None:
            return small
        place = self._places[pixels]
        with suppress(OSError), place.file.open("rb") as file:
            file.seek(place.number * _PICTURE_BYTES)
            data = file.read(_PICTURE_BYTES)
            if hashlib.sha256(data).digest() == place.digest:
                return np.frombuffer(data, np.float16).reshape(SIDE, SIDE)
        self._in_memory[pixels] = read_anew()
        return self._in_memory[pixels]

    def _enter(self, file: str, pixels: str, description: np.ndarray | None) -> None:
        self.pixels[file] = pixels
        if description is not None:
            self.descriptions[pixels] = description
        elif self._compared:
            self.uncompared.add(pixels)

    def _load(self, pack: Path, arrays: Arrays, wanted: set[str]) -> None:
        number = -1
        for row, state in enumerate(arrays["states"].tolist()):
            number += state == _DESCRIBED
            file = arrays["files"][row].tobytes().hex()
            if file not in wanted or file in self.pixels or (self._compared and state == _HASHED):
                continue
            pixels = arrays["pixels"][row].tobytes().hex()
            if state == _DESCRIBED and self._compared:
                self._enter(file, pixels, arrays["descriptions"][number])
                digest = arrays["digests"][number].tobytes()
                self._places[pixels] = _Place(pack.with_suffix(".pictures"), number, digest)
            else:
                self._enter(file, pixels, None)


def _to_arrays(new: Sequence[tuple[str, ReadPicture]]) -> Arrays:
    described = [read for _, read in new if read.small is not None]
    return {
        "files": _from_hex([file for file, _ in new]),
        "pixels": _from_hex([read.pixels for _, read in new]),
        "states": np.array([_state_of(read) for _, read in new], np.uint8),
        "descriptions": np.array([read.description for read in described], np.float16).reshape(
            -1, ROWS, DIMENSIONS
        ),
        "digests": _from_hex([hashlib.sha256(read.small.tobytes()).hexdigest() for read in described]),
    }


def _state_of(read: ReadPicture) -> int:
    if not read.compared:
        return _HASHED
    return _SHOWS_TOO_LITTLE if read.small is None else _DESCRIBED


def _from_hex(hashes: Sequence[str]) -> np.ndarray:
    """Hashes as rows of 32 bytes."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, DIGEST_BYTES)


def _write_pack(folder: Path, arrays: Arrays, pictures: bytes) -> Path:
    """Write a pack, its pictures first, and return the path of these. Raises InputError."""
    name = hashlib.sha256(arrays["files"].tobytes() + arrays["states"].tobytes()).hexdigest()[:32]
    write_atomically(folder / f"{name}.pictures", pictures)
    write_atomically(folder / f"{name}.pack", append_digest(save(arrays)))
    return folder / f"{name}.pictures"


def _read_pack(pack: Path) -> Arrays | None:
    """Read the arrays of a pack; None if it is damaged or another process removed it."""
    with suppress(OSError, SafetensorError):
        data = pack.read_bytes()
        if append_digest(data[:-DIGEST_BYTES]) == data:
            return load(data[:-DIGEST_BYTES])
    return None


def _open_packs(folder: Path) -> dict[Path, Arrays]:
    """Read all packs that are whole. Small ones, as a picture added later makes, are joined if many."""
    read = {pack: _read_pack(pack) for pack in sorted(folder.glob("*.pack"))}
    packs = {pack: arrays for pack, arrays in read.items() if arrays is not None}
    small = [pack for pack, arrays in packs.items() if len(arrays["files"]) < PACK // 2]
    while len(small) > _MOST_SMALL:
        together: dict[Path, Arrays] = {}
        while small and sum(len(arrays["files"]) for arrays in together.values()) < PACK // 2:
            pack = small.pop()
            together[pack] = packs.pop(pack)
        packs |= _join(folder, together)
    return packs


def _join(folder: Path, packs: dict[Path, Arrays]) -> dict[Path, Arrays]:
    """Replace packs by one and return it. If anything fails, they stay as they are."""
    with suppress(OSError, InputError):
        pictures = b"".join(pack.with_suffix(".pictures").read_bytes() for pack in packs)
        first = next(iter(packs.values()))
        arrays = {name: np.concatenate([each[name] for each in packs.values()]) for name in first}
        if len(pictures) == len(arrays["digests"]) * _PICTURE_BYTES:
            written = _write_pack(folder, arrays, pictures).with_suffix(".pack")
            for pack in packs.keys() - {written}:
                pack.unlink(missing_ok=True)
                pack.with_suffix(".pictures").unlink(missing_ok=True)
            return {written: arrays}
    return packs
