import shutil

import numpy as np
import pytest

from lungseg.data.loading import find_dataset, load_dataset
from lungseg.system.errors import InputError
from tests.data.datasets.layouts import make_shenzhen, phantom


@pytest.mark.parametrize("folder", ["ChinaSet_AllFiles", "ChinaSet_AllFiles/ChinaSet_AllFiles", "."])
def test_the_original_layout_is_read(tmp_path, monkeypatch, folder):
    make_shenzhen(tmp_path / folder, 2)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path))
    loaded = load_dataset("shenzhen", {})
    first, second = loaded.samples.values()
    assert (second.id, second.patient, second.source, second.label) == (
        "CHNCXR_0002_1", "CHNCXR_0002", "shenzhen", "tuberculosis",
    )  # fmt: skip
    assert first.label == "normal"
    image, mask = phantom(1)
    np.testing.assert_array_equal(second.image(), image / np.float32(255))
    np.testing.assert_array_equal(second.mask(), mask > 0)
    assert loaded.notes == ("shenzhen: images without a mask, left out: 1",)


def test_masks_a_folder_deeper(tmp_path):
    make_shenzhen(tmp_path, 2)
    (tmp_path / "mask").rename(tmp_path / "unpacked")
    shutil.copytree(tmp_path / "unpacked", tmp_path / "mask/mask")
    assert len(find_dataset("shenzhen", {}, tmp_path).samples()) == 2


def test_masks_are_published_apart_and_the_message_says_so(tmp_path):
    make_shenzhen(tmp_path, 1)
    shutil.rmtree(tmp_path / "mask")
    with pytest.raises(InputError, match="holds 2 images of dataset shenzhen and no mask: get the masks of"):
        find_dataset("shenzhen", {}, tmp_path).samples()


def test_the_set_of_both_hospitals_is_another_dataset(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    with pytest.raises(InputError, match='but 2 folders: use dataset "cxr704"'):
        find_dataset("shenzhen", {}, tmp_path).samples()
