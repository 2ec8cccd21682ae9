"""The soft parts: trunk, neck, arms and breasts, lungs, heart, airways, and gas in the belly."""

from __future__ import annotations

import numpy as np

from lungseg.data.datasets.radiography.canvas import (
    Canvas,
    Curve,
    chord,
    ellipse,
    segment_distance,
    smooth_field,
)
from lungseg.data.datasets.radiography.patient import LEFT, Lung, Patient


def project_body(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Return the thickness of the body from front to back, cm; 0 in the air beside it."""
    thickness = project_trunk(canvas, patient)
    for side in (-1.0, 1.0):
        add_limb(canvas, patient, side, thickness)
    return thickness


def project_trunk(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Return neck, chest and belly, cm, as a rounded cylinder of varying width and depth."""
    lungs = patient.lungs

    def half_width(y: np.ndarray) -> np.ndarray:
        chest = np.interp(y, [2, 7, 16, 24, 34], [0.96, 1.0, 1.0, 0.97, 0.98])
        chest = chest * (max(lung.widest for lung in lungs) + patient.wall)
        collar = np.interp(
            y, [-12, -5, -1, 2, 7], [patient.neck, patient.neck, patient.neck + 1.5, patient.neck + 5, 40]
        )
        return np.minimum(chest, collar)

    def front_to_back(y: np.ndarray) -> np.ndarray:
        return patient.depth * np.interp(y, [-8, -2, 2, 10, 20, 32], [0.56, 0.60, 0.72, 0.96, 1.0, 1.03])

    across = np.abs(canvas.x) / Curve(half_width)(canvas.y)
    across *= across
    return Curve(front_to_back)(canvas.y) * np.sqrt(np.maximum(1.0 - across * np.sqrt(across), 0.0))


def add_limb(canvas: Canvas, patient: Patient, side: float, thickness: np.ndarray) -> None:
    """Add one shoulder and upper arm to `thickness`, where they are thicker than what is there."""
    joint_x, joint_y = patient.shoulder
    arm_end = (
        joint_x + 30.0 * float(np.sin(patient.arm_angle)),
        joint_y + 30.0 * float(np.cos(patient.arm_angle)),
    )
    radius = patient.arm_radius
    parts = (
        ((3.5, -5.0), (joint_x - 1.0, joint_y), 3.0, radius, 1.25),  # trapezius
        ((3.0, 5.0), (joint_x, joint_y + 0.5), radius + 1.5, radius + 0.4, 1.2),  # chest to shoulder
        ((joint_x, joint_y), arm_end, radius + 0.3, radius - 0.4, 1.0),  # arm
    )
    for start, end, first, last, flatness in parts:
        reach = max(first, last)
        low, high = sorted((side * (min(start[0], end[0]) - reach), side * (max(start[0], end[0]) + reach)))
        box = canvas.window(low, high, min(start[1], end[1]) - reach, max(start[1], end[1]) + reach)
        squared, along = segment_distance(side * canvas.x[box], canvas.y[box], start, end)
        part = flatness * chord(squared, first + (last - first) * along)
        thickness[box] = np.maximum(thickness[box], part)


def project_breasts(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Return the extra thickness of the breasts, cm: rounded below, fading upwards."""
    extra = canvas.zeros()
    if patient.breast == 0:
        return extra
    for lung in patient.lungs:
        centre = (lung.side * 0.60 * lung.widest, lung.dome - 2.5 + patient.breast_drop)
        radius = 3.4 + 0.75 * patient.breast
        box = canvas.window(
            centre[0] - 1.5 * radius, centre[0] + 1.5 * radius, centre[1] - 2.2 * radius, centre[1] + radius
        )
        off_x, off_y = (canvas.x[box] - centre[0]) / 1.3, canvas.y[box] - centre[1]
        off_y = np.where(off_y < 0, 0.5 * off_y, off_y)
        share = (off_x * off_x + off_y * off_y) * (1.0 / (radius * radius))
        extra[box] += patient.breast * np.sqrt(np.maximum(1.0 - share, 0.0))
    return extra


def draw_muscle(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return by how much muscle and fat make the wall thicker or thinner from place to place, cm."""
    return 1.2 * smooth_field(rng, canvas.size, 5) + 0.25 * smooth_field(rng, canvas.size, 16)


def measure_to_borders(canvas: Canvas, lung: Lung) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return signed distances (cm, positive in the lung) to its outer wall, inner wall and dome; and |x|."""
    out = canvas.x * lung.side
    return (lung.lateral(canvas.y) - out, out - lung.medial(canvas.y), lung.diaphragm(out) - canvas.y, out)


def project_lungs(canvas: Canvas, patient: Patient) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lung that the beam crosses (cm), the lung field as readers draw it, and the heart (bool).

    Lung also lies behind the heart and behind and below the domes. There it makes the shadow fainter but
    does not belong to the field.
    """
    path = canvas.zeros()
    mask = np.zeros(path.shape, bool)
    heart = np.zeros(path.shape, bool)
    for lung in patient.lungs:
        to_wall, to_mediastinum, to_dome, out = measure_to_borders(canvas, lung)
        beside = to_mediastinum > 0
        mask |= (to_wall > 0) & beside & (to_dome > 0)
        heart |= ~beside & (out > 0) & (to_dome > 0) & (to_dome < 0.4 * lung.dome)
        deep = measure_depth(canvas, patient, lung, out, to_wall)
        deep *= 0.6 + 0.4 * np.clip(to_mediastinum * 0.25, 0.0, 1.0)
        below = 17.0 * np.sqrt(np.clip(-to_dome * 0.16, 0.0, 1.0))
        # The mediastinum gets thinner towards its border, so that its edge shows but is not a step.
        inward = np.clip(-to_mediastinum * 0.28, 0.0, 1.0)
        middle = patient.heart.thickness * np.sqrt(inward * (2.0 - inward))
        here = np.maximum(deep - np.maximum(middle, below), 0.0)
        path += here * canvas.ramp(out, 1.0)
    return path, mask, heart


def measure_depth(
    canvas: Canvas, patient: Patient, lung: Lung, out: np.ndarray, to_wall: np.ndarray
) -> np.ndarray:
    """Return how deep one lung is from front to back in its half of the rib cage, cm."""
    # An oval cross-section, flattened at the wall so that the lung's edge shows.
    edge = np.clip(out / np.maximum(out + to_wall, 1.0), 0.0, 1.0)
    edge *= edge
    height = Curve(
        lambda y: (
            patient.lung_depth
            * np.interp((y - lung.apex[1]) / lung.dome, [0, 0.1, 0.35, 0.7], [0.30, 0.5, 0.85, 1.0])
        )
    )
    return height(canvas.y) * np.maximum(1.0 - edge * edge, 0.0) ** 0.75 * canvas.ramp(to_wall, 0.25)


def project_airways(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Return the air in the trachea and the main bronchi, cm."""
    carina_y = 0.40 * patient.right.dome
    middle = 0.7 * patient.shift
    carina = (middle - 0.3, carina_y)
    tubes = (
        ((middle * 0.5, -9.0), carina, 0.85),
        (carina, (carina[0] - 2.6, carina_y + 2.6), 0.65),
        (carina, (carina[0] + 3.6, carina_y + 2.4), 0.55),
    )
    air = canvas.zeros()
    for start, end, radius in tubes:
        low, high = sorted((start[0], end[0]))
        box = canvas.window(low - 1, high + 1, start[1], end[1] + 1)
        squared, _ = segment_distance(canvas.x[box], canvas.y[box], start, end)
        air[box] = np.maximum(air[box], 1.2 * chord(squared, radius))
    return air


def draw_belly_gas(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Return the air in the stomach under the left dome, with its fluid level, and in the bowel, cm."""
    air = canvas.zeros()
    bubbles = [(rng.uniform(-3, 9), rng.uniform(3, 10), rng.uniform(0.6, 1.8)) for _ in range(6)]
    if patient.gas == 0:
        return air
    lung = patient.left
    top = (LEFT * rng.uniform(4.0, 7.0), lung.dome + rng.uniform(2.0, 3.8))
    wide, tall, level = rng.uniform(1.6, 4.6), rng.uniform(1.2, 3.4), rng.uniform(0.2, 3.5)
    shapes = [(top, (wide, tall), level, patient.gas)]
    for x, down, radius in bubbles[: rng.integers(7)]:
        shapes.append(((x, lung.dome + down), (radius, 0.8 * radius), 9.0, 1.2 * radius))
    for centre, axes, fluid, deep in shapes:
        box = canvas.window(
            centre[0] - axes[0], centre[0] + axes[0], centre[1] - axes[1], centre[1] + axes[1]
        )
        share = ellipse(canvas.x[box], canvas.y[box], centre, axes)
        gas = float(deep) * np.sqrt(np.maximum(1.0 - share * share, 0.0))
        gas *= canvas.ramp(np.float32(centre[1] + fluid) - canvas.y[box], 0.15)
        air[box] = np.maximum(air[box], gas)
    return air
