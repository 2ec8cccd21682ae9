"""Folders as people have them: nnU-Net's names, sub-folders, GIF, names from a Mac, files not read."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.data.files import matching
from lungseg.data.files.images import SizeMismatch
from lungseg.data.loading import find_dataset, fingerprint
from lungseg.system.errors import InputError

NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path, save_pair):
    """Saves pairs by the paths of image and mask below images/ and masks/, and opens the dataset."""

    def make(*pairs, **options):
        for image, mask in pairs:
            save_pair(tmp_path / "images" / image, tmp_path / "masks" / mask)
        return find_dataset("folder", {"images": "images", "masks": "masks", **options}, tmp_path)

    return make


def notes_of(dataset):
    return [note for note in dataset.inventory().notes if "patients =" not in note]


# Unicode and case


def test_composed_and_decomposed_names_are_one(folder):
    dataset = folder(
        (f"{NFC}_1.png", f"{NFD}_1.png"), (f"{NFD}_2.png", f"{NFC}_2.png"), patient_pattern=f"^({NFD})_"
    )
    samples = dataset.samples()
    assert [sample.id for sample in samples] == [f"{NFC}_1", f"{NFC}_2"]
    assert {sample.patient for sample in samples} == {NFC}


def test_a_table_in_another_form_is_understood(folder, tmp_path):
    (tmp_path / "t.csv").write_text(f"image,patient\n{NFD}_1,{NFD}\n{NFC}_2.png,{NFC}\n", "utf-8")
    dataset = folder(*[(f"{NFC}_{n}.png", f"{NFC}_{n}.png") for n in (1, 2)], table="t.csv")
    assert [sample.patient for sample in dataset.samples()] == [NFC, NFC]


def test_two_files_whose_names_differ_only_by_their_form(folder):
    dataset = folder((f"{NFC}.png", f"{NFC}.png"), (f"{NFD}.png", f"{NFC}.png"))
    with pytest.raises(InputError, match=f"have the same id {NFC}, for their names differ only by their Uni"):
        dataset.samples()


def test_names_that_differ_only_by_case_clash_where_the_disk_is_blind_to_it(folder, monkeypatch):
    dataset = folder(("a.png", "a.png"), ("A.png", "A.png"), ("b.png", "B.png"))
    assert [sample.id for sample in dataset.samples()] == ["A", "a"]
    monkeypatch.setattr(matching, "_is_case_blind", lambda path: True)
    found = dataset.inventory()
    assert [sample.id for sample in found.samples] == ["b"]
    assert [clash.partition(" have ")[2] for clash in found.ambiguous] == [
        "the same id A, for their names differ only by case: remove or rename one of them"
    ]


# What isn't read


def test_what_is_not_read_is_counted_and_named(folder, tmp_path):
    dataset = folder(("a.png", "a.png"), ("sub/b.png", "b.png"))
    images = tmp_path / "images"
    for name in ("c.nii", "d.NII", "scan", ".hidden", "Thumbs.db"):
        (images / name).write_text("x")
    (images / "e.png").symlink_to("gone/e.png")
    (images / "f").symlink_to(tmp_path / "masks")
    (note,) = notes_of(dataset)
    assert note == (
        "6 of 7 files in images/ aren't read: 2 .nii, 1 link to nothing, 1 linked folder, "
        "1 without an ending, 1 in sub-folders: set recursive = true (c.nii, d.NII, e.png and 3 more)"
    )


def test_the_table_and_the_masks_below_the_images_are_no_leftovers(tmp_path, save_pair):
    save_pair(tmp_path / "p1.png", tmp_path / "masks/p1.png")
    (tmp_path / "t.csv").write_text("image\np1\n")
    options = {"images": ".", "masks": "masks", "table": "t.csv"}
    for recursive in (False, True):
        dataset = find_dataset("folder", {**options, "recursive": recursive}, tmp_path)
        assert [sample.id for sample in dataset.samples()] == ["p1"]
        assert notes_of(dataset) == []


def test_a_folder_of_nothing_but_dangling_links(folder, tmp_path):
    dataset = folder(("a.png", "a.png"))
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to("gone.png")
    with pytest.raises(InputError, match=r"holds no image .*, but 1 link to nothing"):
        dataset.inventory()


def test_masks_without_the_suffix_are_noted(folder):
    dataset = folder(("a.png", "a_lung.png"), ("b.png", "b_heart.png"), suffix="_lung")
    assert notes_of(dataset) == [
        "1 of 2 images in masks/ doesn't end in '_lung' and so isn't read (b_heart.png)"
    ]


# GIF


def test_gif_is_read_as_image_and_mask(folder):
    gif, png = folder(("a.gif", "a.gif"), ("b.png", "b.png")).samples()
    np.testing.assert_array_equal(gif.image(), png.image())
    np.testing.assert_array_equal(gif.mask(), png.mask())
    assert gif.mask().sum() == 10 * 6


# image_suffix


def test_images_of_nnunet(folder):
    pairs = [(f"p{n}_0000.png", f"p{n}.png") for n in range(4)]
    assert [s.id for s in folder(*pairs, image_suffix="_0000").samples()] == ["p0", "p1", "p2", "p3"]
    with pytest.raises(
        InputError,
        match=r"4 images \(p0_0000.png, .* and 1 more\) have one if .*: set image_suffix = \"_0000\"",
    ):
        folder().inventory()


def test_half_renamed_images_are_noted(folder):
    pairs = ("p0_0000.png", "p0.png"), ("p1.png", "p1.png")
    assert "1 images have a mask only if '_0000' is left out" in notes_of(folder(*pairs))[0]
    (note,) = notes_of(folder(image_suffix="_0000"))
    assert note == "1 of 2 images in images/ doesn't end in '_0000' and so isn't read (p1.png)"


# recursive and source_pattern


def test_sub_folders(folder, tmp_path):
    pairs = [(f"{place}/p1.png", f"{place}/p1.png") for place in ("north", "south/old")]
    keys = {"recursive": True, "source_pattern": "^([^/]+)/"}
    samples = folder(*pairs, ("north/p2.png", "south/p2.png"), **keys).samples()
    assert [(s.id, s.source) for s in samples] == [("north_p1", "north"), ("south_old_p1", "south")]
    assert samples[1].mask_paths == (tmp_path / "masks/south/old/p1.png",)
    found = folder(recursive=True).inventory()
    assert (found.images_without_mask, found.masks_without_image) == (["north/p2.png"], ["south/p2.png"])


def test_two_paths_of_one_id(folder):
    dataset = folder(("a/b.png", "a/b.png"), ("a_b.png", "a_b.png"), recursive=True)
    with pytest.raises(InputError, match="the id a_b is used 2 times"):
        dataset.samples()


def test_the_rows_of_images_in_sub_folders(folder, tmp_path):
    pairs = [(f"{place}/p1.png", f"{place}/p1.png") for place in ("a", "b")]
    dataset = folder(*pairs, ("p1.png", "p1.png"), table="t.csv", recursive=True)
    (tmp_path / "t.csv").write_text("image,patient\na/p1,1\nb/p1.png,2\np1,3\n")
    assert [(sample.id, sample.patient) for sample in dataset.samples()] == [
        ("a_p1", "1"),
        ("b_p1", "2"),
        ("p1", "3"),
    ]
    (tmp_path / "t.csv").write_text("image,patient\na/p1,1\np1,3\n")
    again = folder(table="t.csv", recursive=True)
    with pytest.raises(InputError, match="the row p1 fits b/p1 and p1: write the sub-folder too, as in b/p1"):
        again.samples()


def test_a_source_pattern(folder):
    pairs = ("hh1_p1.png", "hh1_p1.png"), ("hh2_p2.png", "hh2_p2.png")
    assert [s.source for s in folder(*pairs, source_pattern="^(hh.)").samples()] == ["hh1", "hh2"]
    with pytest.raises(InputError, match=r"source_pattern '\^\(x\)' finds no source in 'hh1_p1': correct"):
        folder(source_pattern="^(x)").samples()
    with pytest.raises(InputError, match="sets source and source_pattern: remove one of the two"):
        folder(source_pattern="^(hh.)", source="north").samples()


# lung_labels and resize_masks


@pytest.fixture
def with_mask(tmp_path, folder):
    """Opens a dataset of two images, 24 wide and 20 high, whose masks are this picture."""

    def make(values, **options):
        pairs = ("a.png", "a.png"), ("b.png", "b.png")
        dataset = folder(*pairs, **options)
        for image, _ in pairs:
            Image.fromarray(np.asarray(values, np.uint8)).save(tmp_path / "masks" / image)
        return dataset

    return make


LABELS = np.repeat([0, 1, 2, 5], 6)[None].repeat(20, 0)


def test_labels_that_are_lung(with_mask):
    sample = with_mask(LABELS, lung_labels=[1, 2]).samples()[0]
    np.testing.assert_array_equal(sample.mask(), (LABELS == 1) | (LABELS == 2))
    (other, _), (plain, _) = (
        with_mask(LABELS, **options).samples() for options in ({"lung_labels": [1]}, {})
    )
    assert len({fingerprint([each]) for each in (sample, other, plain)}) == 3
    with pytest.raises(InputError, match=r"has 4 labels \(0, 1, 2, 5\).*name them in lung_labels"):
        plain.mask()


def test_a_label_that_no_mask_has(with_mask):
    with pytest.raises(
        InputError, match=r"lung_labels has 3, which is in none of 2 masks \(their values are 0, 1, 2, 5\)"
    ):
        with_mask(LABELS, lung_labels=[1, 3]).inventory()


@pytest.mark.parametrize("labels", [[], [-1], [True], [1.5], "1"])
def test_labels_of_a_wrong_type(labels):
    with pytest.raises(InputError, match="lung_labels"):
        find_dataset("folder", {"images": "x", "masks": "y", "lung_labels": labels}, Path())


def test_masks_of_another_size(with_mask):
    large = np.zeros((40, 48))
    large[4:8, 10:16] = 255
    sample = with_mask(large, resize_masks=True).samples()[0]
    expected = np.zeros((20, 24), bool)
    expected[2:4, 5:8] = True
    np.testing.assert_array_equal(sample.mask(), expected)
    with pytest.raises(
        SizeMismatch,
        match=r"2 masks are of another size, all 2 of their image's \(such as .*a\.png\): set resize_masks",
    ):
        with_mask(large).samples()
    labels = with_mask(LABELS.repeat(2, 0).repeat(2, 1), resize_masks=True, lung_labels=[2]).samples()[0]
    np.testing.assert_array_equal(labels.mask(), LABELS == 2)


def test_a_folder_in_a_known_layout_is_told_its_dataset(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "JPCLN001.IMG").write_bytes(bytes(100))
    (tmp_path / "masks").mkdir()
    folders = {"images": str(tmp_path / "raw"), "masks": str(tmp_path / "masks")}
    with pytest.raises(InputError, match=r"1 \.img file: .*, or use dataset \"jsrt\"$"):
        find_dataset("folder", folders, None).inventory()
