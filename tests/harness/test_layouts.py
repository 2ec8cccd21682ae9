"""Every layout that people have goes through a benchmark and a prediction."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungseg.data.files import film
from lungseg.harness.run import benchmark
from lungseg.prediction.models import load_models
from lungseg.prediction.pictures import find_pictures
from lungseg.prediction.predict import Wishes, predict_pictures
from lungseg.spec import read_spec
from tests.data.datasets import layouts
from tests.dicoms import NAME, PATIENT, make_dicom

SPEC = """
name = "layout"
runtime = {{ device = "cpu" }}
timing = {{ enabled = false }}
[data]
{data}
split = "random"
fractions = [0.4, 0.3, 0.3]
[[approach]]
use = "mean-mask"
size = 24
"""
FOLDER = 'dataset = "folder"\nimages = "{images}"\nmasks = {masks}\n'


def save_pairs(root, image="images/p{}.png", masks=("masks/p{}.png",), change=lambda mask: mask):
    for index in range(4):
        picture, mask = layouts.phantom(index, 48)
        halves = layouts.halve(mask) if len(masks) > 1 else {"": mask}
        layouts.save(root / image.format(index), picture)
        for name, half in zip(masks, halves.values(), strict=True):
            layouts.save(root / name.format(index), change(half))


def make_nnunet(root):
    save_pairs(root, "imagesTr/lung_{}_0000.png", ("labelsTr/lung_{}.png",), lambda mask: mask // 255)
    return FOLDER.format(images="imagesTr", masks='"labelsTr"') + 'image_suffix = "_0000"'


def make_label_maps(root):
    save_pairs(root, change=lambda mask: sum((half > 0) * np.uint8(value) for value, half in enumerate(
        layouts.halve(mask).values(), 1)))  # fmt: skip
    return FOLDER.format(images="images", masks='"masks"') + "lung_labels = [1, 2]"


def make_gif_masks(root):
    save_pairs(root, masks=("masks/left/p{}.gif", "masks/right/p{}.gif"))
    return FOLDER.format(images="images", masks='["masks/left", "masks/right"]')


def make_names_of_two_systems(root):
    image, mask = (unicodedata.normalize(form, "Müller{}.png") for form in ("NFD", "NFC"))
    save_pairs(root, f"images/{image}", (f"masks/{mask}",))
    return FOLDER.format(images="images", masks='"masks"')


def make_dicoms(root):
    save_pairs(root)
    for index in range(4):
        picture = root / f"images/p{index}.png"
        tags = {"PatientID": f"{PATIENT}-{index}", "PixelSpacing": [0.5, 0.5]}
        make_dicom(picture.with_suffix(""), np.asarray(Image.open(picture)) / 255, **tags)
        picture.unlink()
    return FOLDER.format(images="images", masks='"masks"')


LAYOUTS = {
    "montgomery": layouts.make_montgomery,
    "shenzhen": layouts.make_shenzhen,
    "jsrt": lambda root: layouts.make_jsrt(root, 128),
    "covid19-radiography": layouts.make_covid19_radiography,
    "nnU-Net": make_nnunet,
    "label maps": make_label_maps,
    "GIF by lung": make_gif_masks,
    "NFC and NFD": make_names_of_two_systems,
    "DICOM": make_dicoms,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_benchmark_and_a_prediction(layout, finished_once, tmp_path, monkeypatch):
    monkeypatch.setattr(film, "SIDE", 128)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path / "data"))
    keys = LAYOUTS[layout](tmp_path / "data")
    data = keys if isinstance(keys, str) else f'dataset = "{layout}"'
    (tmp_path / "spec.toml").write_text(SPEC.format(data=data))
    benchmark(read_spec(tmp_path / "spec.toml"), tmp_path / "results")
    scores = pd.read_csv(tmp_path / "results/scores.csv")
    assert len(scores) in (1, 2)
    assert (scores["dice"] > 0.5).all()  # masks lie on their images
    (split,) = json.loads((tmp_path / "results/run.json").read_text())["splits"]
    assert sum(map(len, split["ids"].values())) == 4

    found = find_pictures([tmp_path / "data"], tmp_path / "out")
    assert len(found.pictures) == (5 if layout == "shenzhen" else 4)  # where one has no mask
    models = load_models([(finished_once, "mean-mask")], "cpu")
    outcome = predict_pictures(models, found.pictures, Wishes(tmp_path / "out"), lambda *_: None)
    assert outcome.failures == []
    if layout == "DICOM":
        assert {row["spacing_mm"] for row in outcome.rows} == {"0.5"}
        assert set(scores["distance_unit"]) == {"mm"}
        assert set(scores["patient"].str[:8]) == {"patient-"}
        written = [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts]
        assert not any(secret.encode() in path.read_bytes() for path in written for secret in (PATIENT, NAME))
