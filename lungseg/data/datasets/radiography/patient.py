"""The parameters of one patient's chest, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator

from lungseg.data.datasets.radiography.canvas import Curve

RIGHT, LEFT = -1.0, 1.0  # the patient's sides as signs of x: the patient's right is on the picture's left


class Draw:
    """Random numbers as Python floats, so that arithmetic with float32 pictures stays float32."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def normal(self, mean: float, deviation: float, low: float = -np.inf, high: float = np.inf) -> float:
        """Draw from a normal distribution; values outside [low, high] become the limit."""
        return float(np.clip(self.rng.normal(mean, deviation), low, high))

    def uniform(self, low: float, high: float) -> float:
        """Draw from a uniform distribution."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def sign(self) -> float:
        """Return LEFT or RIGHT, each with probability 0.5."""
        return LEFT if self.chance(0.5) else RIGHT


@dataclass
class Lung:
    """The outline of one lung; every x is a distance from the midline, so both sides have the same form."""

    side: float  # LEFT or RIGHT
    apex: tuple[float, float]  # x and y
    widest: float  # x of the chest wall where it is widest
    dome: float  # y of the diaphragm's top
    angle: float  # y of the costophrenic angle
    lateral: Curve  # x of the outer wall by y
    medial: Curve  # x of the inner wall by y
    diaphragm: Curve  # y by x


@dataclass
class Heart:
    """Heart and great vessels; lengths in half widths of the chest, if not said otherwise."""

    right: float  # how far the heart reaches from the midline
    left: float
    lift: float  # how much higher it lies than usual, in heights of the lung
    knob: float  # how far the aortic arch stands out on the left
    knob_at: float  # at which height of the lung
    waist: float  # how much the left border bulges out between arch and heart
    shift: float  # of all these towards the patient's left
    thickness: float  # from front to back, cm

    def edge(self, side: float) -> tuple[list[float], list[float]]:
        """Return heights, as shares of the lung's, and the border's distances from the midline there."""
        if side == RIGHT:
            at = [0.18, 0.26, 0.42 - self.lift, 0.58 - self.lift, 0.76 - self.lift, 0.95, 1.4]
            bulge = [0.30, 0.75, 1.0, 0.95, 0.85]
            return at, [0.13, 0.13 + 0.01, *(0.13 + (self.right - 0.13) * share for share in bulge)]
        at = [0.15, 0.185, self.knob_at, self.knob_at + 0.06, 0.40, 0.50 - self.lift, 0.60 - self.lift]
        at += [0.72 - self.lift, 0.84 - self.lift, 1.0, 1.4]
        top = 0.125
        reach = self.left - top
        share = [0.34, 0.48, 0.72, 0.92, 1.0, 0.96, 0.85]
        border = [top, top + 0.4 * self.knob, top + 0.03 + self.knob, top + 0.02 + 0.7 * self.knob]
        border += [top + reach * part for part in share]
        for place, part in ((4, 1.0), (5, 1.0), (6, 0.5)):
            border[place] += part * self.waist
        return at, border


@dataclass
class Opacity:
    """The shadow of a disease: `thickness` cm of water-like tissue within an ellipse."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    tilt: float
    thickness: float
    patchiness: float
    edge: float


@dataclass
class Patient:
    """One chest. Lengths in cm; `depth` is the trunk's from front to back."""

    right: Lung
    left: Lung
    heart: Heart
    depth: float
    wall: float  # soft tissue between ribs and skin at the side
    lung_depth: float
    lung_density: float  # relative to soft tissue
    neck: float
    shoulder: tuple[float, float]
    arm_angle: float  # radians from the vertical, outwards
    arm_radius: float
    shift: float  # of the mediastinum against the spine: rotation about the body's long axis
    bone: float  # thickness of bone, 1 is usual
    rib_spacing: float
    rib_slope: float
    scapula: float  # how far the shoulder blades stand off the lungs
    breast: float  # thickness, 0 for none
    breast_drop: float
    gas: float  # thickness of the gastric bubble, 0 for none
    texture: float
    effusion: tuple[float, float]  # height of fluid in the right and left costophrenic angle
    opacities: list[Opacity] = field(default_factory=list)

    @property
    def lungs(self) -> tuple[Lung, Lung]:
        """The right and the left lung."""
        return self.right, self.left

    @property
    def label(self) -> str:
        """ "opacity" if there is any disease, else "normal"."""
        return "opacity" if self.opacities or max(self.effusion) > 0 else "normal"


def draw_lung(draw: Draw, side: float, widest: float, dome: float, heart: Heart) -> Lung:
    """Draw a lung, with a chest wall `widest` cm from the midline and a diaphragm whose top is y = `dome` cm.

    The outline's knots follow mean outlines of real training masks, in shares of the lung's height.
    """
    top = draw.normal(0.0, 0.35)
    inner = draw.normal(0.96, 0.28, 0.3, 1.8)
    drop = draw.normal(4.6, 1.4, 1.0, 8.0)
    peak = draw.uniform(0.2, 0.5)
    power = draw.uniform(1.2, 2.4)
    medial_drop = draw.uniform(-0.3, 1.4)
    height = dome + drop - top
    apex = draw.normal(0.34, 0.035, 0.25, 0.45)
    slim = draw.normal(1.0, 0.22, 0.4, 1.7)
    waist = draw.normal(0.0, 0.02)
    wave = [(draw.normal(0, 0.10), draw.uniform(0.25, 1.1), draw.uniform(0, 6.28)) for _ in range(3)]
    offset = draw.normal(0, 0.012)

    def waves(share: np.ndarray) -> np.ndarray:
        return sum(size * np.sin(rate * height * share + phase) for size, rate, phase in wave)

    wall_at = [0, 0.008, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.4]
    wall = np.array([0.0, 0.42, 0.48, 0.575, 0.675, 0.795, 0.86, 0.915, 0.945, 0.97, 0.98, 0.97])
    wall = 1.0 - slim * (1.0 - wall) + offset - waist * np.array(wall_at)
    wall[0] = apex

    def lateral(y: np.ndarray) -> np.ndarray:
        share = np.clip((y - top) / height, -0.01, 1.4)
        outline = PchipInterpolator(wall_at, wall)(np.maximum(share, 0)) * widest + 0.5 * waves(share)
        return np.where(share < 0, apex * widest - 2.0, outline)

    at, edge = heart.edge(side)
    at = np.array([0, 0.02, 0.05, 0.1, *at])
    edge = np.array([apex, 0.21 * inner**0.5, 0.16 * inner**0.7, 0.13 * inner, *edge])
    edge[4:6] *= inner

    def medial(y: np.ndarray) -> np.ndarray:
        share = np.clip((y - top) / height, -0.01, 1.4)
        outline = PchipInterpolator(at, edge)(np.maximum(share, 0)) * widest + 0.8 * waves(share + 2)
        return np.where(share < 0, apex * widest + 2.0, outline)

    def diaphragm(x: np.ndarray) -> np.ndarray:
        share = np.clip((x - 2.0) / (0.98 * widest - 2.0), -0.3, 1.3)
        outer = np.clip((share - peak) / (1 - peak), 0, None) ** power
        innermost = np.clip((peak - share) / peak, 0, None) ** 2
        return dome + drop * outer + medial_drop * innermost

    return Lung(
        side, (apex * widest, top), widest, dome, dome + drop, Curve(lateral), Curve(medial), Curve(diaphragm)
    )


def draw_heart(draw: Draw, shift: float) -> Heart:
    """Draw a heart a little under half as wide as the chest; `shift` in half widths of the chest."""
    return Heart(
        right=draw.normal(0.285, 0.045, 0.17, 0.42) - shift,
        left=draw.normal(0.515, 0.085, 0.30, 0.75) + shift,
        lift=draw.normal(0.0, 0.035, -0.08, 0.08),
        knob=draw.normal(0.06, 0.03, 0.0, 0.15) + 0.5 * shift,
        knob_at=draw.normal(0.24, 0.018, 0.205, 0.285),
        waist=draw.normal(0.0, 0.03, -0.07, 0.08),
        shift=shift,
        thickness=draw.normal(12.0, 2.2, 6.0, 17.0),
    )


def draw_opacities(draw: Draw, lungs: tuple[Lung, Lung]) -> list[Opacity]:
    """Draw one disease: consolidation, nodules, or infiltrates of the upper lobes."""
    kind = draw.rng.choice(3, p=(0.4, 0.25, 0.35))
    amount = (draw.rng.integers(1, 3), draw.rng.integers(1, 7), draw.rng.integers(1, 5))[kind]
    sides = [draw.sign()] if draw.chance(0.6) else [LEFT, RIGHT]
    found = []
    for _ in range(int(amount)):
        lung = lungs[0] if sides[int(draw.rng.integers(len(sides)))] == RIGHT else lungs[1]
        height = draw.uniform(0.05, 0.4) if kind == 2 else draw.uniform(0.15, 0.9)
        y = lung.apex[1] + height * (lung.dome - lung.apex[1])
        across = draw.uniform(0.3, 0.9)
        wall = float(lung.lateral(np.float32(y)))
        x = lung.side * (2.0 + across * max(wall - 2.0, 1.0))
        if kind == 1:
            radius = draw.uniform(0.3, 1.5)
            found.append(Opacity((x, y), (radius, radius), 0.0, 1.6 * radius, 0.1, 0.25))
            continue
        axes = (draw.uniform(1.2, 4.0), draw.uniform(1.0, 3.5))
        found.append(
            Opacity((x, y), axes, draw.uniform(0, 3), draw.uniform(1.0, 5.5), draw.uniform(0.3, 1.0), 0.7)
        )
    return found


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw one chest, normal in about six of ten."""
    draw = Draw(rng)
    female, habitus = draw.chance(0.45), draw.normal(0, 1, -2, 2.5)
    widest = draw.normal(13.0 if female else 14.2, 0.9) + 0.3 * habitus
    dome = draw.normal(20.5, 2.2, 14.0, 26.0) - 0.5 * habitus
    lag = draw.normal(0.8, 0.7, -1.0, 2.8)  # the left dome is lower, because the heart lies on it
    shift = draw.normal(0.0, 0.03, -0.09, 0.09)
    heart = draw_heart(draw, shift)
    right = draw_lung(draw, RIGHT, widest * draw.normal(1.0, 0.02), dome, heart)
    left = draw_lung(draw, LEFT, widest * draw.normal(0.97, 0.03), dome + lag, heart)
    ill = draw.chance(0.4)
    effusion = tuple(draw.uniform(0.5, 4.0) if ill and draw.chance(0.15) else 0.0 for _ in range(2))
    opacities = draw_opacities(draw, (right, left)) if ill else []
    return Patient(
        right=right,
        left=left,
        heart=heart,
        depth=draw.normal(20.5, 1.4, 16, 27) + 1.6 * habitus,
        wall=draw.normal(2.2, 0.5, 0.9, 4.0) + 0.6 * max(habitus, -1.0),
        lung_depth=draw.normal(14.5, 1.2, 11, 18),
        lung_density=draw.normal(0.27, 0.04, 0.18, 0.4),
        neck=draw.normal(5.6, 0.5) + 0.3 * habitus,
        shoulder=(draw.normal(18.0, 1.1) + 0.4 * habitus, draw.normal(2.2, 1.3)),
        arm_angle=float(rng.choice([0.1, 0.4, 0.8], p=[0.2, 0.4, 0.4])) + draw.normal(0, 0.12),
        arm_radius=draw.normal(4.6, 0.5, 3.4, 6.5) + 0.3 * habitus,
        shift=shift * widest,
        bone=draw.normal(1.0, 0.2, 0.55, 1.6),
        rib_spacing=(dome + 2.0) / draw.normal(9.2, 0.6, 7.8, 10.5),
        rib_slope=draw.normal(0.16, 0.07, -0.02, 0.34),
        scapula=draw.normal(0.8, 0.9, -1.2, 3.0),
        breast=draw.normal(2.6, 1.0, 0.6, 5.5) if female else 0.0,
        breast_drop=draw.uniform(-2.5, 2.5),
        gas=draw.uniform(2.0, 9.0) if draw.chance(0.75) else 0.0,
        texture=draw.normal(1.0, 0.3, 0.4, 2.0),
        effusion=effusion,
        opacities=opacities,
    )
