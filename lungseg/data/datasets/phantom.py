"""Phantom chest X-rays: simulated radiographs with exact lung masks.

Nothing is read or downloaded. A seed and a number define a picture: byte for byte on one machine, and within
rounding on others. The anatomy and the physics are in `lungseg.data.datasets.radiography`.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from lungseg.data.datasets.radiography import beam, lung_detail, overlays, skeleton, trunk
from lungseg.data.datasets.radiography.canvas import Canvas, Frame, smooth_field
from lungseg.data.datasets.radiography.patient import Draw, Patient, draw_patient
from lungseg.data.sample import Dataset, Inventory, Sample
from lungseg.system.plugins import Settings

VERSION = 1  # raised whenever any picture changes
SITES = ("site-a", "site-b")  # hard film-like contrast; evened-out digital pictures


def draw_frame(rng: np.random.Generator, patient: Patient, site: int) -> Frame:
    """Draw how the patient fills the picture; as in real sets, the picture is squeezed to a square."""
    draw = Draw(rng)
    scale = draw.normal(1.0, 0.085, 0.7, 1.2)
    width = draw.normal(0.78, 0.05, 0.55, 0.93) if site == 0 else draw.normal(0.72, 0.05, 0.52, 0.9)
    height = draw.normal(0.63, 0.10, 0.36, 0.85) if site == 0 else draw.normal(0.665, 0.07, 0.4, 0.85)
    top = draw.normal(0.10 if site == 0 else 0.132, 0.04, 0.02, 0.25)
    chest = patient.right.widest + patient.left.widest
    angle = 0.5 * (patient.right.angle + patient.left.angle)
    return Frame(
        width=chest / (width * scale),
        height=angle / (height * scale),
        origin_x=draw.normal(0.492 if site == 0 else 0.498, 0.024, 0.42, 0.58),
        origin_y=top,
        tilt=draw.normal(0.0, 0.03, -0.1, 0.1),
    )


def render(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Render the phantom with number `index` of a seed: the radiograph and the lung field.

    The result is the same at every call; another size shows the same patient. The radiograph is float32, size
    x size, in [0, 1], white is dense. The lung field is bool, the lungs as readers draw them, above the
    diaphragm's domes and without heart and mediastinum.
    """
    rng = np.random.default_rng([seed, index])
    noise = rng.spawn(1)[0]  # of its own, because how many numbers it gives depends on the size
    site = index % len(SITES)
    patient = draw_patient(rng)
    frame = draw_frame(rng, patient, site)
    technique = beam.draw_technique(rng, site)
    warp = tuple(0.22 * smooth_field(rng, size, 6) + 0.05 * smooth_field(rng, size, 22) for _ in range(2))
    canvas = Canvas(size, frame, warp)
    soft, bone, mask, heart = project_tissue(canvas, patient, rng)
    path = beam.expose(soft, bone, technique, noise)
    picture = beam.develop(path, (soft == 0, mask, heart), technique)
    overlays.collimate(picture, rng, site)
    overlays.add_markers(picture, rng)
    overlays.add_leads(picture, rng)
    return np.clip(picture, 0.0, 1.0), mask


def project_tissue(
    canvas: Canvas, patient: Patient, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a patient's projected tissues, each size x size.

    Soft tissue (bone counted as such) and cortical bone are in cm, the lung field and the heart are bool.
    """
    body = trunk.project_body(canvas, patient)
    lung, mask, heart = trunk.project_lungs(canvas, patient)
    lung = np.minimum(lung, np.maximum(body - 3.0, 0.0))
    density = patient.lung_density * (1.0 + lung_detail.draw_texture(canvas, patient.texture, rng))
    blood = sum(lung_detail.draw_vessels(canvas, side, patient.shift, rng) for side in patient.lungs)
    filled = np.minimum(blood + lung_detail.draw_disease(canvas, patient, rng), 0.85 * lung)
    body += trunk.draw_muscle(canvas, rng) * np.minimum(body * 0.1, 1.0)
    soft = body + trunk.project_breasts(canvas, patient) - (lung - filled) * (1.0 - density)
    soft -= trunk.project_airways(canvas, patient)
    soft -= np.minimum(trunk.draw_belly_gas(canvas, patient, rng), 0.6 * body)
    bone = skeleton.draw_bones(canvas, patient, rng) * np.minimum(body, 1.0)
    return np.maximum(soft, 0.0), bone, mask, heart


class PhantomSample(Sample):
    """A phantom of `render`, rendered when it is asked for.

    The samples of a dataset share a cache that holds the last rendered pair of image and mask.
    """

    def __init__(self, seed: int, index: int, size: int, label: str, cache: dict) -> None:
        self.id = f"phantom-{index:04d}"
        self.patient = f"{self.id}-of-seed-{seed}"
        self.source = SITES[index % len(SITES)]
        self.label = label
        self._key, self._cache = (seed, index, size), cache

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        pair = self._cache.get(self._key)
        if pair is None:
            pair = render(*self._key)
            self._cache.clear()
            self._cache[self._key] = pair
        return pair

    def image(self) -> np.ndarray:
        """Return the radiograph; see `Sample.image`."""
        return self._pair()[0].copy()

    def mask(self) -> np.ndarray:
        """Return the lung field; see `Sample.mask`."""
        return self._pair()[1].copy()

    def content(self) -> bytes:
        """Return the version, seed, number and size, which define the picture."""
        seed, index, size = self._key
        return f"phantom version={VERSION} seed={seed} index={index} size={size}".encode()


class PhantomDataset(Dataset):
    """Simulated X-rays from two sites that expose and show their pictures differently."""

    class Settings(Settings):
        """Keys in a spec."""

        count: int = Field(60, ge=1, le=1_000_000)
        """Number of images. Each shows another patient."""
        size: int = Field(256, ge=32, le=2048)
        """Images have size x size pixels."""
        seed: int = Field(0, ge=0, lt=2**31)
        """Another seed gives other patients."""

    real = False

    def inventory(self) -> Inventory:
        """List the samples of all phantoms."""
        seed, size, cache = self.settings.seed, self.settings.size, {}
        samples: list[Sample] = []
        for index in range(self.settings.count):
            label = draw_patient(np.random.default_rng([seed, index])).label
            samples.append(PhantomSample(seed, index, size, label, cache))
        return Inventory(root=None, samples=samples)
