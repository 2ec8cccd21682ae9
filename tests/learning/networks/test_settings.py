import pytest
from pydantic import ValidationError

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusSettings
from lungseg.learning.networks.schedule import find_working_size
from lungseg.learning.networks.settings import TrainingSettings


def test_a_recipe_fills_what_is_not_given():
    cpu = DeepLabV3PlusSettings(recipe="cpu", epochs=3)
    assert cpu.size == 256
    assert cpu.epochs == 3
    assert DeepLabV3PlusSettings().size == 512
    assert DeepLabV3PlusSettings(recipe="gpu") == DeepLabV3PlusSettings()


def test_the_cpu_recipe_is_eight_epochs_of_small_images_and_four_of_larger_ones():
    cpu = TrainingSettings(recipe="cpu")
    assert [find_working_size(epoch, cpu) for epoch in range(cpu.epochs)] == [128] * 8 + [256] * 4


def test_what_was_stored_comes_back_the_same():
    chosen = DeepLabV3PlusSettings(recipe="cpu", size=64)
    assert DeepLabV3PlusSettings(**chosen.model_dump()) == chosen


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValidationError, match="recipe"):
        TrainingSettings(recipe="tpu")
    with pytest.raises(ValidationError):
        TrainingSettings.model_validate("cpu")
