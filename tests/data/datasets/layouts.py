"""Tiny copies of public datasets as their publishers pack them, made of phantoms."""

from pathlib import Path

import numpy as np
from PIL import Image

from lungseg.data.datasets.phantom import render

READINGS = ("Patient's Sex: F\nPatient's Age: 027Y\n{}\n", "male 45yrs\n{}\n")


def phantom(index: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The picture (uint8) and the lungs (0 / 255) of a phantom."""
    image, mask = render(0, index, size)
    return np.round(image * 255).astype(np.uint8), mask.astype(np.uint8) * 255


def halve(mask: np.ndarray) -> dict[str, np.ndarray]:
    """A mask of each lung; the patient's right one is at the left of the picture."""
    middle = mask.shape[1] // 2
    left, right = mask.copy(), mask.copy()
    left[:, :middle], right[:, middle:] = 0, 0
    return {"left": left, "right": right}


def enlarge(values: np.ndarray, factor: int) -> np.ndarray:
    """Show each pixel as factor x factor of them."""
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_reading(root: Path, name: str, form: str) -> None:
    (root / "ClinicalReadings").mkdir(parents=True, exist_ok=True)
    finding = "normal" if name.endswith("_0") else "left upper lobe infiltrates"
    (root / "ClinicalReadings" / f"{name}.txt").write_text(form.format(finding))


def make_montgomery(root: Path, count: int = 4) -> Path:
    """`count` persons, normal and with tuberculosis in turn."""
    for index in range(count):
        name = f"MCUCXR_{index + 1:04d}_{index % 2}"
        image, mask = phantom(index)
        save(root / f"CXR_png/{name}.png", image)
        for side, lung in halve(mask).items():
            save(root / f"ManualMask/{side}Mask/{name}.png", lung)
        write_reading(root, name, READINGS[0])
    return root


def make_shenzhen(root: Path, count: int = 4) -> Path:
    """`count` persons with masks, normal and with tuberculosis in turn, and one without."""
    for index in range(count + 1):
        name = f"CHNCXR_{index + 1:04d}_{index % 2}"
        image, mask = phantom(index)
        save(root / f"CXR_png/{name}.png", np.dstack([image] * 3))
        if index < count:
            save(root / f"mask/{name}_mask.png", mask)
        write_reading(root, name, READINGS[1])
    return root


def make_jsrt(root: Path, side: int, count: int = 4) -> Path:
    """`count` persons, with a nodule and without in turn; images of side x side, masks of half of that."""
    for index in range(count):
        name = f"JPC{'LN'[index % 2]}N{index + 1:03d}"
        size = min(side // 2, 256)
        image, mask = phantom(index, size)
        density = 4095 - enlarge(np.round(image / 255.0 * 4095), side // size)
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.IMG").write_bytes(density.astype(">u2").tobytes())
        for half, lung in halve(enlarge(mask, side // 2 // size)).items():
            save(root / f"fold{1 + index % 2}/masks/{half} lung/{name}.gif", lung)
    return root


def make_covid19_radiography(root: Path, count: int = 1) -> Path:
    """`count` images of each class, 299 pixels a side, their masks 256 and in colour as published."""
    for number, name in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        for index in range(count):
            image, _ = phantom(4 * index + number, 299)
            _, mask = phantom(4 * index + number, 256)
            save(root / name / "images" / f"{name}-{index + 1}.png", image)
            save(root / name / "masks" / f"{name}-{index + 1}.png", np.dstack([mask] * 3))
    return root
