import shutil

import numpy as np
import pytest
from PIL import Image

from lungseg.data.files import film
from lungseg.data.loading import find_dataset, load_dataset
from lungseg.system.errors import InputError
from tests.data.datasets.layouts import enlarge, make_jsrt, make_montgomery, phantom


@pytest.fixture
def small(monkeypatch):
    """Films of 128 pixels: 256 times fewer than the originals."""
    monkeypatch.setattr(film, "SIDE", 128)


def test_a_film_of_the_original_size_is_turned_over_and_halved(tmp_path):
    make_jsrt(tmp_path, 2048, 1)
    values = np.fromfile(tmp_path / "JPCLN001.IMG", ">u2").reshape(2048, 2048)
    values[:2, :2] = [[0, 4095], [4095, 4095]]  # one dense pixel in four
    values[:2, 2:4] = 0  # dense: white
    values[:2, 4:6] = 4095  # air: black
    values.tofile(tmp_path / "JPCLN001.IMG")
    (sample,) = find_dataset("jsrt", {}, tmp_path).samples()
    image = sample.image()
    assert (image.shape, image.dtype) == ((1024, 1024), np.float32)
    assert image[0, :3].tolist() == [0.25, 1, 0]
    shown, mask = (enlarge(each, 4) for each in phantom(0, 256))
    np.testing.assert_allclose(image[1:], shown[1:] / 255, atol=2e-4)
    np.testing.assert_array_equal(sample.mask(), mask > 0)
    assert sample.spacing == (0.35, 0.35)


@pytest.mark.parametrize("folder", ["JSRT", "."])
def test_the_original_layout_is_read(tmp_path, monkeypatch, small, folder):
    make_jsrt(tmp_path / folder, 128, 3)
    monkeypatch.setenv("LUNGSEG_DATA", str(tmp_path))
    samples = load_dataset("jsrt", {}).samples
    assert {name: sample.label for name, sample in samples.items()} == {
        "JPCLN001": "nodule", "JPCLN003": "nodule", "JPCNN002": "no nodule",
    }  # fmt: skip
    assert {sample.source for sample in samples.values()} == {"jsrt"}
    assert samples["JPCNN002"].patient == "JPCNN002"


def test_as_the_archives_unpack(tmp_path, small):
    make_jsrt(tmp_path, 128, 2)
    for folder, file in (("Nodule154images", "JPCLN001"), ("NonNodule93images", "JPCNN002")):
        (tmp_path / folder).mkdir()
        (tmp_path / f"{file}.IMG").rename(tmp_path / folder / f"{file}.IMG")
    (tmp_path / "scratch").mkdir()
    for fold in ("fold1", "fold2"):
        (tmp_path / fold).rename(tmp_path / "scratch" / fold)
    assert len(find_dataset("jsrt", {}, tmp_path).samples()) == 2


def test_films_that_are_no_films(tmp_path, small):
    make_jsrt(tmp_path, 128, 1)
    (sample,) = find_dataset("jsrt", {}, tmp_path).samples()
    film = tmp_path / "JPCLN001.IMG"
    stored = film.read_bytes()
    film.write_bytes(stored[:-2])
    with pytest.raises(InputError, match=r"JPCLN001\.IMG has 32766 bytes and not 32768 \(128 x 128"):
        sample.image()
    film.write_bytes(np.frombuffer(stored, ">u2").astype("<u2").tobytes())
    with pytest.raises(InputError, match=r"12 bits end at 4095: .* big-endian"):
        sample.image()
    film.unlink()
    with pytest.raises(InputError, match=r"JPCLN001\.IMG can't be read"):
        sample.image()


def test_a_mask_of_another_size(tmp_path, small):
    make_jsrt(tmp_path, 128, 1)
    (sample,) = find_dataset("jsrt", {}, tmp_path).samples()
    Image.new("L", (128, 128), 255).save(tmp_path / "fold1/masks/left lung/JPCLN001.gif")
    with pytest.raises(InputError, match=r"JPCLN001\.gif is 128 x 128 pixels but its image .* is 64 x 64"):
        sample.mask()


def test_what_is_missing_is_said(tmp_path, small):
    (tmp_path / "JSRT/images").mkdir(parents=True)
    (tmp_path / "JSRT/masks").mkdir()
    with pytest.raises(
        InputError,
        match=r'JSRT holds no \.IMG file of dataset jsrt, but 2 folders: use dataset "folder", or get',
    ):
        find_dataset("jsrt", {}, tmp_path).samples()
    make_jsrt(tmp_path / "JSRT", 128, 2)
    with pytest.raises(InputError, match=r'but .*2 \.IMG files: use dataset "jsrt"'):
        find_dataset("montgomery", {}, tmp_path / "JSRT").samples()
    for fold in ("fold1", "fold2"):
        shutil.rmtree(tmp_path / "JSRT" / fold / "masks/left lung")
    with pytest.raises(InputError, match=r"2 \.IMG files of dataset jsrt and no 'fold1/masks/left lung'"):
        find_dataset("jsrt", {}, tmp_path).samples()


def test_other_sets_beside_it_are_left_alone(tmp_path, small):
    make_jsrt(tmp_path / "JSRT", 128, 2)
    make_montgomery(tmp_path / "MontgomerySet", 1)
    assert len(find_dataset("jsrt", {}, tmp_path).samples()) == 2
    assert len(find_dataset("montgomery", {}, tmp_path).samples()) == 1
