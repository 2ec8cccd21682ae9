"""Draw what a prediction shows: the outline on the picture, and the lungs cut out of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from lungseg.system.files import write_atomically

COLOURS = {"yellow": "#F0E442", "blue": "#56B4E9"}  # of the first and the second model's outlines
LINES = 400  # an outline is as wide as the picture's longer side divided by this
SHOWN = (0.5, 99.5)  # percentiles of the picture that are drawn black and white


def draw_overlay(image: np.ndarray, masks: Mapping[str, np.ndarray]) -> Image.Image:
    """Draw the outlines of masks on a picture, which is stretched to its own range of grey.

    Args:
        image: float32, H x W, in [0, 1].
        masks: bool, H x W, by the names of their models; one or two. Of two, the names stand below.
    """
    low, high = np.percentile(image, SHOWN)
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(np.round(grey * 255).astype(np.uint8)[..., None], 3, axis=2)
    width = max(1, round(max(image.shape) / LINES))
    pairs = list(zip(masks.values(), COLOURS.values(), strict=False))
    for place, (mask, colour) in enumerate(pairs):
        # The first of two is wider, so that both are seen where they agree.
        picture[_find_outline(mask, width * (len(pairs) - place))] = ImageColor.getrgb(colour)
    drawn = Image.fromarray(picture)
    if len(pairs) > 1:
        _write_names(drawn, list(masks))
    return drawn


def cut_out(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Cut the lungs out of a picture: grey inside the mask, transparent outside.

    Args:
        image: float32, H x W, in [0, 1].
        mask: bool, H x W.
    """
    grey = np.where(mask, np.round(image * 255), 0).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(mask.astype(np.uint8) * 255)))


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG. Raises InputError as `write_atomically` does."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    write_atomically(path, buffer.getvalue())


def write_map(path: Path, probability: np.ndarray) -> None:
    """Write a probability map, float32 in [0, 1], as 16-bit grey PNG, where 65535 is 1."""
    write_picture(path, Image.fromarray(np.round(probability * 65535).astype(np.uint16)))


def _find_outline(mask: np.ndarray, width: int) -> np.ndarray:
    """The mask's boundary, widened to both sides."""
    edge = mask & ~binary_erosion(mask)  # the picture's border counts as outside
    return binary_dilation(edge, iterations=width // 2) if width > 1 else edge


def _write_names(drawn: Image.Image, names: list[str]) -> None:
    size = max(10, max(drawn.size) // 45)
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(drawn)
    for line, (name, colour) in enumerate(zip(reversed(names), reversed(COLOURS.values()), strict=True)):
        place = (size // 2, drawn.height - (line + 1) * round(1.4 * size))
        pen.text(place, name, fill=colour, font=font, stroke_width=max(1, size // 12), stroke_fill="black")
