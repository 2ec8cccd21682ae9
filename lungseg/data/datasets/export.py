"""Write pictures of the phantom dataset as files, to look at them or to use them in another program."""

from __future__ import annotations

from pathlib import Path

from lungseg.data.datasets.phantom import render
from lungseg.system.files import write_grey


def write_phantoms(folder: Path, count: int, size: int, seed: int) -> None:
    """Write 8-bit PNG files folder/images/NAME.png and folder/masks/NAME.png (0 / 255) of `phantom.render`.

    Raises InputError if the folder can't be written.
    """
    for index in range(count):
        image, mask = render(seed, index, size)
        name = f"phantom-{index:04d}.png"
        write_grey(folder / "images" / name, image)
        write_grey(folder / "masks" / name, mask)
