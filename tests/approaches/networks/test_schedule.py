import pytest
import torch

from lungseg.approaches.networks.schedule import batches, learning_rate_factor, number_of
from lungseg.approaches.networks.settings import TrainingSettings


@pytest.mark.parametrize(("count", "size"), [(9, 8), (17, 8), (2, 8), (16, 8), (601, 4), (9, 2)])
def test_no_batch_has_a_single_image(count, size):
    found = batches(count, size, seed=0, epoch=0)
    assert sorted(torch.cat(found).tolist()) == list(range(count))
    assert all(2 <= len(part) <= max(size, 3) for part in found)


def test_the_order_differs_from_epoch_to_epoch_and_seed_to_seed_and_repeats():
    orders = [torch.cat(batches(50, 8, *words)).tolist() for words in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


def test_learning_rate_rises_then_falls_to_nothing():
    s = TrainingSettings(warmup_share=0.1)
    rates = [learning_rate_factor(step, 100, s) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert learning_rate_factor(50, 100, TrainingSettings(schedule="constant")) == 1


def test_numbers_of_other_words_differ():
    words = [(0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 1), (0, 1, 1, 0)]
    numbers = {number_of(*each) for each in words}
    assert len(numbers) == len(words)
    assert all(0 <= number < 2**63 for number in numbers)
