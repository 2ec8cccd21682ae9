"""What fitted trees read most: shares against the gains in LightGBM's own text."""

import re

import numpy as np
import pytest

from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_pixels.approach import Vgg19Pixels, Vgg19PixelsSettings

PIXELS = {"weights": "random", "size": 16, "boosting": {"rounds": 6, "min_leaf": 5}}
CONTEXT = {
    "weights": "random",
    "size": 64,
    "grid": 32,
    "coarse": 16,
    "scales": (64, 32),
    "layers": ("relu1_2",),
    "components": 2,
    "copies": 0,
    "contexts": 1,
    "boosting": {"rounds": 5, "min_leaf": 10},
}


def gains_of(text: str, columns: int) -> np.ndarray:
    """The gain of each column, summed over all splits of a model's text."""
    gains = np.zeros(columns)
    features = re.findall(r"^split_feature=(.+)$", text, re.M)
    for places, values in zip(features, re.findall(r"^split_gain=(.+)$", text, re.M), strict=True):
        for place, value in zip(places.split(), values.split(), strict=True):
            gains[int(place)] += float(value)
    return gains


def test_the_channels_of_the_plain_approach(discs, runtime, new_fit_context, tmp_path):
    approach = Vgg19Pixels(Vgg19PixelsSettings(**PIXELS), runtime)
    approach.fit(discs(6), discs(2, seed=1), new_fit_context())
    rows = approach.importance()
    assert [row[:2] for row in rows] == [("regression", f"relu1_2:{index}") for index in range(64)]
    approach.save(tmp_path)
    gains = gains_of((tmp_path / "lightgbm.txt").read_text(), 64)
    assert gains.sum() > 0
    assert [row[2] for row in rows] == pytest.approx(gains / gains.sum(), rel=1e-4)
    stored = Vgg19Pixels.load(tmp_path, approach.settings, runtime).importance()
    assert [row[2] for row in stored] == pytest.approx([row[2] for row in rows], rel=1e-4)


@pytest.mark.parametrize("regressor", ["ridge", "sklearn.tree:ExtraTreeRegressor"])
def test_without_lightgbm_nothing_is_told(discs, runtime, new_fit_context, regressor):
    plain = Vgg19Pixels(Vgg19PixelsSettings(**PIXELS, regressor=regressor), runtime)
    plain.fit(discs(4), discs(2, seed=1), new_fit_context())
    assert plain.importance() == []


def test_the_columns_of_each_stage(discs, runtime, new_fit_context, tmp_path):
    approach = Vgg19Context(Vgg19ContextSettings(**CONTEXT), runtime)
    approach.fit(discs(6), discs(2, seed=1), new_fit_context())
    approach.save(tmp_path)
    rows = approach.importance()
    stored = Vgg19Context.load(tmp_path, approach.settings, runtime).importance()
    assert stored == rows
    for number, sources in ((1, ["shape prior"]), (2, ["shape prior", "map 1"])):
        part = [row[1:] for row in rows if row[0] == f"stage {number}"]
        names = [name for name, _ in part]
        assert names[:4] == ["relu1_2@64:0", "relu1_2@64:1", "relu1_2@32:0", "relu1_2@32:1"]
        sources_read = dict.fromkeys(name.partition(":")[0] for name in names[4:])
        assert list(sources_read) == ["grey", "coordinates", *sources]
        gains = gains_of((tmp_path / f"stage-{number}" / "lightgbm.txt").read_text(), len(names))
        assert [share for _, share in part] == pytest.approx(gains / gains.sum(), rel=1e-4)


def test_stages_of_another_regressor_tell_nothing(discs, runtime, new_fit_context):
    approach = Vgg19Context(Vgg19ContextSettings(**{**CONTEXT, "contexts": 0, "regressor": "ridge"}), runtime)
    approach.fit(discs(4), discs(2, seed=1), new_fit_context())
    assert approach.importance() == []
