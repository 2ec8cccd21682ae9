"""The starter model comes with lungseg, small, and finds lungs without data, weights or network."""

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import lungseg
from lungseg.data.datasets.phantom import render
from lungseg.learning.weights import PACKAGED
from lungseg.prediction.models import STARTER
from lungseg.scoring.overlap import mean_dice

MOST_BYTES = 8_000_000


def test_it_is_small_and_says_what_it_is():
    assert sum(path.stat().st_size for path in STARTER.rglob("*") if path.is_file()) <= MOST_BYTES
    card = (STARTER / "README.md").read_text("utf-8")
    for words in ("For research, not for diagnosis", "`phantom`", "| cxr704 | Dice | ", "| jsrt | Dice | "):
        assert words in card


def test_it_finds_the_lungs_of_phantoms_that_it_has_not_seen():
    model = lungseg.load()
    pairs = [render(seed=77, index=index, size=256) for index in range(4)]
    maps, truths = zip(*[(model.predict(image), truth) for image, truth in pairs], strict=True)
    assert mean_dice(maps, truths) > 0.95


def test_other_weights_on_the_machine_change_nothing(tmp_path, monkeypatch):
    image = render(seed=77, index=0, size=128)[0]
    expected = lungseg.load().predict(image)
    other = {name: torch.flip(value, (0,)) for name, value in load_file(PACKAGED["vgg19"]).items()}
    save_file(other, tmp_path / "vgg19.safetensors")
    monkeypatch.setenv("LUNGSEG_WEIGHTS", str(tmp_path))
    np.testing.assert_array_equal(lungseg.load().predict(image), expected)


def test_two_commands_from_nothing_to_a_mask(lungseg, tmp_path):
    picture = tmp_path / "picture.png"
    image, truth = render(seed=77, index=1, size=200)
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(picture)
    done = lungseg("predict", str(picture), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "out/masks/picture.png")) / np.float32(255)
    assert mean_dice([mask], [truth]) > 0.9
    assert {path.parent.name for path in (tmp_path / "out").glob("*/*.png")} == {
        "masks",
        "overlays",
        "cutouts",
    }
