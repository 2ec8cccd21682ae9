import errno

import numpy as np
import pytest
import torch

from lungseg.approaches.vgg19_context.augmented_images import (
    VALIDATION,
    AugmentedImages,
    assign_folds,
    read_augmented_images,
)
from lungseg.system.errors import InputError


@pytest.fixture
def read(tmp_path):
    """`read_augmented_images` into a folder of its own each time."""

    def make(*words, **more) -> AugmentedImages:
        return read_augmented_images(tmp_path / str(len(list(tmp_path.iterdir()))), *words, **more)

    return make


class Square:
    """A bright square on black whose mask is the square."""

    patient = "square"

    def mask(self) -> np.ndarray:
        mask = np.zeros((64, 64), bool)
        mask[16:40, 20:50] = True
        return mask

    def image(self) -> np.ndarray:
        return self.mask().astype(np.float32)


def test_images_come_first_then_their_copies_then_validation(discs, small, read):
    train, held = discs(3), discs(2, seed=5)
    cases = read(train, held, small(copies=2), seed=0)
    assert len(cases) == 3 + 6 + 2
    assert cases.groups.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2, VALIDATION, VALIDATION]
    assert cases.is_copy.tolist() == [False] * 3 + [True] * 6 + [False] * 2
    assert cases.is_training.tolist() == [True] * 9 + [False] * 2
    assert cases.images.shape == (11, 1, 64, 64)
    assert cases.masks.shape == (11, 1, 32, 32)
    assert 0 <= cases.images.min() < cases.images.max() <= 1
    for place, sample in zip((0, 1, 2, 9, 10), [*train, *held], strict=True):
        share = sample.mask().reshape(32, 2, 32, 2).mean((1, 3))
        np.testing.assert_allclose(cases.masks[place, 0].float(), share, atol=1e-3)
    batches = cases.list_batches(4)
    assert [(batch.start, batch.stop) for batch in batches] == [(0, 4), (4, 8), (8, 11)]


def test_copies_are_changed_and_repeat_by_the_seed(discs, small, read):
    train = discs(3)
    first, same, other = (read(train, [], small(copies=2), seed) for seed in (0, 0, 1))
    assert np.array_equal(first.images, same.images)
    assert torch.equal(first.masks, same.masks)
    assert np.array_equal(first.images[:3], other.images[:3])
    for place in range(3, 9):
        own = int(first.groups[place])
        assert np.abs(first.images[place] - first.images[own]).mean() > 0.01
        assert np.abs(first.images[place] - other.images[place]).mean() > 0.01
    assert not np.array_equal(first.images[3], first.images[4])


def test_a_copy_depends_on_its_own_image_alone(discs, small, read):
    train = discs(4)
    all_of_them, fewer = (read(train[:count], [], small(), seed=3) for count in (4, 2))
    assert np.array_equal(all_of_them.images[4:6], fewer.images[2:])


def test_masks_move_with_their_images(small, read):
    cases = read([Square()], [], small(copies=6, grid=64, coarse=32), seed=0)
    for place in range(7):
        image, mask = cases.read(place)[0] > 0.5, cases.masks[place] > 0.5
        assert (image != mask).float().mean() < 0.02
    assert all((cases.masks[place] - cases.masks[0]).abs().mean() > 0.01 for place in range(1, 7))


def test_without_copies_there_are_only_the_images(discs, small, read):
    cases = read(discs(2), discs(1, seed=1), small(copies=0), seed=0)
    assert cases.groups.tolist() == [0, 1, VALIDATION]
    assert not cases.is_copy.any()


def test_images_of_one_patient_share_a_group(discs, small, read):
    train = discs(4)
    train[3].patient = train[0].patient
    cases = read(train, discs(1, seed=5), small(), seed=0)
    assert cases.groups.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, VALIDATION]


def test_what_is_stored_is_opened_instead_of_read_again(discs, small, tmp_path):
    train, held = discs(3), discs(1, seed=5)
    first = read_augmented_images(tmp_path, train, held, small(), 0)
    again = read_augmented_images(tmp_path, [], [], small(), 0)
    np.testing.assert_array_equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.groups, again.groups)
    assert torch.equal(first.is_copy, again.is_copy)
    (tmp_path / "cases.safetensors").unlink()  # it was cut before its end
    assert len(read_augmented_images(tmp_path, train[:2], held, small(), 0)) == 5


def test_a_full_disk_is_one_sentence(discs, small, read, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="disk is full"):
        read(discs(2), discs(1, seed=5), small(), seed=0)


@pytest.mark.parametrize(("images", "folds"), [(10, 2), (11, 3), (7, 5), (4, 4)])
def test_folds_are_nearly_equal_and_keep_copies_together(images, folds):
    own = torch.arange(images)
    groups = torch.cat([own, own.repeat_interleave(3), torch.full((4,), VALIDATION)])
    fold = assign_folds(groups, folds, seed=0)
    assert (fold[groups == VALIDATION] == VALIDATION).all()
    for group in range(images):
        assert len(fold[groups == group].unique()) == 1
    sizes = np.bincount(fold[:images].numpy(), minlength=folds)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1
    assert torch.equal(fold, assign_folds(groups, folds, seed=0))


def test_another_seed_draws_other_folds():
    groups = torch.arange(30)
    assert not torch.equal(assign_folds(groups, 2, seed=0), assign_folds(groups, 2, seed=1))
