"""Phantoms as PNG files: a background of pictures among which copies are planted, or a dataset with masks.

The files are made by processes of their own and stay where they are, so that they are made once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lungseg.data.datasets.phantom import render
from lungseg.data.files.file_sample import FileSample
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, write_grey

MODULE = "benchmarks.studies.data.phantom_files"
SEED, SIDE, PROCESSES = 20, 256, 2
MASKS = "masks"  # folder of the masks, in that of the images
FOLDER = Path(tempfile.gettempdir()) / "lungseg-audit-scale" / "pictures"


def make_phantom_files(count: int, folder: Path = FOLDER, masks: bool = False) -> list[FileSample]:
    """Return samples of `count` phantoms of SIDE x SIDE pixels; files that are there aren't made again.

    Args:
        count: of phantoms.
        folder: of the images.
        masks: make masks too, in a sub-folder. Without them the samples have none.

    Raises:
        InputError: a process that makes them failed.
    """
    make_folder(folder / MASKS if masks else folder)
    samples = [_sample(folder, number, masks) for number in range(count)]
    if not all(path.exists() for sample in samples for path in (sample.image_path, *sample.mask_paths)):
        command = [sys.executable, "-m", MODULE, str(count), str(folder), str(int(masks))]
        running = [subprocess.Popen([*command, str(which)]) for which in range(PROCESSES)]
        if any([process.wait() for process in running]):
            raise InputError(f"a process that makes phantoms in {folder} failed: see what it says above")
    return samples


def _sample(folder: Path, number: int, masks: bool) -> FileSample:
    name = f"phantom-{number:05d}"
    mask_paths = (folder / MASKS / f"{name}.png",) if masks else ()
    return FileSample(name, "phantom", name, "", folder / f"{name}.png", mask_paths)


def main() -> None:
    count, folder, masks, which = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1", int(sys.argv[4])
    for number in range(which, count, PROCESSES):
        sample = _sample(folder, number, masks)
        paths = sample.image_path, *sample.mask_paths
        if not all(path.exists() for path in paths):
            for path, values in zip(paths, render(SEED, number, SIDE), strict=False):
                write_grey(path, values)


if __name__ == "__main__":
    main()
