import numpy as np
import pytest
from PIL import Image

from lungseg.data.audit.check import check_dataset
from lungseg.data.datasets.phantom import render
from lungseg.data.loading import find_dataset
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def check(root, **options):
    return check_dataset(find_dataset("cxr704", options, root))


def overwrite_mask(root, name, values):
    Image.fromarray(values.astype(np.uint8)).save(root / "masks" / name)


def test_a_sound_set(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    seen = []
    dataset = find_dataset("cxr704", {}, tmp_path)
    report = check_dataset(dataset, lambda done, total, text: seen.append((done, total, text)))
    assert report.ok
    assert report.problems == []
    assert report.notes[0] == "images without a mask, left out: 1 (CHNCXR_0025_0.png)"
    assert (report.count, report.patients) == (5, 5)
    assert report.sources == {"shenzhen": 3, "montgomery": 2}
    assert report.labels == {"normal": 3, "tuberculosis": 2}
    assert report.sizes == {(20, 24): 4, (40, 30): 1}
    assert sorted(report.lung_shares) == pytest.approx([60 / 1200, *[60 / 480] * 4])
    assert [done for done, _, _ in seen[:5]] == [1, 2, 3, 4, 5]
    assert seen[0][1:] == (5, "CHNCXR_0001_0")


def test_rows_are_what_is_printed(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    rows = dict(check(tmp_path).rows())
    assert rows["images with a mask"] == "5"
    assert rows["sources"] == "shenzhen: 3, montgomery: 2"
    assert rows["sizes (height x width)"] == "20 x 24: 4, 40 x 30: 1"
    assert rows["lung share of an image"] == "12% (median), 5% to 12%"
    assert rows["images without a mask"] == "1: CHNCXR_0025_0.png"
    assert rows["empty masks"] == "0"


def test_duplicate_pictures_are_noted_and_no_problem(tmp_path, make_cxr704):
    make_cxr704(tmp_path)  # four of its five X-rays are one file: six pairs
    report = check(tmp_path)
    assert report.ok
    assert len(report.duplicates) == 6
    assert {name for pair in report.duplicates for _, name in (pair.first, pair.second)} == {
        "CHNCXR_0001_0",
        "CHNCXR_0003_1",
        "MCUCXR_0001_0",
        "MCUCXR_0002_1",
    }
    shown = (
        "CHNCXR_0001_0 = CHNCXR_0003_1, CHNCXR_0001_0 = MCUCXR_0001_0, "
        "CHNCXR_0001_0 = MCUCXR_0002_1 and 3 more"
    )
    assert dict(report.rows())["duplicate pictures"] == f"6: {shown}"
    assert report.notes[1] == (
        f"duplicate pictures (same file): {shown}; keep each pair on one side of a split, or remove one"
    )
    assert "5 images are too small, blank or blurred to look for near-duplicates" in report.notes[2]


def test_a_mirrored_copy_is_noted_with_its_similarity(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    picture = (render(0, 0, 128)[0] * 255).astype(np.uint8)
    for name, shown in (("MCUCXR_0001_0", picture), ("MCUCXR_0002_1", picture[:, ::-1])):
        Image.fromarray(shown).save(tmp_path / "CXR_png" / f"{name}.png")
        overwrite_mask(tmp_path, f"{name}.png", 255 * np.eye(128))
    report = check(tmp_path, sources=["montgomery"])
    assert report.ok
    assert dict(report.rows())["duplicate pictures"] == ("1: MCUCXR_0001_0 = MCUCXR_0002_1 (1.00)")


def test_each_kind_of_damage_is_found_and_the_rest_still_checked(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    image = tmp_path / "CXR_png/CHNCXR_0001_0.png"
    image.write_bytes(image.read_bytes()[:90])
    overwrite_mask(tmp_path, "CHNCXR_0002_0_mask.png", np.zeros((40, 30)))
    overwrite_mask(tmp_path, "CHNCXR_0003_1_mask.png", np.full((20, 24), 255))
    overwrite_mask(tmp_path, "MCUCXR_0001_0.png", np.eye(20))
    report = check(tmp_path)
    assert not report.ok
    assert len(report.problems) == 4
    assert len(report.unreadable) == 1
    assert "CHNCXR_0001_0.png is truncated or damaged" in report.problems[0]
    assert "MCUCXR_0001_0.png is 20 x 20 pixels but its image" in report.problems[1]
    assert report.problems[2] == "the mask of CHNCXR_0002_0 is empty: correct or remove it"
    assert report.problems[3] == "the mask of CHNCXR_0003_1 is all lung: correct or remove it"
    assert len(report.lung_shares) == 3


def test_three_labels_and_blank_images_are_problems(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    labels = np.zeros((20, 24))
    labels[:, 6:12], labels[:, 12:18] = 1, 2
    overwrite_mask(tmp_path, "MCUCXR_0001_0.png", labels)
    Image.new("L", (24, 20)).save(tmp_path / "CXR_png/MCUCXR_0002_1.png")
    unusable, blank = check(tmp_path).problems
    assert "MCUCXR_0001_0.png has 3 labels (0, 1, 2)" in unusable
    assert blank == "the image MCUCXR_0002_1 is blank: copy it again or remove it"


def test_two_masks_for_one_image_are_a_problem_and_an_orphan_is_a_note(tmp_path, make_cxr704, save_pair):
    make_cxr704(tmp_path)
    save_pair(tmp_path / "masks/MCUCXR_0001_0_mask.png", None)
    (tmp_path / "CXR_png/MCUCXR_0002_1.png").unlink()
    report = check(tmp_path)
    assert len(report.problems) == 1
    assert "are both masks of MCUCXR_0001_0.png" in report.problems[0]
    assert report.notes[1] == "masks without an image, left out: 1 (MCUCXR_0002_1.png)"
    assert report.count == 3


def test_no_image_with_a_mask(tmp_path, save_pair):
    save_pair(tmp_path / "CXR_png/MCUCXR_0001_0.png", tmp_path / "masks/MCUCXR_0009_0.png")
    report = check(tmp_path)
    assert report.problems == ["no image has a mask: check the names of the masks"]
    assert dict(report.rows())["lung share of an image"] == "none"


def test_a_missing_set_is_an_error(tmp_path):
    with pytest.raises(InputError, match="set LUNGSEG_DATA"):
        check(tmp_path)


def test_a_dataset_of_ones_own_with_a_duplicate_id_and_masks_of_another_size(tmp_path, make_cxr704):
    make_cxr704(tmp_path)
    first, second = find_dataset("cxr704", {}, tmp_path).samples()[:2]

    class Careless(Dataset):
        def inventory(self):
            return Inventory(None, [first, first, _Mixed(first, second)])

    class _Mixed(type(first)):
        def __init__(self, image, mask):
            self.__dict__.update(image.__dict__, id="mixed", other=mask)

        def mask(self):
            return self.other.mask()

    report = check_dataset(Careless(Careless.Settings(), None))
    assert report.ambiguous == ["the id CHNCXR_0001_0 is used 2 times: rename the images"]
    assert [pair.sentence for pair in report.size_mismatches] == [
        "the mask of mixed has 40 x 30 pixels but its image 20 x 24: give a mask of the image's size"
    ]
    assert dict(report.rows())["folder"] == "none: made by a generator"


def test_half_of_the_images_without_a_mask_is_a_problem(tmp_path, save_pair):
    for index in range(4):
        mask = tmp_path / f"masks/{index}.png" if index < 2 else None
        save_pair(tmp_path / f"images/{index}.png", mask)
    report = check_folder(tmp_path)
    assert report.problems[0] == "2 of 4 images have no mask: check the names of the masks (2.png, 3.png)"
    assert not any("have no mask" in note for note in report.notes)


def check_folder(root):
    return check_dataset(find_dataset("folder", {"images": "images", "masks": "masks"}, root))


def test_masks_of_another_size_are_one_sentence_for_each_factor(tmp_path, save_pair):
    for index in range(5):
        save_pair(tmp_path / f"images/{index}.png", tmp_path / f"masks/{index}.png")
        scale = 3 if index < 3 else 2
        mask = tmp_path / f"masks/{index}.png"
        with Image.open(mask) as opened:
            opened.resize((int(opened.width * scale), int(opened.height * scale))).save(mask)
    assert check_folder(tmp_path).problems == [
        f"{count} masks are of another size, all {factor} of their image's: "
        "set resize_masks = true if they are only scaled"
        for count, factor in ((3, "3"), (2, "2"))
    ]
