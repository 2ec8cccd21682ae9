"""Pictures that are no frontal chest X-rays: photographs, scans of other kinds, drawings and patterns.

The photographs and scans come with scikit-learn, Matplotlib and pydicom. Each is cut out, mirrored and lit
differently in each draw. The kinds are in two halves: one to choose thresholds on, one to report.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cache

import numpy as np
import pydicom
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image

from lungseg.data.datasets.phantom import render

SIDE = 128  # pixels

Maker = Callable[[np.random.Generator], np.ndarray]


def _stretch(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.clip((picture - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


@cache
def _load_photograph(name: str) -> np.ndarray:
    if name == "hopper":
        picture = np.asarray(Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    else:
        picture = load_sample_image(f"{name}.jpg")
    return _stretch(picture.mean(axis=2))


@cache
def _load_dicom(name: str) -> np.ndarray:
    picture = pydicom.dcmread(get_testdata_file(name, download=False)).pixel_array.astype(np.float32)
    return _stretch(picture.mean(axis=2) if picture.ndim == 3 else picture)


@cache
def _load_brain() -> np.ndarray:
    with gzip.open(get_sample_data("s1045.ima.gz", asfileobj=False)) as file:
        return _stretch(np.frombuffer(file.read(), np.uint16).reshape(256, 256).astype(np.float32))


@cache
def _load_relief() -> np.ndarray:
    return _stretch(np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False))["elevation"])


def _vary(picture: np.ndarray, rng: np.random.Generator, least: float) -> np.ndarray:
    """Cut out at least this share of each side, mirror half of the pictures, and draw a gamma."""
    height, width = (max(8, round(side * rng.uniform(least, 1))) for side in picture.shape)
    top, left = (
        int(rng.integers(0, side - cut + 1)) for side, cut in zip(picture.shape, (height, width), strict=True)
    )
    cut = picture[top : top + height, left : left + width]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    return np.ascontiguousarray(cut ** rng.uniform(0.7, 1.4), np.float32)


def _draw(rng: np.random.Generator, paint: Callable[[ImageDraw.ImageDraw, Callable], None]) -> np.ndarray:
    """Paint in the unit square, then blur, shift and add noise, as in a radiograph."""
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE), int(rng.integers(0, 40)))
    place = rng.normal(0, 0.03, 2) * 2 * SIDE
    scale = rng.uniform(0.85, 1.1) * 2 * SIDE

    def at(*numbers: float) -> list[float]:
        return [number * scale + place[i % 2] for i, number in enumerate(numbers)]

    paint(ImageDraw.Draw(canvas), at)
    picture = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(1.5, 3))
    return np.clip(picture + rng.normal(0, 0.02, picture.shape), 0, 1).astype(np.float32)


def _draw_hand(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.ellipse(at(0.25, 0.45, 0.75, 0.95), fill=110)
        draw.rectangle(at(0.36, 0.85, 0.64, 1.1), fill=110)
        for tip in (0.2, 0.38, 0.52, 0.66, 0.85):
            top = rng.uniform(0.05, 0.15) + (0.25 if tip in (0.2, 0.85) else 0)
            for width, grey in ((32, 110), (12, 220)):
                draw.line(at(0.5 + (tip - 0.5) * 0.6, 0.75, tip, top), fill=grey, width=width)

    return _draw(rng, paint)


def _draw_skull(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.ellipse(at(0.18, 0.08, 0.82, 0.8), fill=220)
        draw.ellipse(at(0.22, 0.12, 0.78, 0.76), fill=150)
        draw.rectangle(at(0.33, 0.7, 0.67, 0.95), fill=190)
        draw.ellipse(at(0.3, 0.42, 0.45, 0.56), fill=80)
        draw.ellipse(at(0.55, 0.42, 0.7, 0.56), fill=80)
        draw.polygon(at(0.5, 0.54, 0.44, 0.68, 0.56, 0.68), fill=70)
        for row in np.arange(0.74, 0.9, 0.05):
            draw.line(at(0.36, row, 0.64, row), fill=240, width=3)

    return _draw(rng, paint)


def _draw_knee(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.rectangle(at(0.22, -0.1, 0.78, 1.2), fill=90)
        draw.rectangle(at(0.4, -0.1, 0.6, 0.35), fill=190)
        draw.ellipse(at(0.28, 0.28, 0.72, 0.5), fill=200)
        draw.ellipse(at(0.29, 0.53, 0.71, 0.68), fill=200)
        draw.rectangle(at(0.4, 0.6, 0.58, 1.2), fill=185)
        draw.line(at(0.7, 0.62, 0.68, 1.2), fill=170, width=12)

    return _draw(rng, paint)


def _draw_pelvis(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.rectangle(at(0.05, -0.1, 0.95, 1.2), fill=110)
        draw.rectangle(at(0.44, -0.1, 0.56, 0.4), fill=200)
        for side in (-1, 1):
            outer, inner = sorted((0.5 + side * 0.36, 0.5 + side * 0.06))
            draw.ellipse(at(outer, 0.15, inner, 0.6), fill=185)
            hole = sorted((0.5 + side * 0.2, 0.5 + side * 0.08))
            draw.ellipse(at(hole[0], 0.62, hole[1], 0.76), outline=190, width=10)
            draw.line(at(0.5 + side * 0.22, 0.58, 0.5 + side * 0.34, 0.72), fill=210, width=34)
            draw.line(at(0.5 + side * 0.34, 0.68, 0.5 + side * 0.3, 1.2), fill=200, width=30)

    return _draw(rng, paint)


def _draw_spine(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.rectangle(at(0.1, -0.1, 0.9, 1.2), fill=90)
        for number, top in enumerate(np.arange(-0.05, 1.1, 0.15)):
            middle = 0.5 + 0.08 * np.sin(number)
            draw.rectangle(at(middle - 0.13, top, middle + 0.13, top + 0.11), fill=190)
            draw.line(at(middle + 0.13, top + 0.05, middle + 0.3, top + 0.12), fill=160, width=10)

    return _draw(rng, paint)


def _draw_lateral(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        draw.ellipse(at(0.15, 0.0, 0.85, 1.3), fill=150)
        draw.polygon(at(0.3, 0.25, 0.55, 0.1, 0.7, 0.3, 0.75, 0.85, 0.5, 0.7, 0.28, 0.72), fill=60)
        draw.ellipse(at(0.28, 0.45, 0.55, 0.75), fill=170)
        draw.line(at(0.66, 0.0, 0.76, 0.5, 0.7, 1.1), fill=210, width=26)

    picture = _draw(rng, paint)
    return picture[:, ::-1].copy() if rng.random() < 0.5 else picture


def _draw_text(rng: np.random.Generator) -> np.ndarray:
    canvas, font = (
        Image.new("L", (2 * SIDE, 2 * SIDE), 255),
        ImageFont.load_default(int(rng.integers(10, 26))),
    )
    draw, step = ImageDraw.Draw(canvas), int(font.size * 1.3)
    for row in range(10, 2 * SIDE - step, step):
        words = ["".join(rng.choice(list("abcdeinorstu"), rng.integers(2, 9))) for _ in range(8)]
        draw.text((10, row), " ".join(words), fill=0, font=font)
    return np.asarray(canvas, np.float32) / 255


def _draw_chart(rng: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE), 255)
    draw, columns = ImageDraw.Draw(canvas), np.linspace(30, 240, 12)
    draw.line([(30, 15), (30, 230), (240, 230)], fill=0, width=2)
    for _ in range(int(rng.integers(1, 4))):
        rows = 120 + np.cumsum(rng.normal(0, 25, len(columns)))
        draw.line(list(zip(columns.tolist(), rows.tolist(), strict=True)), fill=60, width=3)
    return np.asarray(canvas, np.float32) / 255


def _draw_noise(rng: np.random.Generator) -> np.ndarray:
    return _stretch(gaussian_filter(rng.random((SIDE, SIDE)), rng.uniform(0, 6)))


def _draw_blobs(rng: np.random.Generator) -> np.ndarray:
    def paint(draw: ImageDraw.ImageDraw, at: Callable) -> None:
        for _ in range(int(rng.integers(6, 25))):
            x, y, wide, high = rng.uniform((0, 0, 0.05, 0.05), (1, 1, 0.3, 0.3))
            draw.ellipse(at(x - wide, y - high, x + wide, y + high), fill=int(rng.integers(0, 256)))

    return _draw(rng, paint)


def _draw_board(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] + rng.integers(0, SIDE, (2, 1, 1))
    size = int(rng.integers(6, 40))
    return ((rows // size + columns // size) % 2).astype(np.float32)


def _draw_rings(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - rng.uniform(0, SIDE, (2, 1, 1))
    return (0.5 + 0.5 * np.sin(np.hypot(rows, columns) / rng.uniform(1.5, 8))).astype(np.float32)


def _draw_ramp(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle = rng.uniform(0, 2 * np.pi)
    return _stretch(np.cos(angle) * rows + np.sin(angle) * columns + rng.normal(0, 2, (SIDE, SIDE)))


def _draw_mask(rng: np.random.Generator) -> np.ndarray:
    return render(7, int(rng.integers(10**6)), SIDE)[1].astype(np.float32)


def _photograph(name: str, least: float) -> Maker:
    return lambda rng: _vary(_load_photograph(name), rng, least)


def _dicom(*names: str) -> Maker:
    return lambda rng: _vary(_load_dicom(str(rng.choice(names))), rng, 0.75)


CHOSEN_ON: dict[str, Maker] = {
    "photograph of a temple": _photograph("china", 0.4),
    "portrait": _photograph("hopper", 0.6),
    "CT slice": _dicom("CT_small.dcm"),
    "bone scintigraphy": _dicom("JPEG2000.dcm"),
    "ultrasound, one vendor": _dicom("examples_rgb_color.dcm", "examples_jpeg2k.dcm"),
    "hand, drawn": _draw_hand,
    "lateral chest, drawn": _draw_lateral,
    "page of text": _draw_text,
    "noise, smooth or not": _draw_noise,
    "chessboard": _draw_board,
    "lung mask": _draw_mask,
    "MR of an abdomen": _dicom("examples_overlay.dcm"),
    "knee, drawn": _draw_knee,
}
REPORTED: dict[str, Maker] = {
    "photograph of a flower": _photograph("flower", 0.4),
    "MR of a head": lambda rng: _vary(_load_brain(), rng, 0.75),
    "MR slice, small": _dicom("MR_small.dcm"),
    "ultrasound, another": _dicom("examples_palette.dcm"),
    "relief of a landscape": lambda rng: _vary(_load_relief(), rng, 0.4),
    "skull, drawn": _draw_skull,
    "pelvis, drawn": _draw_pelvis,
    "spine, drawn": _draw_spine,
    "chart": _draw_chart,
    "ellipses": _draw_blobs,
    "rings": _draw_rings,
    "brightness ramp": _draw_ramp,
}
