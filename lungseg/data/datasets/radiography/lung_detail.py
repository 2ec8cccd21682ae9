"""The inside of the lungs: branching vessels, fine texture, disease."""

from __future__ import annotations

import numpy as np

from lungseg.data.datasets.radiography.canvas import Canvas, ellipse, segment_distance, smooth_field
from lungseg.data.datasets.radiography.patient import Lung, Patient

MAX_VESSELS = 48  # segments in one lung


def draw_vessels(canvas: Canvas, lung: Lung, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Return the blood in one lung's vessels, cm: a tree from the hilum that tapers and forks."""
    blood = canvas.zeros()
    hilum = (lung.side * 2.6 + shift, 0.47 * lung.dome - (0.8 if lung.side > 0 else 0.0))
    queue = []
    for angle in np.linspace(-1.25, 1.45, 7):
        reach = rng.uniform(0.45, 0.75)
        start = (hilum[0], hilum[1] + 1.5 * float(np.sin(angle)))
        queue.append((start, float(angle + rng.normal(0, 0.12)), float(reach), 2.0 + float(rng.random())))
    drawn = 0
    while queue and drawn < MAX_VESSELS:
        (x, y), angle, radius, length = queue.pop(0)
        end = (x + lung.side * length * float(np.cos(angle)), y + length * float(np.sin(angle)))
        add_vessel(canvas, blood, (x, y), end, radius, 0.82 * radius)
        drawn += 1
        thinner = radius * float(rng.uniform(0.70, 0.86))
        if thinner < 0.07:
            continue
        bend = float(rng.normal(0, 0.18))
        queue.append((end, angle + bend, thinner, length * 0.9))
        if rng.random() < 0.75:
            fork = float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9))
            queue.append((end, angle + fork, 0.75 * thinner, length * 0.75))
    return blood


def add_vessel(
    canvas: Canvas,
    total: np.ndarray,
    start: tuple[float, float],
    end: tuple[float, float],
    first: float,
    last: float,
) -> None:
    """Add a tapered vessel to `total`; one thinner than a pixel keeps its volume and is drawn wider."""
    low, high = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    box = canvas.window(low, high, top, bottom)
    if box[0].start == box[0].stop or box[1].start == box[1].stop:
        return
    squared, along = segment_distance(canvas.x[box], canvas.y[box], start, end)
    radius = first + (last - first) * along
    shown = np.maximum(radius, 0.75 * canvas.pixel)
    total[box] += widened_chord(squared, radius, shown)


def widened_chord(squared: np.ndarray, radius: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return a chord through a tube of `radius` spread over the width `shown`; same cross-section."""
    return 2.0 * radius * radius / (shown * shown) * np.sqrt(np.maximum(shown * shown - squared, 0.0))


def draw_texture(canvas: Canvas, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return the fine structure of the lung: a relative change of its density with mean 0."""
    fine = smooth_field(rng, canvas.size, 150)
    middle = smooth_field(rng, canvas.size, 60)
    coarse = smooth_field(rng, canvas.size, 14)
    return strength * (0.05 * fine + 0.06 * middle + 0.06 * coarse)


def draw_disease(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Return the fluid that replaces air in opacities and effusions, cm; also where there is no lung."""
    fluid = canvas.zeros()
    if patient.label == "normal":
        return fluid
    patches = 1.0 + 0.6 * smooth_field(rng, canvas.size, 24) + 0.5 * smooth_field(rng, canvas.size, 56)
    patches = np.maximum(patches, 0.0)
    for opacity in patient.opacities:
        reach = 1.7 * max(opacity.axes)
        x, y = opacity.centre
        box = canvas.window(x - reach, x + reach, y - reach, y + reach)
        share = ellipse(canvas.x[box], canvas.y[box], opacity.centre, opacity.axes, opacity.tilt)
        share = share + 0.25 * opacity.patchiness * (patches[box] - 1.0)
        shape = np.clip((1.0 + 0.5 * opacity.edge - share) * (1.0 / opacity.edge), 0.0, 1.0)
        shape = shape * shape * (3.0 - 2.0 * shape)
        grain = 1.0 - opacity.patchiness + opacity.patchiness * patches[box]
        fluid[box] += opacity.thickness * shape * grain
    for lung, height in zip(patient.lungs, patient.effusion, strict=True):
        if height > 0:
            out = canvas.x * lung.side
            surface = lung.angle - height - 0.06 * np.maximum(out - 4.0, 0.0) ** 1.5
            level = np.clip((canvas.y - surface) * 0.5, 0.0, 1.0) * (out > 0)
            fluid += 9.0 * level
    return fluid
