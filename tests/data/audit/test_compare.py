import io

import numpy as np
import pytest
from PIL import Image

from lungseg.data.audit.compare import Pair, compare_samples, find_leaks
from lungseg.data.audit.pictures import NEAR_DUPLICATE, find_alike_pairs, prepare_picture
from lungseg.data.datasets.phantom import render
from lungseg.data.files.file_sample import FileSample
from lungseg.data.sample import Sample


def find_pairs(*arguments, **options):
    return compare_samples(*arguments, **options).pairs


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LUNGSEG_CACHE", str(folder))
    return folder


class ArraySample(Sample):
    """A picture in memory; its mask is only a number that makes its content differ."""

    def __init__(self, name, image, source, patient, mask=0):
        self.id, self.source, self.patient, self.label = name, source, patient, ""
        self._image, self._mask = np.asarray(image, np.float32), mask

    def image(self):
        return self._image

    def mask(self):
        return np.full(self._image.shape, bool(self._mask))

    def content(self):
        return self._image.tobytes() + bytes([self._mask])


def sample(name, image, source="s", patient=None, mask=0):
    return ArraySample(name, image, source, patient or name, mask)


@pytest.fixture(scope="module")
def phantoms():
    return [render(0, index, 256)[0] for index in range(40)]


def resized(image):
    return np.asarray(Image.fromarray(image).resize((150, 180), Image.Resampling.BICUBIC))


def compressed(image):
    buffer = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer)) / np.float32(255)


COPIES = {
    "resized": resized,
    "JPEG 50": compressed,
    "another gamma": lambda image: np.clip(1.1 * image**0.7, 0, 1),
    "mirrored": lambda image: image[:, ::-1],
    "cropped by 5 % at a corner": lambda image: image[13:, 13:],
    "cropped by 5 % all round": lambda image: image[13:-13, 13:-13],
}


def test_copies_of_every_kind_are_found_among_phantoms_and_nothing_else(phantoms):
    originals = [sample(f"p{index}", image) for index, image in enumerate(phantoms)]
    copies, expected = [], set()
    for number, (kind, change) in enumerate(COPIES.items()):
        for index in (number, number + 20):
            copies.append(sample(f"{kind} of p{index}", np.ascontiguousarray(change(phantoms[index]))))
            expected.add((f"p{index}", copies[-1].id))
    pairs = find_pairs({"originals": originals, "copies": copies})
    assert {(pair.first[1], pair.second[1]) for pair in pairs} == expected
    assert {pair.kind for pair in pairs} == {"near-duplicate"}
    assert all(pair.first[0] == "originals" and pair.second[0] == "copies" for pair in pairs)
    assert all(NEAR_DUPLICATE <= pair.similarity <= 1 for pair in pairs)


def test_small_phantoms_raise_no_false_alarm():
    pictures = [prepare_picture(render(1, index, 96)[0]) for index in range(40)]
    assert all(one is not None for one in pictures)
    assert find_alike_pairs(pictures, NEAR_DUPLICATE) == []


def test_blocks_of_pictures_don_t_change_what_is_found(phantoms, monkeypatch):
    pictures = [
        prepare_picture(image) for image in [*phantoms[:5], *(image[13:, 13:] for image in phantoms[:5])]
    ]
    whole = find_alike_pairs(pictures, NEAR_DUPLICATE)
    monkeypatch.setattr("lungseg.data.audit.pictures._BLOCK", 3)
    assert [pair[:2] for pair in whole] == [(index, index + 5) for index in range(5)]
    np.testing.assert_allclose(find_alike_pairs(pictures, NEAR_DUPLICATE), whole, rtol=1e-6)


def test_pictures_that_show_too_little_are_never_near_duplicates(discs):
    rows, columns = np.mgrid[:128, :128] / 128
    groups = {
        "blank": [sample(f"blank-{i}", np.full((128, 128), 0.2 * i, np.float32)) for i in range(3)],
        "ramps": [sample(f"ramp-{i}", ((rows + i * columns) / 4).astype(np.float32)) for i in range(3)],
        "blobs": [
            sample(f"blob-{i}", np.exp(-((rows - 0.5) ** 2 + (columns - 0.4 - i / 20) ** 2) * 20))
            for i in range(3)
        ],
        "small": discs(3, 48),
    }
    findings = compare_samples(groups)
    assert findings.pairs == []
    assert findings.lookalikes == []
    assert findings.uncompared == [(name, one.id) for name, group in groups.items() for one in group]


def test_noisy_discs_raise_no_false_alarm(discs):
    findings = compare_samples({"discs": discs(12, 96)})
    assert findings.pairs == []
    assert findings.uncompared == []


def test_files_are_compared_by_the_bytes_of_the_image_and_pixels_by_value(tmp_path, phantoms):
    grey = Image.fromarray((phantoms[0] * 255).astype(np.uint8))
    grey.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    grey.save(tmp_path / "c.bmp")
    samples = []
    for number, name in enumerate(("a.png", "b.png", "c.bmp")):
        mask = tmp_path / f"mask-{name}.png"
        Image.fromarray(np.full((256, 256), number, np.uint8)).save(mask)  # the masks differ
        samples.append(FileSample(name, "s", name, "", tmp_path / name, (mask,)))
    for pictures in (True, False):
        pairs = find_pairs({"set": samples}, pictures=pictures)
        assert [(pair.kind, pair.first[1], pair.second[1]) for pair in pairs] == [
            ("same file", "a.png", "b.png"),
            ("same pixels", "a.png", "c.bmp"),
            ("same pixels", "b.png", "c.bmp"),
        ]


def test_the_same_id_in_two_datasets_and_a_picture_with_another_mask(phantoms):
    two = [sample("x", phantoms[0], mask=1), sample("y", phantoms[1])]
    pairs = find_pairs({"one": [sample("x", phantoms[0])], "two": two})
    # Both are of the patient x too; the stronger kind counts.
    assert pairs == [Pair("same pixels", ("one", "x"), ("two", "x"))]


def test_patients_are_distinguished_by_their_source(phantoms):
    samples = [
        sample("a", phantoms[0], "north", "7"),
        sample("b", phantoms[1], "north", "7"),
        sample("c", phantoms[2], "south", "7"),
    ]
    assert find_pairs({"one": samples[:1], "two": samples[1:]}, pictures=False) == [
        Pair("same patient", ("one", "a"), ("two", "b"))
    ]


def test_leaks_are_pairs_on_two_sides():
    a, b, c, d = (("set", name) for name in "abcd")
    pairs = [Pair("same file", a, b), Pair("same pixels", b, c), Pair("same patient", c, d)]
    assert find_leaks(pairs, {a: "train", b: "train", c: "test"}) == [pairs[1]]
    assert find_leaks(pairs, {a: "validation", b: "train", c: "train", d: "test"}) == [pairs[0], pairs[2]]
    assert find_leaks(pairs, {a: "train", ("other", "b"): "test"}) == []


def test_sentences():
    a, b, c = ("cxr704", "A_1"), ("cxr704", "A_2"), ("folder", "A_1")
    assert Pair("near-duplicate", a, b, 0.984).describe() == (
        "A_1 and A_2 (cxr704) show the same picture (near-duplicate, similarity 0.98)"
    )
    assert Pair("same file", a, c).describe() == (
        "A_1 (cxr704) and A_1 (folder) show the same picture (same file)"
    )
    assert Pair("same patient", a, b).describe() == "A_1 and A_2 (cxr704) are of the same patient"
    assert Pair("look-alike", a, b, 0.7).describe() == (
        "A_1 and A_2 (cxr704) may show the same person (look-alike, similarity 0.70)"
    )


def groups_of(phantoms):
    return {"set": [sample("a", phantoms[0]), sample("b", phantoms[0][:, ::-1]), sample("c", phantoms[1])]}


def test_a_second_look_reads_no_picture_and_finds_the_same(phantoms, cache, monkeypatch):
    seen = []
    first = find_pairs(groups_of(phantoms), lambda *step: seen.append(step))
    assert [(pair.first[1], pair.second[1]) for pair in first] == [("a", "b")]
    assert seen[:3] == [(n, 3, "reading pictures") for n in (1, 2, 3)]
    assert seen[-1] == (3, 3, "comparing pictures")
    assert len([path for path in (cache / "lungseg" / "audit").rglob("*") if path.is_file()]) == 3
    monkeypatch.setattr(ArraySample, "image", lambda self: pytest.fail("read again"))
    renamed = groups_of(phantoms)["set"]
    assert find_pairs({"set": renamed}) == first
    assert find_pairs({"other": renamed[::-1]})[0].similarity == first[0].similarity


def test_a_cache_that_can_t_be_written_is_none(phantoms, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LUNGSEG_CACHE", str(tmp_path / "file"))
    assert len(find_pairs(groups_of(phantoms))) == 1
    assert (tmp_path / "file").read_text() == "not a folder"
