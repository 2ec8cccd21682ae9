import shutil

import numpy as np
import pytest
from PIL import Image

from lungseg.data.loading import find_dataset, load_dataset
from lungseg.system.errors import InputError
from tests.data.datasets.layouts import make_covid19_radiography, phantom, save

FOLDER = "COVID-19_Radiography_Dataset"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("covid")
    make_covid19_radiography(root / FOLDER)
    return root


def test_the_original_layout_is_read(original, monkeypatch):
    monkeypatch.setenv("LUNGSEG_DATA", str(original))
    loaded = load_dataset("covid19-radiography", {})
    assert {name: sample.label for name, sample in loaded.samples.items()} == {
        "COVID-1": "COVID", "Lung_Opacity-1": "Lung_Opacity", "Normal-1": "Normal",
        "Viral Pneumonia-1": "Viral Pneumonia",
    }  # fmt: skip
    assert loaded.notes == (
        "covid19-radiography: the set doesn't say who its patients are: each image counts as one",
    )
    sample = loaded.samples["COVID-1"]
    assert sample.image().shape == (299, 299)
    mask, drawn = sample.mask(), phantom(0, 256)[1] > 0
    assert mask.shape == (299, 299)
    for row, column in ((0, 0), (150, 90), (298, 298), (120, 200)):  # centres: 150.5 * 256 / 299 = 128.9
        assert mask[row, column] == drawn[int((row + 0.5) * 256 / 299), int((column + 0.5) * 256 / 299)]
    assert abs(mask.mean() - drawn.mean()) < 0.002


def test_a_class_that_is_missing_and_images_without_a_mask(original, tmp_path):
    shutil.copytree(original / FOLDER / "Normal", tmp_path / "Normal")
    save(tmp_path / "Normal/images/Normal-2.png", phantom(0)[0])
    inventory = find_dataset("covid19-radiography", {}, tmp_path).inventory()
    assert [sample.id for sample in inventory.samples] == ["Normal-1"]
    assert inventory.images_without_mask == ["Normal-2.png"]
    assert inventory.notes[0].startswith("the classes COVID, Lung_Opacity, Viral Pneumonia aren't there")


def test_a_mask_of_another_aspect_ratio(original, tmp_path):
    shutil.copytree(original / FOLDER / "Normal", tmp_path / "Normal")
    Image.fromarray(np.full((256, 200), 255, np.uint8)).save(tmp_path / "Normal/masks/Normal-1.png")
    (sample,) = find_dataset("covid19-radiography", {}, tmp_path).samples()
    with pytest.raises(InputError, match=r"Normal-1\.png is 200 x 256 pixels .* another aspect ratio"):
        sample.mask()


def test_what_is_missing_is_said(tmp_path, original):
    with pytest.raises(InputError, match="holds no 'COVID/images' of dataset covid19-radiography: get"):
        find_dataset("covid19-radiography", {}, tmp_path).samples()
    with pytest.raises(InputError, match=r'but 4 folders: use dataset "covid19-radiography"'):
        find_dataset("montgomery", {}, original / FOLDER).samples()
