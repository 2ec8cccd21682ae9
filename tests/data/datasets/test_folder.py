import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lungseg.data.datasets.registry import DATASETS
from lungseg.data.files.images import SizeMismatch
from lungseg.data.loading import find_dataset, fingerprint
from lungseg.data.sample import Dataset
from lungseg.system.errors import InputError
from lungseg.system.plugins import load_class


@pytest.fixture
def pairs(tmp_path, save_pair):
    """Two images of patient 7 and one of patient 8, with masks that end in _lungs."""
    for name in ("7_front", "7_later", "8_front"):
        save_pair(tmp_path / f"xrays/{name}.png", tmp_path / f"masks/{name}_lungs.png")
    return tmp_path


OPTIONS = {"images": "xrays", "masks": "masks", "suffix": "_lungs"}


def test_images_match_masks_by_stem_and_suffix(pairs):
    samples = find_dataset("folder", {**OPTIONS, "source": "clinic"}, pairs).samples()
    assert [sample.id for sample in samples] == ["7_front", "7_later", "8_front"]
    assert [sample.patient for sample in samples] == ["7_front", "7_later", "8_front"]
    assert {(sample.source, sample.label) for sample in samples} == {("clinic", "")}
    assert samples[0].image().shape == samples[0].mask().shape == (20, 24)


def test_absolute_folders_need_no_data_root(pairs):
    options = {**OPTIONS, "images": str(pairs / "xrays"), "masks": str(pairs / "masks")}
    assert len(find_dataset("folder", options, None).samples()) == 3
    with pytest.raises(InputError, match="images = 'xrays' is relative to LUNGSEG_DATA, which isn't set"):
        find_dataset("folder", OPTIONS, None).samples()


def test_formats_may_differ_and_wrong_suffixes_are_no_masks(pairs, save_pair):
    save_pair(pairs / "xrays/9_front.jpeg", pairs / "masks/9_front_lungs.TIF")
    save_pair(pairs / "xrays/10_front.bmp", pairs / "masks/10_front_heart.png")
    inventory = find_dataset("folder", OPTIONS, pairs).inventory()
    assert sorted(sample.id for sample in inventory.samples) == ["7_front", "7_later", "8_front", "9_front"]
    assert inventory.images_without_mask == ["10_front.bmp"]


def test_patients_from_the_name(pairs):
    samples = find_dataset("folder", {**OPTIONS, "patient_pattern": r"^(\d+)_"}, pairs).samples()
    assert [sample.patient for sample in samples] == ["7", "7", "8"]
    with pytest.raises(InputError, match=r"patient_pattern '\^p\(\\d\+\)' finds no patient in '7_front'"):
        find_dataset("folder", {**OPTIONS, "patient_pattern": r"^p(\d+)"}, pairs).samples()


def test_images_that_are_all_patients_of_their_own_are_noted(pairs):
    assert find_dataset("folder", OPTIONS, pairs).inventory().notes == [
        "3 patients = 3 images: set patient_pattern if people have several images"
    ]
    known = find_dataset("folder", {**OPTIONS, "patient_pattern": r"^(\d+)_"}, pairs)
    assert (known.inventory().notes, known.regrouping) == ([], "")


@pytest.fixture
def with_table(pairs):
    """Makes the dataset of `pairs` with a table of these lines."""

    def make(*lines, **options):
        (pairs / "patients.csv").write_text("\n".join(lines), "utf-8-sig")
        return find_dataset("folder", {**OPTIONS, "table": "patients.csv", **options}, pairs)

    return make


def test_a_table_gives_patients_sources_labels_and_spacings(with_table):
    dataset = with_table(
        "image, patient,source,label,spacing_mm",
        "7_front.png,007,north,NA,0.2",
        '7_later,007,north,"a, b",0.2 0.1',
        "8_front,008,south,,",
        "not-there,009,south,,oops",  # a table may be of more images than the folder has
    )
    found = dataset.inventory()
    assert found.notes == []
    assert [(s.id, s.patient, s.source, s.label, s.spacing) for s in found.samples] == [
        ("7_front", "007", "north", "NA", (0.2, 0.2)),
        ("7_later", "007", "north", "a, b", (0.2, 0.1)),
        ("8_front", "008", "south", "", None),
    ]


def test_what_a_table_leaves_out_comes_from_the_spec(with_table):
    lines = ("image,label", "7_front,a", "7_later,b", "8_front,c")
    dataset = with_table(*lines, patient_pattern=r"^(\d+)_", source="clinic", spacing_mm=0.5)
    assert [(s.patient, s.source, s.label, s.spacing) for s in dataset.samples()] == [
        (patient, "clinic", label, (0.5, 0.5)) for patient, label in zip("778", "abc", strict=True)
    ]
    assert "set patient_pattern" in with_table(*lines).inventory().notes[0]


def test_only_a_table_vouches_for_patients_of_one_image_each(with_table):
    (note,) = with_table("image", "7_front", "7_later", "8_front", patient_pattern="(.*)").inventory().notes
    assert note == "3 patients = 3 images: check patient_pattern if people have several images"
    alone = ("image,patient", "7_front,1", "7_later,2", "8_front,3")
    assert with_table(*alone).inventory().notes == []


def test_columns_of_other_things_are_left_alone(with_table):
    samples = with_table("age,image,patient", "40,7_front,7", "41,7_later,7", "9,8_front,8").samples()
    assert [sample.patient for sample in samples] == ["7", "7", "8"]


ROWS = ("7_front,7", "7_later,7", "8_front,8")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("image,patient", *ROWS[:2]), r"patients\.csv has no row for the image 8_front\.png: add one"),
        (("image,patient", *ROWS, ROWS[0]), "has two rows for the image 7_front: remove one"),
        (("image,patient", *ROWS, "7_front.png,7"), r"has two rows for the image 7_front\.png: remove one"),
        (
            ("image,patients", *ROWS),
            "unknown column 'patients': did you mean 'patient'. The known columns are",
        ),
        (("image;patient", *ROWS), "lacks the column image.*separate columns by commas"),
        (("patient,label", *ROWS), "lacks the column image"),
        (("image,image", *ROWS), "has the column image twice"),
        (("image,patient", *ROWS[:2], "8_front"), "line 4 has 1 cells, the first line 2"),
        (("image,patient", *ROWS[:2], "8_front,"), "line 4 has an empty cell in patient: fill it in"),
        (("image,spacing_mm", "7_front,0.2mm", *ROWS[1:]), r"spacing_mm of 7_front is '0\.2mm': give a"),
        (("image,spacing_mm", "7_front,-1", *ROWS[1:]), r"spacing_mm of 7_front is '-1': give a number"),
        (("image,spacing_mm", "7_front,nan", *ROWS[1:]), r"spacing_mm of 7_front is 'nan': give a number"),
        (("image,spacing_mm", "7_front,1 1 1", *ROWS[1:]), r"spacing_mm of 7_front is '1 1 1': give"),
        (("image,patient", '"7_front,7'), "is no CSV"),
        ((), "is empty: its first line names the columns"),
    ],
)
def test_a_table_that_cannot_be_used(with_table, lines, said):
    with pytest.raises(InputError, match=said):
        with_table(*lines).samples()


@pytest.mark.parametrize(
    ("column", "key", "value"),
    [
        ("patient", "patient_pattern", r"^(\d+)_"),
        ("source", "source", "x"),
        ("spacing_mm", "spacing_mm", 0.2),
    ],
)
def test_a_column_and_a_key_that_say_the_same_are_refused(with_table, column, key, value):
    with pytest.raises(InputError, match=f"has the column {column} and the spec sets {key}: remove one"):
        with_table(f"image,{column}", *ROWS, **{key: value}).samples()


def test_a_table_that_is_not_there_or_no_text(with_table, pairs):
    with pytest.raises(InputError, match=r"the table .*none\.csv doesn't exist: check the path"):
        with_table(table="none.csv").samples()
    with pytest.raises(InputError, match=r"the table .*xrays can't be read"):
        with_table(table="xrays").samples()
    (pairs / "latin.csv").write_bytes("image,label\nü,ü".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv is not UTF-8 text: save it as CSV in UTF-8"):
        with_table(table="latin.csv").samples()


def test_one_folder_for_both(tmp_path, save_pair):
    save_pair(tmp_path / "a.png", tmp_path / "a_mask.png")
    save_pair(tmp_path / "b.png", tmp_path / "b_mask.png")
    options = {"images": ".", "masks": ".", "suffix": "_mask"}
    assert [sample.id for sample in find_dataset("folder", options, tmp_path).samples()] == ["a", "b"]
    with pytest.raises(InputError, match="images and masks are the same folder"):
        find_dataset("folder", {"images": ".", "masks": "."}, tmp_path).samples()


@pytest.fixture
def two_masks(tmp_path, save_pair):
    """An image with a mask of the left lung (columns 2 to 4) and one of the right (columns 10 to 14)."""
    save_pair(tmp_path / "xrays/a.png", None)
    for folder, columns in (("left", slice(2, 5)), ("right", slice(10, 15))):
        mask = np.zeros((20, 24), np.uint8)
        mask[:, columns] = 255 if folder == "left" else 1
        (tmp_path / folder).mkdir()
        Image.fromarray(mask).save(tmp_path / folder / "a.png")
    return tmp_path


def test_the_union_of_a_mask_for_each_lung(two_masks, save_pair):
    dataset = find_dataset("folder", {"images": "xrays", "masks": ["left", "right"]}, two_masks)
    (sample,) = dataset.samples()
    mask = sample.mask()
    assert np.flatnonzero(mask[0]).tolist() == [2, 3, 4, 10, 11, 12, 13, 14]
    before = fingerprint([sample])
    save_pair(two_masks / "right/a.png", None)
    assert fingerprint([sample]) != before


def test_half_of_the_masks_is_none(two_masks, save_pair):
    save_pair(two_masks / "xrays/b.png", two_masks / "left/b.png")
    dataset = find_dataset("folder", {"images": "xrays", "masks": ["left", "right"]}, two_masks)
    assert [sample.id for sample in dataset.samples()] == ["a"]
    assert dataset.inventory().images_without_mask == ["b.png"]


def test_a_mask_of_another_size(two_masks, save_pair):
    save_pair(two_masks / "right/a.png", None, (24, 30))
    (sample,) = find_dataset("folder", {"images": "xrays", "masks": ["left", "right"]}, two_masks).samples()
    message = r"right/a\.png is 24 x 30 pixels but its image .*xrays/a\.png is 24 x 20"
    with pytest.raises(SizeMismatch, match=message):
        sample.mask()


def test_two_masks_or_two_images_of_one_stem(pairs, save_pair):
    save_pair(pairs / "masks/7_front_lungs.tif", None)
    save_pair(pairs / "xrays/8_front.jpg", None)
    dataset = find_dataset("folder", OPTIONS, pairs)
    masks, images = dataset.inventory().ambiguous
    assert "7_front_lungs.png and " in masks
    assert masks.endswith("7_front_lungs.tif are both masks of 7_front.png: remove or rename one of them")
    assert images.endswith("8_front.png have the same id 8_front: remove or rename one of them")
    with pytest.raises(InputError, match="both masks"):
        dataset.samples()


def test_missing_and_empty_folders(pairs):
    with pytest.raises(InputError, match=r"the folder .*nowhere doesn't exist"):
        find_dataset("folder", {**OPTIONS, "masks": "nowhere"}, pairs).samples()
    (pairs / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder .*empty holds no image"):
        find_dataset("folder", {**OPTIONS, "images": "empty"}, pairs).samples()
    (pairs / "empty/inner").mkdir()
    for name in ("a.nii", "b.NII", "README", ".hidden"):
        (pairs / "empty" / name).write_text("")
    with pytest.raises(
        InputError, match=r"but 2 \.nii files, 1 file, 1 folder: convert them, or check the path"
    ):
        find_dataset("folder", {**OPTIONS, "images": "empty"}, pairs).samples()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "x"}, "dataset 'folder': the key 'masks' is missing"),
        (
            {"images": "x", "masks": "y", "mask": "z"},
            r"dataset 'folder': unknown key 'mask': did you mean 'masks'\? The known keys are images, ",
        ),
        (
            {"images": 3, "masks": "y"},
            "dataset 'folder': images = 3 can't be used: input should be a valid string",
        ),
        ({"images": "x", "masks": []}, "masks = .* can't be used: name at least one folder"),
        ({"images": "x", "masks": "y", "patient_pattern": "("}, "it is no regular expression"),
        ({"images": "x", "masks": "y", "patient_pattern": "a"}, "it needs one group, as in .*, and has 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        find_dataset("folder", options, None)


def test_unknown_datasets():
    with pytest.raises(InputError, match=r"'set7': choose one of .*cxr704, .*folder, .*truth"):
        find_dataset("set7", {}, None)
    with pytest.raises(InputError, match="dataset 'nowhere:Set': can't import 'nowhere'"):
        find_dataset("nowhere:Set", {}, None)
    with pytest.raises(InputError, match=r"module 'lungseg\.data\.sample' has no class 'Set'"):
        find_dataset("lungseg.data.sample:Set", {}, None)
    with pytest.raises(InputError, match=r"Path is not a subclass of lungseg\.data\.sample\.Dataset"):
        find_dataset("pathlib:Path", {}, None)


def test_a_class_of_ones_own(pairs):
    dataset = find_dataset("lungseg.data.datasets.folder:FolderDataset", OPTIONS, pairs)
    assert len(dataset.samples()) == 3


def test_every_listed_dataset_keeps_the_protocol():
    for name in DATASETS:
        dataset_class = load_class(name, DATASETS, Dataset, "dataset")
        assert dataset_class.Settings.model_config["extra"] == "forbid"


def test_data_needs_no_torch():
    code = "import sys, lungseg.data.splits, lungseg.data.audit.check; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
