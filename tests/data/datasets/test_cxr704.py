import os
from pathlib import Path

import numpy as np
import pytest

from lungseg.data.loading import find_dataset, fingerprint
from lungseg.data.splits import SplitOptions, make_splits
from lungseg.system.errors import InputError

ALL = ["CHNCXR_0001_0", "CHNCXR_0002_0", "CHNCXR_0003_1", "MCUCXR_0001_0", "MCUCXR_0002_1"]

REAL_DATA = os.environ.get("LUNGSEG_DATA")  # read before the tests hide it from one another


@pytest.mark.parametrize("folder", ["LungSegmentation", "Lung Segmentation", "."])
def test_the_set_is_found_in_each_layout(tmp_path, make_cxr704, folder):
    make_cxr704(tmp_path / folder)
    samples = find_dataset("cxr704", {}, tmp_path).samples()
    assert [sample.id for sample in samples] == ALL
    assert [sample.patient for sample in samples] == ALL
    assert [sample.source for sample in samples] == ["shenzhen"] * 3 + ["montgomery"] * 2
    assert [sample.label for sample in samples] == [
        "normal",
        "normal",
        "tuberculosis",
        "normal",
        "tuberculosis",
    ]


def test_images_and_masks_are_read(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    samples = find_dataset("cxr704", {}, tmp_path).samples()
    for sample, shape in zip(samples, [(20, 24), (40, 30), (20, 24), (20, 24), (20, 24)], strict=True):
        assert sample.image().shape == shape
        assert sample.image().dtype == np.float32
        assert sample.image().max() == 1
        mask = sample.mask()
        assert mask.shape == shape
        assert mask.sum() == 60  # the box of 10 x 6
        assert mask[5:15, 4:10].all()


def test_images_without_a_mask_and_masks_without_an_image_are_listed(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    (tmp_path / "CXR_png/CHNCXR_0001_0.png").unlink()
    dataset = find_dataset("cxr704", {}, tmp_path)
    inventory = dataset.inventory()
    assert inventory.images_without_mask == ["CHNCXR_0025_0.png"]
    assert inventory.masks_without_image == ["CHNCXR_0001_0_mask.png"]
    assert [sample.id for sample in dataset.samples()] == ALL[1:]


def test_only_some_sources(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    dataset = find_dataset("cxr704", {"sources": ["montgomery"]}, tmp_path)
    assert [sample.id for sample in dataset.samples()] == ALL[3:]
    assert dataset.inventory().images_without_mask == []
    with pytest.raises(InputError, match=r"'cxr704': sources.* can't be used: .*'montgomery'"):
        find_dataset("cxr704", {"sources": ["berlin"]}, tmp_path)


def test_what_file_managers_leave_behind_is_ignored(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    for folder in ("CXR_png", "masks"):
        for name in ("._MCUCXR_0001_0.png", ".DS_Store", "Thumbs.db", "readme.txt"):
            (tmp_path / folder / name).write_bytes(b"rubbish")
    assert [sample.id for sample in find_dataset("cxr704", {}, tmp_path).samples()] == ALL


def test_two_masks_for_one_image(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    save_pair(tmp_path / "masks/MCUCXR_0001_0_mask.png", None)
    dataset = find_dataset("cxr704", {}, tmp_path)
    assert len(dataset.inventory().ambiguous) == 1
    with pytest.raises(
        InputError, match=r"MCUCXR_0001_0\.png and .*MCUCXR_0001_0_mask\.png are both masks of"
    ):
        dataset.samples()


def test_a_pair_of_another_name(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    save_pair(tmp_path / "CXR_png/JPCLN001.png", tmp_path / "masks/JPCLN001.png")
    with pytest.raises(InputError, match=r"JPCLN001\.png isn't named MCUCXR.* dataset 'folder'"):
        find_dataset("cxr704", {}, tmp_path).samples()


def test_missing_data_says_how_to_get_it(tmp_path, make_cxr704):
    advice = "get the public set 'Chest Xray Masks and Labels'.* set LUNGSEG_DATA"
    with pytest.raises(InputError, match=f"LUNGSEG_DATA, which isn't set: {advice}"):
        find_dataset("cxr704", {}, None).samples()
    with pytest.raises(InputError, match=f"holds no 'CXR_png' and 'masks' .*{advice}"):
        find_dataset("cxr704", {}, tmp_path).samples()
    (tmp_path / "CXR_png").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="masks holds no image"):
        find_dataset("cxr704", {}, tmp_path).samples()


def test_fingerprint_follows_the_files(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    samples = find_dataset("cxr704", {}, tmp_path).samples()
    before = fingerprint(samples)
    assert fingerprint(samples[::-1]) == before
    assert fingerprint(samples[1:]) != before
    mask = tmp_path / "masks/MCUCXR_0001_0.png"
    stored = mask.read_bytes()
    save_pair(mask, None)
    assert fingerprint(samples) != before
    mask.write_bytes(stored)
    assert fingerprint(samples) == before


@pytest.mark.skipif(REAL_DATA is None, reason="LUNGSEG_DATA isn't set")
def test_the_real_set():
    samples = find_dataset("cxr704", {}, Path(REAL_DATA)).samples()
    assert len(samples) == 704
    assert sum(sample.source == "montgomery" for sample in samples) == 138
    assert sum(sample.source == "shenzhen" for sample in samples) == 566
    (split,) = make_splits("every-14th", samples, SplitOptions())
    assert (len(split.train), len(split.validation), len(split.test)) == (602, 51, 51)
    (published,) = make_splits("published:cxr704-ovcharenko", samples, SplitOptions())
    assert (len(published.train), len(published.validation), len(published.test)) == (506, 57, 141)
