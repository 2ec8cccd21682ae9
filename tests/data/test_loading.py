import sys
from types import ModuleType

import pytest

from lungseg.data.loading import load_dataset
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError


@pytest.fixture
def load(monkeypatch):
    """Load samples as those of a third-party dataset."""

    def load_samples(samples):
        class Theirs(Dataset):
            def inventory(self):
                return Inventory(None, samples)

        module = ModuleType("their_module")
        module.Theirs = Theirs
        monkeypatch.setitem(sys.modules, "their_module", module)
        return load_dataset("their_module:Theirs", {})

    return load_samples


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden"])
def test_ids_that_cannot_be_names_of_files_are_refused(load, discs, name):
    samples = discs(2)
    samples[0].id = name
    with pytest.raises(InputError, match="can't be a file's name: rename the image"):
        load(samples)


def test_duplicate_ids_are_refused(load, discs):
    samples = discs(3)
    samples[2].id = samples[0].id
    with pytest.raises(InputError, match="the id disc-000 is used 2 times: rename the images"):
        load(samples)


def test_a_mask_of_another_size_is_refused_and_empty_ones_are_noted(load, discs):
    samples = discs(3)
    samples[1]._mask[:] = False
    (note,) = load(samples).notes
    assert note.startswith("their_module:Theirs: 1 masks are empty, and are learnt from as they are: a")
    samples[2]._mask = samples[2]._mask[:-1]
    with pytest.raises(InputError, match=r"image disc-002 is \(64, 64\), its mask \(63, 64\)"):
        load(samples)


def test_no_image_with_a_mask_is_refused(load):
    with pytest.raises(InputError, match="has no image with a mask: look with `lungseg data check`"):
        load([])
