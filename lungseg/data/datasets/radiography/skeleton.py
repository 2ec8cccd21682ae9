"""The bones: ribs, spine, clavicles, shoulder blades and upper arms, as cm of cortical bone."""

from __future__ import annotations

import numpy as np

from lungseg.data.datasets.radiography.canvas import Canvas, Curve, chord, ellipse, segment_distance
from lungseg.data.datasets.radiography.patient import Lung, Patient

RIBS = 10


def draw_bones(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Return the path through all bones, cm of cortical bone, float32, size x size."""
    total = draw_spine(canvas, patient, rng)
    for lung in patient.lungs:
        add_ribs(canvas, patient, lung, rng, total)
        add_clavicle(canvas, patient, lung.side, rng, total)
        add_shoulder_blade(canvas, patient, lung, rng, total)
        add_upper_arm(canvas, patient, lung.side, total)
    return total * patient.bone


def add_ribs(
    canvas: Canvas, patient: Patient, lung: Lung, rng: np.random.Generator, total: np.ndarray
) -> None:
    """Add one side's ribs to `total`.

    A rib lies in a plane, so its shadow is part of a sheared ellipse. The upper half is the part at the back,
    the lower half the part in front, which ends in cartilage.
    """
    slope = patient.rib_slope + float(rng.normal(0, 0.02))
    first = float(rng.normal(-1.2, 0.4))
    for number in range(RIBS):
        root = first + patient.rib_spacing * number * (0.86 + 0.014 * number) + float(rng.normal(0, 0.12))
        rise = 1.9 + 0.42 * min(number, 7) + float(rng.normal(0, 0.15))
        inner = 1.4
        wall_y = root + rise + slope * 10.0
        reach = float(lung.lateral(np.float32(max(wall_y, lung.apex[1] + 0.8)))) + 0.25 - inner
        half_height = 0.72 + 0.05 * min(number, 4) + float(rng.normal(0, 0.04))
        front_end = inner + float(rng.uniform(2.8, 4.2)) + 0.35 * number
        box_x = sorted((lung.side * 0.5, lung.side * (inner + reach + 1.5)))
        box = canvas.window(*box_x, root - 1.5, root + 2 * rise + max(slope, 0) * reach + 1.5)
        out = canvas.x[box] * lung.side - inner
        off = canvas.y[box] - (root + rise) - slope * out
        u, v = out * (1.0 / reach), off * (1.0 / rise)
        radial = np.sqrt(u * u + v * v) + 1e-3
        slope_x = u * (1.0 / reach) - v * (slope / rise)
        slope_y = v * (1.0 / rise)
        distance = (radial - 1.0) * radial / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1e-6)
        squared = distance * distance
        outer = chord(squared, half_height)
        marrow = chord(squared, half_height - 0.13)
        thickness = 0.72 * outer - 0.46 * marrow
        behind = off < 0
        in_front = (0.6, 0.3, 0.1)[max(number - 7, 0)]
        thickness *= np.where(
            behind, canvas.ramp(out - 0.3, 0.8), in_front * canvas.ramp(out + inner - front_end, 1.6)
        )
        total[box] += thickness


def draw_spine(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Return the vertebral column: bodies, paler discs, pedicles and spinous processes."""
    bend, phase = float(rng.normal(0, 0.35)), float(rng.uniform(0, 6.28))
    pitch, start = float(rng.normal(2.15, 0.12)), float(rng.uniform(0, 2))

    def level(y: np.ndarray) -> np.ndarray:
        """0 in the middle of a body, 1 in the middle of a disc; bodies grow taller downwards."""
        turns = (y + start + 0.006 * np.clip(y, -10, 40) ** 2 * -1) / pitch
        return 0.5 - 0.5 * np.cos(2 * np.pi * turns)

    def body_width(y: np.ndarray) -> np.ndarray:
        return np.interp(y, [-10, 0, 10, 30], [1.35, 1.5, 1.6, 2.1]) * (1 - 0.10 * (1 - level(y)))

    def density(y: np.ndarray) -> np.ndarray:
        disc = np.clip((level(y) - 0.78) / 0.12, 0, 1)
        return np.interp(y, [-10, 5, 30], [0.9, 1.15, 1.6]) * (1 - 0.5 * disc) + 0.25 * np.exp(
            -(((level(y) - 0.72) / 0.1) ** 2)
        )

    def pedicle(y: np.ndarray) -> np.ndarray:
        return np.exp(-(((level(y) - 0.15) / 0.22) ** 2))

    middle = Curve(lambda y: bend * np.sin(y / 9.0 + phase))
    off = np.abs(canvas.x - middle(canvas.y))
    width = Curve(body_width)(canvas.y)
    share = off / width
    column = Curve(density)(canvas.y) * np.sqrt(np.maximum(1.0 - share**4, 0.0)) * 0.62
    dots = Curve(pedicle)(canvas.y)
    column += dots * (
        0.35 * np.exp(-(((off - 0.62 * width) * 3.0) ** 2)) + 0.35 * np.exp(-((off * 3.2) ** 2))
    )
    wing = np.clip(1.0 - (off - width) * 0.7, 0.0, 1.0) * (off > width) * dots
    return column + 0.22 * wing


def add_clavicle(
    canvas: Canvas, patient: Patient, side: float, rng: np.random.Generator, total: np.ndarray
) -> None:
    """Add one collar bone, a slender S from the breastbone to the shoulder."""
    joint_x, joint_y = patient.shoulder
    start_y = float(rng.normal(3.6, 0.9))
    end_x, end_y = joint_x - 1.0, joint_y - 3.4 + float(rng.normal(0, 0.8))
    start_x = 1.9 + side * 0.8 * patient.shift
    swing = float(rng.normal(0.9, 0.3))
    box_x = sorted((side * 0.5, side * (end_x + 1)))
    box = canvas.window(*box_x, min(start_y, end_y) - 2.5, max(start_y, end_y) + 2.5)
    along = (canvas.x[box] * side - start_x) * (1.0 / (end_x - start_x))
    inside = np.clip(along, 0.0, 1.0)
    centre = start_y + (end_y - start_y) * inside + swing * np.sin(2 * np.pi * inside) * (1.0 - 0.4 * inside)
    beyond = (along - inside) * (end_x - start_x)
    lean = (end_y - start_y) / (end_x - start_x) + swing * 4.0 / (end_x - start_x)
    across = (canvas.y[box] - centre) * (1.0 / float(np.sqrt(1 + lean * lean)))
    squared = across * across + beyond * beyond
    radius = 0.62 + 0.25 * np.abs(inside - 0.45)
    total[box] += 0.85 * chord(squared, radius) - 0.55 * chord(squared, radius - 0.16)


def add_shoulder_blade(
    canvas: Canvas, patient: Patient, lung: Lung, rng: np.random.Generator, total: np.ndarray
) -> None:
    """Add one shoulder blade: a thin plate with thick edges, its spine, and the socket."""
    joint_x, joint_y = patient.shoulder
    joint = (joint_x - 2.2, joint_y + 0.3)
    upper = (min(0.62 * lung.widest + patient.scapula * 1.3, joint[0] - 3), joint_y - 0.2)
    tip = (0.90 * lung.widest + patient.scapula, joint_y + 11.5 + float(rng.normal(0, 1)))
    box_x = sorted((lung.side * (upper[0] - 1), lung.side * (max(joint[0], tip[0]) + 2)))
    box = canvas.window(*box_x, joint_y - 3, tip[1] + 1)
    x, y = canvas.x[box] * lung.side, canvas.y[box]
    plate = np.full_like(x, np.inf)
    edges = ((upper, joint, 0.35), (joint, tip, 0.42), (tip, upper, 0.22))
    for start, end, radius in edges:
        step_x, step_y = end[0] - start[0], end[1] - start[1]
        signed = ((x - start[0]) * -step_y + (y - start[1]) * step_x) / float(np.hypot(step_x, step_y))
        plate = np.minimum(plate, signed)
        squared, _ = segment_distance(x, y, start, end)
        total[box] += 0.45 * chord(squared, radius)
    total[box] += 0.2 * canvas.ramp(plate, 0.3)
    ridge, _ = segment_distance(x, y, (upper[0] + 0.5, joint_y + 2.0), (joint_x - 0.4, joint_y - 2.6))
    total[box] += 0.3 * chord(ridge, 0.55)
    socket = ellipse(x, y, joint, (0.9, 1.9), 0.15)
    total[box] += 0.5 * np.sqrt(np.maximum(1.0 - socket * socket, 0.0))


def add_upper_arm(canvas: Canvas, patient: Patient, side: float, total: np.ndarray) -> None:
    """Add the head and shaft of one humerus."""
    x, y = patient.shoulder
    end = (x + 0.8 + 24.0 * float(np.sin(patient.arm_angle)), y + 24.0 * float(np.cos(patient.arm_angle)))
    box_x = sorted((side * (x - 3), side * (end[0] + 3)))
    box = canvas.window(*box_x, y - 3, end[1] + 1)
    off_x, off_y = canvas.x[box] * side, canvas.y[box]
    squared, along = segment_distance(off_x, off_y, (x + 0.8, y), end)
    radius = 1.15 + 0.9 * np.maximum(1.0 - 5.0 * along, 0.0)
    shaft = chord(squared, radius)
    hollow = chord(squared, radius - 0.35)
    total[box] += 0.45 * shaft - 0.32 * hollow
    head = (off_x - x - 0.2) ** 2 + (off_y - y + 0.3) ** 2
    total[box] += 0.16 * chord(head, 2.3) - 0.02 * chord(head, 2.1)
