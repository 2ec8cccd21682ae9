"""Steps as a GPU does them, whose results nothing waits for; here a CPU or torch's device without data."""

import itertools
import re
import sys
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50
from lungseg.learning.images import augmentation
from lungseg.learning.networks import device_readings
from lungseg.learning.networks import training as module
from lungseg.learning.networks.device_readings import BusyShare
from lungseg.learning.networks.feed import Feed
from lungseg.learning.networks.schedule import draw_batches
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime
from tests.weights import same_weights

CPU, META = torch.device("cpu"), torch.device("meta")
STEPS = {"count": 14, "batch_size": 2, "size": 32, "epochs": 2}  # seven an epoch, more than are queued


def nothing(*_) -> None:
    pass


@pytest.fixture
def queued(network_training):
    def make(**values):
        training = network_training(**values)
        training._queued = True
        return training

    return make


def test_queued_steps_on_images_of_the_device_give_the_same_bits(network_training, queued, noise_images):
    waiting, ahead = network_training(**STEPS), queued(**STEPS)
    host, resident = noise_images(14, size=32), noise_images(14, size=32)
    resident.keep_on(CPU)
    shown = []
    for _ in range(2):
        expected = waiting.run_epoch(host, nothing)
        assert ahead.run_epoch(resident, lambda *given: shown.append(given)) == expected
    assert [step for step, _, _ in shown] == [*range(1, 8)] * 2
    assert shown[4][2] == shown[0][2] != shown[5][2]  # the losses of steps 2 and later come four steps late
    assert same_weights(ahead.network, waiting.network)
    assert same_weights(ahead.average.network, waiting.average.network)


class Blocking(TorchDispatchMode):
    """Counts operations that make the host wait for a GPU: those whose result's value or size it needs.

    And copies from the host, which wait unless its memory is pinned; functions of `allow` pin it.
    """

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found, self.seen, self.pinned = [], 0, False

    def allow(self, function):
        """Return a function whose copies come from pinned memory on a GPU."""

        def called(*given):
            before, self.pinned = self.pinned, True
            try:
                return function(*given)
            finally:
                self.pinned = before

        return called

    def _comes_from_the_host(self, name, args, kwargs) -> bool:
        if name == "_to_copy":
            return args[0].device == CPU and (kwargs or {}).get("device") == META
        return name == "copy_" and (args[0].device, args[1].device) == (META, CPU)

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        name = call.overloadpacket.__name__
        self.seen += 1
        masks = args[1] if name in ("index", "index_put_") else ()
        if name in self.NAMES or any(each is not None and each.dtype == torch.bool for each in masks):
            self.found.append(name)
        if not self.pinned and self._comes_from_the_host(name, args, kwargs):
            self.found.append(f"{name} from the host")
        return call(*args, **(kwargs or {}))


def test_a_copy_from_the_host_that_is_not_pinned_is_found():
    blocking, host = Blocking(), torch.ones(2)
    with blocking:
        host.to(META)
        torch.empty(2, device=META).copy_(host)
        blocking.allow(lambda: host.to(META))()
    assert blocking.found == ["_to_copy from the host", "copy_ from the host"]


def test_a_step_never_waits_for_the_device(queued, noise_images, monkeypatch, short_backbone):
    # Tensors of this device have no data: whatever asks for some of it raises.
    monkeypatch.setattr(Runtime, "autocast", lambda runtime: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)  # as on a GPU: no products for a CPU
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", nothing)
    monkeypatch.setattr(augmentation, "_draw_noise", lambda images, *_: torch.zeros_like(images))
    settings = {"augmentation": {"elastic": 0.02, "crop": 0.1, "collimation": 0.1, "padding": "either"}}
    values = {"count": 12, "size": 32, "approach_class": DeepLabV3PlusResNet50, **settings}
    training = queued(runtime=Runtime(META, channels_last=True), **values)
    data = noise_images(12, size=32)
    data.keep_on(META)
    amounts = augmentation._list_amounts

    def on_the_host(*given):
        with torch.utils._python_dispatch._disable_current_modes():
            return amounts(*given)

    monkeypatch.setattr(augmentation, "_list_amounts", on_the_host)
    training._set_train_mode()
    training._losses = [0.7]  # the first one of an epoch would be read
    blocking, batches = Blocking(), iter(Feed(data, draw_batches(12, 4, 0, 0), META))
    monkeypatch.setattr(augmentation, "_send", blocking.allow(augmentation._send))
    training.take_step(next(batches))  # what is copied only once: the order of an epoch, weights of splines
    with blocking:
        for batch in batches:
            assert training.take_step(batch) == 0.7
    assert len(training._unread) == 3
    assert blocking.seen > 1000
    assert blocking.found == []
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):  # this does ask
        training._read_values(2, None)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("optimiser", ["adamw", "adam"])
def test_a_step_that_is_not_finite_is_left_out_by_the_device(
    what, optimiser, queued, noise_images, monkeypatch
):
    training, data = queued(optimiser=optimiser), noise_images()
    training.run_epoch(data, nothing)
    before = {name: value.clone() for name, value in training.network.named_parameters()}
    state = training.optimiser.state_dict()["state"]
    moments = {key: {name: value.clone() for name, value in own.items()} for key, own in state.items()}
    if what == "loss":
        loss = module.segmentation_loss
        monkeypatch.setattr(module, "segmentation_loss", lambda *given: loss(*given) * float("nan"))
    else:
        training.network.head[-1].bias.register_hook(lambda gradient: gradient * float("inf"))
    (batch, *_) = Feed(data, draw_batches(6, 4, 0, 0), CPU)
    with pytest.raises(
        InputError, match=f"the {'loss' if what == 'loss' else 'gradient.s norm'} is (nan|inf)"
    ):
        training.take_step(batch)
    for name, value in training.network.named_parameters():
        assert torch.equal(value, before[name]), name
    for key, own in training.optimiser.state_dict()["state"].items():
        for name, value in own.items():
            assert torch.equal(value, moments[key][name]), name
    assert own["step"] == 2  # those of the first epoch


def fail_at(monkeypatch, number: int) -> None:
    loss, calls = module.segmentation_loss, itertools.count(1)
    factor = {number: float("nan")}
    monkeypatch.setattr(
        module, "segmentation_loss", lambda *given: loss(*given) * factor.get(next(calls), 1.0)
    )


@pytest.mark.parametrize(("wrong", "last"), [(2, 5), (7, 7)])
def test_a_loss_that_is_no_number_ends_a_queued_training_a_little_later(
    wrong, last, queued, noise_images, monkeypatch
):
    training, done = queued(**STEPS), []
    fail_at(monkeypatch, wrong)
    names = draw_batches(14, 2, 0, 0)[wrong - 1].tolist()
    images = ", ".join(f"picture-{number}" for number in names)
    with pytest.raises(
        InputError, match=re.escape(f"the loss is nan at step {wrong} of epoch 1 (images {images})")
    ):
        training.run_epoch(noise_images(14, size=32), lambda *given: done.append(given))
    assert len(done) == training.step == last


def test_no_checkpoint_has_a_step_that_is_not_finite(queued, noise_images, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT_SECONDS", "0")
    training, path = queued(**STEPS), tmp_path / "last.pt"
    fail_at(monkeypatch, 3)
    with pytest.raises(
        InputError, match=r"the loss is nan at step 3 .*; the last good state is in .*last\.pt"
    ):
        training.run_epoch(noise_images(14, size=32), nothing, path)
    resumed = queued(**STEPS)
    assert resumed.resume(path)
    assert resumed.step == 2
    assert len(resumed._losses) == 2


def test_the_busy_share_is_the_mean_of_samples_or_unknown(monkeypatch):
    clock, found = [0.0], iter([50, 100, 0])
    monkeypatch.setattr(device_readings.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(found))
    busy, host = BusyShare(torch.device("cuda")), BusyShare(CPU)
    for each in (busy, host):
        each.start()
    for now in (0.1, 0.26, 0.3, 0.6):  # two of these are due
        clock[0] = now
        busy.sample()
        host.sample()
    assert busy.mean == 0.75
    assert host.mean is None

    def missing(device):
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    unknown = BusyShare(torch.device("cuda"))
    unknown.sample()
    assert unknown.mean is None


def test_late_values_are_copied_to_pinned_memory_and_read_once_the_device_came_that_far(monkeypatch):
    done = []

    class Event:
        def record(self):
            done.append("record")

        def synchronize(self):
            done.append("wait")

    class OnDevice:
        """A tensor that says it is on a GPU, and is copied only when an event is waited for."""

        shape, dtype, device = torch.Size([2]), torch.float32, torch.device("cuda")

    class Pinned:
        def copy_(self, values, non_blocking):
            assert isinstance(values, OnDevice)
            done.append(("copy", non_blocking))

        def tolist(self):
            done.append("read")
            return [1.0, 2.0]

    def empty(shape, dtype, pin_memory):
        assert (shape, dtype, pin_memory) == ((2,), torch.float32, True)
        return Pinned()

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    values = device_readings.LateValues(OnDevice())
    assert done == [("copy", True), "record"]  # nothing waits yet
    assert values.read() == [1.0, 2.0]
    assert done[2:] == ["wait", "read"]


def test_what_is_read_for_a_gpu_is_pinned(noise_images, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    feed = Feed(noise_images(4, size=32), draw_batches(4, 2, 0, 0), CPU)
    assert len(list(feed)) == 2
    assert pinned == []
    feed._device = torch.device("cuda")
    feed._read(torch.tensor([1, 3]))
    assert pinned == [(2, 1, 32, 32)] * 2
    pinned.clear()
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, *_, non_blocking: pinned.append(non_blocking) or tensor
    )
    feed._data.keep_on(CPU)
    assert len(list(feed)) == 2
    assert pinned == [(4,), True]  # the order of an epoch at once


def test_the_amounts_of_an_augmentation_are_pinned_for_a_gpu(monkeypatch):
    pinned = []

    class Packed:
        def to(self, device, non_blocking):
            assert (device.type, non_blocking) == ("cuda", True)
            return torch.tensor([1.0, 2.0, 3.0])

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.tolist()) or Packed())
    amounts = {"a": torch.tensor([[1, 2]]), "b": torch.tensor([3.0])}
    found = augmentation._send(amounts, torch.device("cuda"))
    assert pinned == [[1.0, 2.0, 3.0]]
    assert {name: value.tolist() for name, value in found.items()} == {"a": [[1.0, 2.0]], "b": [3.0]}
