"""What a stored fit depends on: the code of an approach, and its seed only where chance plays a part."""

import pytest

from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels, Vgg19PixelsSettings
from lungseg.environment import code_places, hash_code


def test_the_code_of_what_an_approach_is_built_on_counts_as_its_own():
    folders = [place.name for place in code_places(Vgg19Context)]
    assert folders == ["vgg19_context", "vgg19_pixels"]
    assert [place.name for place in code_places(Vgg19Pixels)] == ["vgg19_pixels"]


def test_a_changed_file_of_either_folder_changes_the_hash(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        (folder / "module.py").write_text("A = 1\n")
    before = hash_code(own, other)
    (other / "module.py").write_text("A = 2\n")
    assert hash_code(own, other) != before
    assert hash_code(own) == hash_code(own)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"regressor": "ridge", "size": 16, "pixels_per_image": 256}, False),
        ({"regressor": "ridge", "size": 16, "pixels_per_image": 255}, True),
        ({"regressor": "lightgbm", "size": 16, "pixels_per_image": 256}, True),
        ({"regressor": "mlp", "size": 16, "pixels_per_image": 256}, True),
    ],
)
def test_only_ridge_on_every_pixel_has_nothing_random(settings, expected):
    assert Vgg19Pixels.depends_on_seed(Vgg19PixelsSettings(**settings)) is expected
