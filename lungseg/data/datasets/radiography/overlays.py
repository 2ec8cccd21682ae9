"""What covers the patient in the picture: the collimator's edge, lead letters, wires and buttons."""

from __future__ import annotations

import numpy as np

from lungseg.data.datasets.radiography.patient import Draw

GLYPHS = {
    "R": ("1110", "1001", "1001", "1110", "1100", "1010", "1001"),
    "L": ("1000", "1000", "1000", "1000", "1000", "1000", "1111"),
    "P": ("1110", "1001", "1001", "1110", "1000", "1000", "1000"),
    "A": ("0110", "1001", "1001", "1111", "1001", "1001", "1001"),
}


def collimate(picture: np.ndarray, rng: np.random.Generator, site: int) -> None:
    """Cover irregular margins, black or whitish, in place; site 0 often has wide ones."""
    draw = Draw(rng)
    size = picture.shape[0]
    place = (np.arange(size, dtype=np.float32) + 0.5) / size
    framed, tint = draw.chance(0.04), draw.uniform(0.0, 1.0)  # an unexposed frame all around
    for edge in range(4):  # left, right, top, bottom
        likely = (0.45, 0.45, 0.25, 0.55)[edge] if site == 0 else (0.25, 0.25, 0.2, 0.4)[edge]
        shown, wide = draw.chance(likely), draw.chance(0.30 if site == 0 else 0.06)
        width = draw.uniform(0.02, 0.25 if edge == 3 else 0.10) if wide else draw.uniform(0.0, 0.018)
        lean = draw.normal(0, 0.012)
        shade = draw.uniform(0.75, 1.0) if not wide and draw.chance(0.35) else draw.uniform(0.0, 0.06)
        if framed:
            shown, width, shade = True, draw.uniform(0.0, 0.08), tint
        if not shown:
            continue
        limit = width + lean * (place - 0.5)
        if edge < 2:
            across = place if edge == 0 else 1.0 - place
            covered = across[None, :] < limit[:, None]
        else:
            across = place if edge == 2 else 1.0 - place
            covered = across[:, None] < limit[None, :]
        picture[covered] = shade


def add_markers(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Write the side's letter near an upper corner, sometimes in a white box or with a second line."""
    draw = Draw(rng)
    if not draw.chance(0.85):
        return
    right = draw.chance(0.6)
    x = draw.uniform(0.04, 0.28) if right else draw.uniform(0.70, 0.94)
    y, height = draw.uniform(0.02, 0.16), draw.uniform(0.025, 0.055)
    boxed, shade = draw.chance(0.12), draw.uniform(0.8, 1.0)
    write_letters(picture, "R" if right else "L", x, y, height, shade, boxed)
    if draw.chance(0.25 if right else 0.0):  # a label at the other shoulder
        write_letters(picture, "PA", draw.uniform(0.78, 0.86), draw.uniform(0.01, 0.06), 0.045, shade, True)
    if draw.chance(0.5):
        small = 0.5 * height
        write_letters(
            picture, "PA", x + draw.uniform(-0.01, 0.05), y + 1.4 * height, small, shade, draw.chance(0.3)
        )


def add_leads(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Lay electrodes and their wires over the chest of one patient in fifteen."""
    draw = Draw(rng)
    if not draw.chance(1 / 15):
        return
    shade = draw.uniform(0.75, 1.0)
    for _ in range(int(rng.integers(1, 5))):
        x, y = draw.uniform(0.15, 0.85), draw.uniform(0.15, 0.8)
        bend_x, bend_y = draw.normal(0, 0.2), draw.uniform(0.1, 0.6)
        paint_disc(picture, x, y, 0.014, shade)
        for step in np.linspace(0, 1, 300):  # close enough that the discs join to a line
            paint_disc(picture, x + bend_x * (step + 0.3 * step**2), y + bend_y * step**1.5, 0.0022, shade)


def paint_disc(picture: np.ndarray, x: float, y: float, radius: float, shade: float) -> None:
    """Paint a disc, at least a pixel wide; lengths in sides of the picture."""
    size = picture.shape[0]
    x, y, reach = x * size, y * size, max(radius * size, 0.6)
    rows = np.arange(max(int(y - reach), 0), min(int(y + reach) + 2, size))
    columns = np.arange(max(int(x - reach), 0), min(int(x + reach) + 2, size))
    if len(rows) and len(columns):
        inside = (rows[:, None] + 0.5 - y) ** 2 + (columns[None, :] + 0.5 - x) ** 2 < reach * reach
        picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][inside] = shade


def write_letters(
    picture: np.ndarray, text: str, x: float, y: float, height: float, shade: float, boxed: bool
) -> None:
    """Write capital letters whose upper left corner is at (x, y), in sides of the picture."""
    size = picture.shape[0]
    columns = 5 * len(text) - 1
    bitmap = np.zeros((7, columns), bool)
    for place, letter in enumerate(text):
        bitmap[:, 5 * place : 5 * place + 4] = [[dot == "1" for dot in row] for row in GLYPHS[letter]]
    if boxed:
        bitmap = ~np.pad(bitmap, 1)
    dot = height / 7
    rows = np.arange(round(y * size), min(round((y + dot * bitmap.shape[0]) * size), size))
    cols = np.arange(round(x * size), min(round((x + dot * bitmap.shape[1]) * size), size))
    if not len(rows) or not len(cols):
        return
    down = np.clip(((rows + 0.5) / size - y) / dot, 0, bitmap.shape[0] - 1).astype(int)
    over = np.clip(((cols + 0.5) / size - x) / dot, 0, bitmap.shape[1] - 1).astype(int)
    lit = bitmap[np.ix_(down, over)]
    area = picture[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    area[lit] = shade
    if boxed:
        area[~lit] = 0.0
