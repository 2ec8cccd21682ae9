"""Tables of codes in files, for more rows than fit the memory: written block by block, read memory-mapped."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, make_folder

# Bins are found from so many images and pixels of each: a quarter of a million rows at most.
SAMPLE_IMAGES, SAMPLE_PIXELS = 64, 4096


class CodeWriter:
    """A writer of a table uint8 N x F as a .npy file, block after block.

    The file appears once it is complete. The writer is used in a `with` block. A session that is cut leaves a
    file of another name, which is overwritten. Raises InputError if the disk is full or the place can't be
    written, ValueError if a block is no uint8 table with F columns or there are not N rows in all.
    """

    def __init__(self, path: Path, rows: int, columns: int) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.part")
        self._rows, self._columns, self._written = rows, columns, 0

    def __enter__(self) -> CodeWriter:
        make_folder(self._path.parent)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._rows, self._columns)}
        try:
            self._file = open(self._temporary, "wb")
            np.lib.format.write_array_header_1_0(self._file, header)
        except OSError as error:
            raise explain_write_error(self._path, error) from error
        return self

    def write(self, block: np.ndarray) -> None:
        """Append rows, uint8 n x F."""
        if block.dtype != np.uint8 or block.ndim != 2 or block.shape[1] != self._columns:
            raise ValueError(f"a block is {block.dtype} {block.shape}, not uint8 n x {self._columns}")
        self._written += len(block)
        if self._written > self._rows:
            raise ValueError(f"{self._written} rows for a table of {self._rows}")
        try:
            self._file.write(np.ascontiguousarray(block).data)
        except OSError as error:
            raise explain_write_error(self._path, error) from error

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is None:
                if self._written != self._rows:
                    raise ValueError(f"{self._written} rows for a table of {self._rows}")
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self._temporary, self._path)
        except OSError as problem:
            raise explain_write_error(self._path, problem) from problem
        finally:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def open_codes(path: Path) -> np.ndarray:
    """Open a table of codes uint8 N x F, memory-mapped and read-only. Raises InputError if it is damaged."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or damaged: encode the features again") from error
    if not isinstance(table, np.ndarray) or table.dtype != np.uint8 or table.ndim != 2:
        raise InputError(f"{path} holds no table of codes: encode the features again")
    return table
