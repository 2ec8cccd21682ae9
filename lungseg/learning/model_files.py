"""Files of fitted models: tensors written as safetensors, and one sentence for a file that can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.files import write_atomically

# What reading a missing, cut or changed file raises.
DAMAGE = (OSError, SafetensorError, KeyError, RuntimeError, UnicodeDecodeError, InputError)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file. Raises InputError if the disk is full or the place can't be written."""
    write_atomically(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


@contextmanager
def explain_damage(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn errors of reading a stored model (DAMAGE and `more`) into an InputError that names its file.

    A full memory says nothing of the file, and stays the error that it is.
    """
    try:
        yield
    except (*DAMAGE, *more) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path} is missing or damaged: run its benchmark again, which fits anew") from error
