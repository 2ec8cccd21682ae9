import pytest

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.system.errors import InputError
from lungseg.system.plugins import load_class, validate


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"color": 1}, ["unknown key 'color'", "contexts"]),
        ({"boosting": {"depth": 3}}, ["unknown key 'boosting.depth'", "leaves"]),
        ({"boosting": {"column_share": 0}}, ["boosting.column_share"]),
        ({"boosting": {"rounds": 0}}, ["boosting.rounds"]),
        ({"boosting": {"leaves": 1}}, ["boosting.leaves"]),
        ({"layers": ["relu4_1"]}, ["layers", "relu4_1"]),
        ({"grid": 96}, ["grid 96", "256"]),
        ({"coarse": 48}, ["coarse 48", "128"]),
        ({"size": 200, "grid": 100, "coarse": 50, "scales": [200]}, ["size 200"]),
        ({"scales": [256, 100]}, ["scale 100", "256"]),
        ({"scales": [4]}, ["scale 4"]),
        ({"scales": [512]}, ["scale 512"]),
        ({"scales": []}, ["scales and layers"]),
        ({"scales": [256, 256]}, ["no scale twice"]),
        ({"scales": [16], "layers": ["relu2_2"]}, ["at least one map"]),
        ({"size": 48, "grid": 24, "coarse": 12, "scales": [48]}, ["shape_prior", "48"]),
        ({"size": 96, "grid": 48, "coarse": 24, "scales": [48]}, ["shape_prior", "grid 48"]),
        (
            {"size": 384, "grid": 192, "coarse": 64, "scales": [384, 192, 96], "shape_prior": False},
            ["96 pixels a side", "64"],
        ),
        (
            {"size": 384, "grid": 192, "coarse": 96, "scales": [384, 192], "layers": ["relu1_2"]},
            ["shape_prior", "grid 96"],
        ),
        ({"size": 16}, ["size"]),
        ({"folds": 1}, ["folds"]),
        ({"contexts": -1}, ["contexts"]),
        ({"copies": -1}, ["copies"]),
        ({"pixels_per_image": 0}, ["pixels_per_image"]),
        ({"regressor": "forest"}, ["regressor", "lightgbm"]),
        ({"augmentation": {"gamma": [2, 1]}}, ["augmentation.gamma"]),
        (
            {"features": False, "grey": False, "coordinates": False, "shape_prior": False},
            ["nothing is left", "features"],
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(bad, words):
    with pytest.raises(InputError) as refusal:
        validate(Vgg19ContextSettings, bad, "approach 'x'")
    sentence = str(refusal.value)
    assert "\n" not in sentence
    for word in ["approach 'x'", *words]:
        assert word in sentence


def test_the_defaults_and_what_a_spec_may_say_are_accepted():
    assert validate(Vgg19ContextSettings, {}, "x") == Vgg19ContextSettings()
    spec = {"scales": [64, 32], "size": 64, "grid": 32, "coarse": 16, "layers": ["relu1_2"]}
    assert [block.name for block in validate(Vgg19ContextSettings, spec, "x").blocks] == [
        "relu1_2@64",
        "relu1_2@32",
    ]
    assert validate(Vgg19ContextSettings, {"features": False}, "x").blocks == ()


def test_it_is_known_by_its_name():
    assert load_class("vgg19-context", APPROACHES, Approach, "approach") is Vgg19Context


def test_trees_that_a_spec_gives_are_meant_for_all_stages_if_it_gives_no_others():
    one = Vgg19ContextSettings(boosting={"rounds": 7, "leaves": 5})
    early, last = one.get_boosting(last=False), one.get_boosting(last=True)
    assert (early.rounds, early.leaves) == (last.rounds, last.leaves) == (7, 5)
    default = Vgg19ContextSettings()
    # A key that isn't given stays what it is by default at each stage.
    assert early.learning_rate == default.context_boosting.learning_rate
    assert last.learning_rate == default.boosting.learning_rate != early.learning_rate
    both = Vgg19ContextSettings(boosting={"rounds": 7}, context_boosting={"rounds": 3})
    assert [both.get_boosting(last).rounds for last in (False, True)] == [3, 7]
    assert both.context_boosting.leaves == default.context_boosting.leaves
    only = Vgg19ContextSettings(context_boosting={"rounds": 3})
    assert only.boosting == default.boosting
    assert Vgg19ContextSettings(boosting=last).context_boosting.rounds == 7
    for settings in (one, both, default):  # as results and models store them
        assert Vgg19ContextSettings.model_validate(settings.model_dump()) == settings


def test_the_fast_recipe_fills_what_is_not_given_in_all_stages():
    fast = Vgg19ContextSettings(recipe="fast", copies=5)
    assert (fast.size, fast.grid, fast.copies) == (128, 64, 5)
    assert fast.boosting.rounds == fast.context_boosting.rounds == 120
    assert Vgg19ContextSettings(**fast.model_dump()) == fast
    assert Vgg19ContextSettings(recipe="full") == Vgg19ContextSettings()
    own = Vgg19ContextSettings(recipe="fast", boosting={"rounds": 7})
    assert own.boosting.rounds == own.context_boosting.rounds == 7
