"""From tissue to picture: attenuation, scatter, quantum noise, and how the workstation shows the result.

Attenuation is Beer-Lambert's law at one effective energy. Linear coefficients are NIST's mass attenuation
coefficients of the ICRU-44 materials (Hubbell & Seltzer, NISTIR 5632: soft tissue, cortical bone) times
their densities, 1.06 and 1.92 g/cm^3. A tube at 70 to 120 kVp behind its filter has an effective energy
of roughly 40 to 65 keV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from lungseg.data.datasets.radiography.canvas import blur
from lungseg.data.datasets.radiography.patient import Draw

ENERGIES = (40.0, 50.0, 60.0, 80.0)  # keV
SOFT_TISSUE = tuple(1.06 * mass for mass in (0.2688, 0.2264, 0.2048, 0.1823))  # 1/cm
CORTICAL_BONE = tuple(1.92 * mass for mass in (0.6655, 0.4242, 0.3148, 0.2229))  # 1/cm


@dataclass
class Technique:
    """How a picture is taken and shown."""

    energy: float  # effective energy, keV
    scatter: float  # scattered to primary radiation behind the grid, averaged over the picture
    scatter_reach: float  # how far scatter spreads, sides of the picture
    photons: float  # detected per 1/256 x 1/256 of the picture in the open beam
    unsharpness: float  # of focus and detector, sides of the picture
    heel: tuple[float, float]  # change of the open beam from one edge to the other, in x and y, as shares
    compression: float  # share of the coarse structure that the workstation removes
    detail: float  # gain of the fine structure, 0 for none
    air: float  # grey value of air; 0 is black
    lung: float  # of the mean lung
    heart: float  # of the mean heart
    white: float  # of the densest part


def draw_technique(rng: np.random.Generator, site: int) -> Technique:
    """Draw how a site takes its pictures.

    Site 0 has hard, film-like contrast; site 1 has digital pictures that are evened out and sharpened.
    """
    draw = Draw(rng)
    if draw.chance(0.08):
        site = 1 - site
    common = dict(
        scatter=draw.uniform(0.15, 0.9),
        scatter_reach=draw.uniform(0.05, 0.13),
        photons=10 ** draw.uniform(4.6, 6.2),
        unsharpness=draw.uniform(0.0010, 0.0028),
        heel=(draw.normal(0, 0.12), draw.normal(0, 0.12)),
    )
    if site == 0:
        lung = draw.normal(0.31, 0.085, 0.10, 0.55)
        return Technique(
            energy=draw.normal(51, 5, 42, 64),
            compression=draw.uniform(0.0, 0.25),
            detail=draw.uniform(0.0, 0.7),
            air=draw.uniform(0.0, 0.12) * lung,
            lung=lung,
            heart=draw.normal(0.92, 0.06, 0.72, 0.99),
            white=draw.uniform(0.97, 1.0),
            **common,
        )
    lung = draw.normal(0.56, 0.075, 0.30, 0.76)
    heart = min(lung + draw.normal(0.30, 0.06, 0.12, 0.48), 0.95)
    return Technique(
        energy=draw.normal(52, 5, 42, 66),
        compression=draw.uniform(0.15, 0.55),
        detail=draw.uniform(0.4, 2.0),
        air=draw.uniform(0.0, 0.22) * lung,
        lung=lung,
        heart=heart,
        white=min(heart + draw.uniform(0.04, 0.16), 1.0),
        **common,
    )


def expose(soft: np.ndarray, bone: np.ndarray, technique: Technique, rng: np.random.Generator) -> np.ndarray:
    """Return the optical path at the detector: minus the logarithm of the radiation that arrives.

    `soft` and `bone` are cm of soft tissue, and of cortical bone in its place, float32, size x size.
    """
    size = soft.shape[0]
    mu_soft = float(np.interp(technique.energy, ENERGIES, SOFT_TISSUE))
    mu_bone = float(np.interp(technique.energy, ENERGIES, CORTICAL_BONE))
    primary = np.exp(-(mu_soft * soft + (mu_bone - mu_soft) * bone))
    # The open beam beside the body scatters nothing towards the film, and would dominate the blur.
    scattered = blur(np.minimum(primary, 0.25), technique.scatter_reach)
    signal = blur(primary, technique.unsharpness) if size * technique.unsharpness > 0.3 else primary
    place = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    heel = 1.0 + technique.heel[0] * place[None, :] + technique.heel[1] * place[:, None]
    signal = (signal + technique.scatter * scattered) * heel
    # Photons are many, so Poisson noise is nearly Gaussian; a smaller pixel counts fewer.
    counted = technique.photons * (256.0 / size) ** 2
    noise = rng.standard_normal((size, size), dtype=np.float32)
    signal = signal + np.sqrt(signal * float(1.0 / counted)) * noise
    return -np.log(np.maximum(signal, 1e-4))


def develop(
    path: np.ndarray, regions: tuple[np.ndarray, np.ndarray, np.ndarray], technique: Technique
) -> np.ndarray:
    """Make the picture, float32 in [0, 1], from what `expose` returns.

    The regions are air, lung and heart (bool), whose means get the technique's grey values; workstations find
    such regions by themselves.
    """
    air, lung, heart = regions
    if technique.compression > 0:
        coarse = blur(path, 0.09)
        path = path - technique.compression * (coarse - float(coarse.mean()))
    if technique.detail > 0:
        path = path + technique.detail * (path - blur(path, 0.012))
    at_lung = float(path[lung].mean()) if lung.any() else 1.5
    at_heart = max(float(path[heart].mean()) if heart.any() else at_lung + 2.0, at_lung + 0.5)
    at_air = min(float(path[air].mean()) if air.any() else 0.0, at_lung - 0.5)
    at_air += 0.25 * (at_lung - at_air)  # compression darkens and brightens air; all of it stays black
    at_white = at_heart + 0.9 * (at_heart - at_lung)
    points = np.array([at_air, at_lung, at_heart, at_white])
    shades = np.array([technique.air, technique.lung, technique.heart, technique.white])
    grid = np.linspace(at_air, at_white, 2048)
    table = PchipInterpolator(points, np.maximum.accumulate(shades))(grid).astype(np.float32)
    scale = (len(grid) - 1) / (at_white - at_air)
    return table[np.clip((path - at_air) * scale, 0, len(grid) - 1).astype(np.int32)]
