"""Say in few sentences which masks are of another size than their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.raster import read_size
from lungseg.data.sample import Sample

_ASPECT_TOLERANCE = 0.01  # of one factor over the other: what rounding to whole pixels may change


@dataclass(frozen=True)
class SizePair:
    """A mask of another size than its image: its sentence, and the factor if height and width share one."""

    id: str
    sentence: str
    factor: str | None


def measure_mismatch(sample: Sample, image: tuple[int, int], sentence: str) -> SizePair:
    """Find the factor from an image's (height, width) to that of the sample's first mask that differs."""
    masks = [read_size(path) for path in sample.mask_paths] if isinstance(sample, FileSample) else []
    for mask in masks:
        down, across = mask[0] / image[0], mask[1] / image[1]
        if mask != tuple(image):
            shared = abs(down / across - 1) <= _ASPECT_TOLERANCE
            return SizePair(sample.id, sentence, f"{across:.3g}" if shared else None)
    return SizePair(sample.id, sentence, None)


def describe_sizes(pairs: Sequence[SizePair]) -> list[str]:
    """Return a sentence for each factor that several masks share, and the others' own sentences."""
    groups: dict[str | None, list[SizePair]] = {}
    for pair in pairs:
        groups.setdefault(pair.factor, []).append(pair)
    sentences = []
    for factor, group in groups.items():
        if factor is None or len(group) == 1:
            sentences += [pair.sentence for pair in group]
        else:
            sentences.append(
                f"{len(group)} masks are of another size, all {factor} of their image's: "
                "set resize_masks = true if they are only scaled"
            )
    return sentences
