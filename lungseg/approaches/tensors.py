"""Tensors as files: safetensors, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from lungseg.storage import write_atomically


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a .safetensors file. Raises InputError if the disk is full or the place can't be written."""
    host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(host))
