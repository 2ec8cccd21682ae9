"""Files of fitted models: tensors written as safetensors, and one sentence for a file that can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically

# What reading a missing, cut or changed file raises.
DAMAGE = (OSError, SafetensorError, KeyError, RuntimeError, UnicodeDecodeError, InputError)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a .safetensors file, under their names.

    Raises:
        InputError: the disk is full, or the place can't be written.
    """
    host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(host))


@contextmanager
def explain_damage(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what reading a stored model raises into an InputError that names its file.

    Args:
        path: the file that is read in the `with` block.
        more: errors that mean damage besides those of DAMAGE.
    """
    try:
        yield
    except (*DAMAGE, *more) as error:
        raise InputError(f"{path} is missing or damaged: fit the approach again") from error
