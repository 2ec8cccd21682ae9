import pytest
import torch

from lungseg.learning.networks.schedule import (
    compute_learning_rate_factor,
    count_small_epochs,
    count_work,
    derive_seed,
    draw_batches,
    find_working_size,
)
from lungseg.learning.networks.settings import TrainingSettings


@pytest.mark.parametrize(("count", "size"), [(9, 8), (17, 8), (2, 8), (16, 8), (601, 4), (9, 2)])
def test_no_batch_has_a_single_image(count, size):
    found = draw_batches(count, size, seed=0, epoch=0)
    assert sorted(torch.cat(found).tolist()) == list(range(count))
    assert all(2 <= len(part) <= max(size, 3) for part in found)


def test_the_order_differs_from_epoch_to_epoch_and_seed_to_seed_and_repeats():
    orders = [torch.cat(draw_batches(50, 8, *words)).tolist() for words in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


def test_learning_rate_rises_then_falls_to_nothing():
    s = TrainingSettings(warmup_share=0.1)
    rates = [compute_learning_rate_factor(step, 100, s) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert compute_learning_rate_factor(50, 100, TrainingSettings(schedule="constant")) == 1


def test_numbers_of_other_words_differ():
    words = [(0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 1), (0, 1, 1, 0)]
    numbers = {derive_seed(*each) for each in words}
    assert len(numbers) == len(words)
    assert all(0 <= number < 2**63 for number in numbers)


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ({}, [256] * 4),
        ({"small_share": 0.5}, [128, 128, 256, 256]),
        ({"small_share": 0.5, "small_size": 64}, [64, 64, 256, 256]),
        ({"small_share": 0.99}, [128, 128, 128, 256]),
        ({"small_share": 0.1}, [256] * 4),
        ({"small_share": 0.5, "size": 128}, [128] * 4),
        ({"small_share": 0.5, "size": 96}, [96] * 4),
    ],
)
def test_small_images_come_first(values, sizes):
    s = TrainingSettings(**{"size": 256, "epochs": 4, **values})
    assert [find_working_size(epoch, s) for epoch in range(4)] == sizes
    assert count_small_epochs(s) == sum(size < s.size for size in sizes)


def test_a_single_epoch_has_the_full_size():
    assert find_working_size(0, TrainingSettings(size=256, epochs=1, small_share=0.9)) == 256


def test_the_cost_of_a_step_goes_by_its_pixels():
    s = TrainingSettings(size=256, epochs=5, small_share=0.6)
    assert [count_work(*at, 10, s) for at in ((0, 3), (3, 0), (3, 1), (5, 0))] == [3, 30, 34, 110]
    plain = TrainingSettings(size=256, epochs=5)
    assert [count_work(*at, 10, plain) for at in ((0, 3), (3, 1), (5, 0))] == [3, 31, 50]
