import threading
import time

import pytest
import torch

from lungseg.learning.networks import feed as module
from lungseg.learning.networks.feed import Feed
from lungseg.learning.networks.image_cache import Images

CPU = torch.device("cpu")


def test_batches_come_in_their_order_with_names(noise_images):
    data = noise_images(7)
    order = [torch.tensor([5, 0, 2]), torch.tensor([1, 6]), torch.tensor([3, 4])]
    found = list(Feed(data, order, CPU))
    assert [batch.names for batch in found] == [[f"picture-{i}" for i in part.tolist()] for part in order]
    for batch, part in zip(found, order, strict=True):
        images, masks = data.read_batch(part.tolist())
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.masks, masks)
        assert (batch.first, batch.whole) == (0, len(part))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_batches(noise_images, count):
    order = [torch.tensor([0, 1])] * count
    assert len(list(Feed(noise_images(), order, CPU))) == count


def test_a_process_reads_its_own_part(noise_images, monkeypatch):
    monkeypatch.setattr(module.distributed, "shard", lambda items: items[2:4])
    (batch,) = Feed(noise_images(), [torch.tensor([5, 4, 3, 2, 1])], CPU)
    assert torch.equal(batch.images, noise_images().read_batch([3, 2])[0])
    assert batch.names == [f"picture-{i}" for i in (5, 4, 3, 2, 1)]  # an error names the whole batch
    assert (batch.first, batch.whole) == (2, 5)


def test_time_waited_is_that_of_reading_and_not_of_computing(noise_images):
    data = noise_images()
    read = data.read_batch

    def slow(chosen):
        time.sleep(0.05)
        return read(chosen)

    data.read_batch = slow
    waiting, busy = (Feed(data, [torch.tensor([0, 1])] * 6, CPU) for _ in range(2))
    for _ in waiting:
        pass
    for _ in busy:
        time.sleep(0.08)
    assert waiting.waited > busy.waited > 0  # all six of them, and the first one alone


def test_leaving_in_the_midst_ends_the_reading(noise_images):
    before = threading.active_count()
    for _ in Feed(noise_images(), [torch.tensor([0, 1])] * 50, CPU):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_an_image_that_cannot_be_read_ends_the_epoch(noise_images):
    data = noise_images()

    def fail(chosen):
        raise OSError("gone")

    data.read_batch = fail
    with pytest.raises(OSError, match="gone"):
        list(Feed(data, [torch.tensor([0, 1])], CPU))


def test_batches_of_images_that_the_device_holds_are_those_of_the_host(noise_images, monkeypatch):
    host, resident = noise_images(), noise_images()
    resident.keep_on(CPU)
    order = [torch.tensor([5, 4, 3, 2]), torch.tensor([0, 1, 5])]
    for part in (slice(None), slice(1, 3)):  # one process, and one of several
        monkeypatch.setattr(module.distributed, "shard", lambda items, part=part: items[part])
        pairs = list(zip(Feed(resident, order, CPU), Feed(host, order, CPU), strict=True))
        assert len(pairs) == 2
        for found, expected in pairs:
            assert torch.equal(found.images, expected.images)
            assert torch.equal(found.masks, expected.masks)
            assert (found.names, found.first, found.whole) == (expected.names, expected.first, expected.whole)
    assert list(Feed(resident, [], CPU)) == []


def test_images_that_fit_are_copied_to_the_device_once(noise_images, monkeypatch):
    data, copied = noise_images(), []
    monkeypatch.setattr(Images, "fits_on", lambda images, device: True)
    open_one = Images._open
    monkeypatch.setattr(
        Images, "_open", lambda images, index: copied.append(index) or open_one(images, index)
    )
    for _ in range(2):
        list(Feed(data, [torch.tensor([0, 1])], CPU))
    assert sorted(copied[1:]) == list(range(6))
