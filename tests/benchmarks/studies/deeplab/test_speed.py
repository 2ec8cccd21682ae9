"""The script `benchmarks/studies/deeplab/speed.py`, run tiny; what it says is fast is not tested."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from benchmarks.studies import ceilings, turns
from benchmarks.studies.deeplab import floor, notes, speed, ways
from lungseg.approaches.deeplabv3plus import network as our_network
from lungseg.approaches.deeplabv3plus.network import NetworkSettings
from lungseg.learning.networks.convolutions import AtrousConv2d, DenseConv2d, PointwiseConv2d
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

OURS, PLAIN, FREE, COMPILED, PEER = ways.NAMES
in_a_process = speed._peak_in_a_process
FOLDERS = ("training", "inference", "floor")
SEED = NetworkSettings(topology="seed")
CEILINGS = ceilings.Ceilings(gflops=200.0, gbytes=1.0, visits=None)
TINY = ["--topology", "seed", "--device", "cpu", "--threads", "1", "--sizes", "32", "--train-batch", "2"]
TINY += ["--batches", "2", "--repeats", "1", "--train-repeats", "1"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Small ceilings, one round of turns, few blocks of the same widths in the backbone, and no GPU."""

    def short_resnet(weights=None, **rest):
        return ResNet(Bottleneck, [2, 1, 2, 1], **rest)

    monkeypatch.setattr(ceilings, "PRODUCT_SIZE", {"cpu": 128})
    monkeypatch.setattr(ceilings, "COPIED_MIB", {"cpu": 1})
    monkeypatch.setattr(ceilings, "VISITS", 256)
    monkeypatch.setattr(turns, "ROUNDS", 1)
    # A process of its own would import all libraries again, and know nothing of what is patched here.
    monkeypatch.setattr(
        speed, "_peak_in_a_process", lambda work, way, at, job: ways.peak_memory(way, ways.noise(at))
    )
    monkeypatch.setattr(our_network, "resnet50", short_resnet)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which the script sets if nobody else did


class FakeNetwork(nn.Module):
    """4 x 1 x 3 x 3 and 1 x 4 x 1 x 1 weights: 40 multiply-adds a pixel."""

    def __init__(self, **given) -> None:
        super().__init__()
        self.given = given
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images).relu())


@pytest.fixture
def library(monkeypatch) -> ModuleType:
    """Stands in for the peer library; `made` are the networks that were built."""
    module = ModuleType("segmentation_models_pytorch")
    module.made = []

    def build(**given) -> FakeNetwork:
        module.made.append(FakeNetwork(**given))
        return module.made[-1]

    def dice_loss(mode):
        assert mode == "binary"
        return lambda logits, masks: ((logits - masks) ** 2).mean()

    module.DeepLabV3Plus, module.losses = build, SimpleNamespace(DiceLoss=dice_loss)
    module.__version__ = "0.0"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def place() -> ways.Place:
    return ways.Place(SEED, Runtime(torch.device("cpu"), threads=1), 32, 2)


def job(**values) -> speed.Job:
    once = {ways.TRAINING: 1, ways.INFERENCE: 1}
    batches = {ways.TRAINING: [2], ways.INFERENCE: [2]}
    return speed.Job(SEED, None, "it isn't there", [32], batches, once, **values)


def table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).reindex(columns=speed.COLUMNS)


def test_all_take_turns_and_three_tables_are_written(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    speed.main([*TINY, "--compiled", "--out", str(tmp_path)])
    training, inference, floors = (pd.read_csv(tmp_path / name / "table.csv") for name in FOLDERS)

    assert training["way"].tolist() == [OURS, PLAIN, FREE, PEER]
    assert inference["way"].tolist() == [OURS, COMPILED, PEER] * 2
    assert inference["batch"].tolist() == [1] * 3 + [2] * 3
    assert training["times as fast"].notna().tolist() == [True, True, True, False]
    assert training["times ours"].notna().tolist() == [False, True, True, False]
    assert (training["peak MiB"] > 0).all()
    assert inference["peak MiB"].notna().tolist() == [True, False, True] * 2
    assert inference["compile s"].notna().tolist() == [False, True, False] * 2
    assert floors["work"].tolist() == ["inference", "inference", "training"]
    measured = [*inference[inference["way"] == OURS]["ms"], training["ms"][0]]
    assert floors["measured ms"].tolist() == pytest.approx(measured)

    given = {"encoder_name": "resnet50", "encoder_weights": None, "in_channels": 1, "classes": 1}
    assert all(network.given == given for network in library.made)
    said = capsys.readouterr().out
    assert "0.0, DeepLabV3Plus with the encoder resnet50" in said
    assert "Images and masks are noise" in said
    assert '"ours, not deterministic", training at 32 px on the CPU, batch 2:' in said


def test_what_was_measured_before_an_end_is_stored(library, tmp_path, monkeypatch):
    whole = speed.time_work

    def cut(work, *rest):
        if work == ways.TRAINING:
            raise KeyboardInterrupt
        return whole(work, *rest)

    monkeypatch.setattr(speed, "time_work", cut)
    with pytest.raises(KeyboardInterrupt):
        speed.main([*TINY, "--out", str(tmp_path)])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["floor", "inference"]
    assert pd.read_csv(tmp_path / "inference" / "table.csv")["batch"].tolist() == [1, 1, 2, 2]


def test_operations_in_the_tables_are_those_worked_by_hand(library, place):
    with_peer = replace(job(), library=library)
    training, of_training = speed.time_work(ways.TRAINING, place, with_peer, CEILINGS)
    inference, of_inference = speed.time_work(ways.INFERENCE, place, with_peer, CEILINGS)
    # Weights 36 and 4 at 32 x 32 pixels; gradients of both weights, and of the map between them.
    assert inference[-1]["GFLOP an image"] == pytest.approx(2 * 32**2 * (36 + 4) / 1e9)
    assert training[-1]["GFLOP an image"] == pytest.approx(2 * 32**2 * (2 * 36 + 3 * 4) / 1e9)
    # Three times the forward pass, less the gradient of the images: 64 x 3 x 7 x 7 weights at 16 x 16.
    first = 2 * 2 * 16**2 * 64 * 3 * 7 * 7 / 1e9
    assert of_training[0]["GFLOP"] == pytest.approx(3 * of_inference[0]["GFLOP"] - first)
    assert of_training[0]["floor ms"] == pytest.approx(1e3 * of_training[0]["GFLOP"] / 200)


def test_grouped_convolutions_are_counted_as_they_are():
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1, groups=4))

    first, second = (2 * 2 * 8**2 * weights for weights in (4 * 1 * 3 * 3, 8 * 1 * 3 * 3))
    runtime = Runtime(torch.device("cpu"))
    assert floor.operations(network(), runtime, 2, 8, training=False) == first + second
    assert floor.operations(network(), runtime, 2, 8, training=True) == 2 * first + 3 * second


def test_the_border_that_products_take_in_is_not_counted():
    network = nn.Sequential(PointwiseConv2d(1, 48, 1), DenseConv2d(48, 48, 3, padding=1))
    first, second = (2 * 2 * 16**2 * weights for weights in (48, 48 * 48 * 3 * 3))
    runtime = Runtime(torch.device("cpu"), channels_last=True)
    assert floor.operations(network, runtime, 2, 16, training=True) == 2 * first + 3 * second


def test_taps_that_meet_padding_alone_are_not_counted_where_they_are_left_out():
    def network(kind: type[nn.Conv2d]) -> nn.Module:
        return nn.Sequential(kind(1, 4, 1), AtrousConv2d(4, 8, 3, padding=6, dilation=6))

    first, tap = 2 * 2 * 8**2 * 4, 2 * 2 * 8**2 * 4 * 8
    # Of 8 rows and columns the outer taps meet 2.
    met = tap * (1 + 2 * 2 / 8) ** 2
    whole, sparing = Runtime(torch.device("cpu")), Runtime(torch.device("cpu"), "bfloat16", True)
    assert floor.operations(network(nn.Conv2d), whole, 2, 8, training=False) == first + 9 * tap
    assert floor.operations(network(PointwiseConv2d), sparing, 2, 8, training=False) == first + met
    assert floor.operations(network(PointwiseConv2d), sparing, 2, 8, training=True) == 2 * first + 3 * met


def test_the_floor_worked_by_hand():
    cells = floor.floor_cells(4_000_000_000, 8, CEILINGS)
    assert cells == pytest.approx({"GFLOP": 4.0, "floor ms": 20.0, "images/s at the floor": 400.0})
    assert floor.share_cells(20.0, 80.0) == {"floor ms": 20.0, "floor / measured": "25%"}


def test_without_the_library_and_a_gpu_their_rows_say_why(tmp_path, monkeypatch):
    def ours_alone(at, library):
        return [way for way in ways.training_ways(at, library) if way.name == OURS]

    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    monkeypatch.setattr(speed, "training_ways", ours_alone)
    speed.main([*TINY, "--device", "auto", "--out", str(tmp_path)])
    for folder in FOLDERS:
        found = pd.read_csv(tmp_path / folder / "table.csv")
        assert "times as fast" not in found
        assert (found.iloc[-1]["device"], found.iloc[-1]["why empty"]) == ("cuda", "no CUDA device")
        if folder != "floor":
            assert found["way"].tolist()[:2] == [OURS, PEER]
            assert "segmentation_models_pytorch can't be imported" in found["why empty"][1]
            assert found["images/s"][0] > 0


def test_what_the_memory_can_not_hold_is_an_empty_row_with_the_reason(place, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.\nand how much of it")

    monkeypatch.setattr(speed, "training_ways", lambda *_: [ways.Way(OURS, full, ways.as_torch_is)])
    rows, floors = speed.time_work(ways.TRAINING, place, job(), CEILINGS)
    reasons = {row["way"]: row["why empty"] for row in rows}
    assert reasons == {OURS: "CUDA out of memory.", PEER: "it isn't there"}
    assert floors == []


def test_memory_is_measured_where_nothing_else_has_taken_any(place):
    held = torch.ones(2**28)  # a GiB
    found = in_a_process(ways.TRAINING, ways.Way(OURS, None), place, job())
    assert found["MiB before"] < 1024 * held.element_size() / 4
    assert found["peak MiB"] > found["MiB before"] + 100  # weights, gradients and moments of millions


def test_a_compiler_that_fails_is_an_empty_row_and_the_rest_is_measured(place, monkeypatch):
    def compiled(network):
        def call(images):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    rows, _ = speed.time_work(ways.INFERENCE, place, job(compiled=True), CEILINGS)
    found = {row["way"]: row for row in rows}
    assert "no compiler here" in found[COMPILED]["why empty"]
    assert found[OURS]["images/s"] > 0


def test_each_way_has_its_own_switches_and_puts_them_back(place, library):
    def seen() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = seen()
    spy = {"build": lambda: lambda _: seen()}
    built = {way.name: replace(way, **spy) for way in ways.training_ways(place, library)}
    assert {name: way.ready()(None) for name, way in built.items()} == {
        OURS: (True, False),
        PLAIN: (True, False),
        FREE: (False, True),
        PEER: (False, False),
    }
    broken = replace(built[FREE], build=lambda: lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.ready()(None)
    assert seen() == before


def test_both_learn_in_their_turns(place, library, monkeypatch):
    made = []

    class Kept(our_network.DeepLabV3Plus):
        def __init__(self, settings) -> None:
            super().__init__(settings)
            made.append(self)

    monkeypatch.setattr(ways, "DeepLabV3Plus", Kept)
    steps = [ways.our_training(place), ways.peer_training(place, library)]
    weights = [next(network.parameters()) for network in (made[0], library.made[0])]
    before = [weight.detach().clone() for weight in weights]
    batch = ways.noise(place)
    with torch.inference_mode():  # as turns are taken
        for step in steps:
            step(batch)
    assert not any(torch.equal(new, old) for new, old in zip(weights, before, strict=True))


def test_a_loss_that_is_not_finite_ends_the_measurement(place):
    step = ways.our_training(place)
    batch = ways.noise(place)
    with pytest.raises(InputError, match="the loss is nan"):
        step(replace(batch, images=batch.images * float("nan")))


def test_aims_of_training_are_judged_by_what_was_measured():
    key = {"way": OURS, "batch": 8, "lowest": 1.7, "highest": 2.5}
    found = table(
        [
            {**key, "device": "cpu", "size": 128, "times as fast": 1.9, "images/s": 10.0},
            {**key, "device": "cpu", "size": 256, "times as fast": 2.4, "images/s": 4.0},
            {**key, "device": "cpu", "size": 512, "times as fast": 1.0, "images/s": 1.0},
            {**key, "device": "cpu", "size": 256, "times as fast": 9.0, "images/s": 9.0, "way": PLAIN},
            {**key, "device": "cuda", "size": 512, "times as fast": 3.5, "images/s": 650.0},
        ]
    )
    small, middle, gpu, rate = notes.verdicts(ways.TRAINING, found)
    assert "at 128 px on the CPU, batch 8, with 1.8 times the peer's images/s at least" in small
    assert small.endswith("1.90 times (1.70 to 2.50), kept.")
    assert middle.endswith("2.40 times (1.70 to 2.50), missed.")
    assert gpu.endswith("3.50 times (1.70 to 2.50), kept.")
    assert rate.endswith("700 images/s at least: 650, missed.")
    assert notes.verdicts(ways.TRAINING, found[:0]) == []


def test_aims_of_inference_are_of_batch_8_and_the_rate_of_any():
    key = {"way": OURS, "device": "cuda", "size": 512, "lowest": 1.0, "highest": 9.0}
    found = table(
        [
            {**key, "batch": 1, "times as fast": 9.0, "images/s": 300.0},
            {**key, "batch": 8, "times as fast": 2.9, "images/s": 1900.0},
            {**key, "batch": 64, "times as fast": 8.0, "images/s": 2600.0},
            {**key, "batch": 8, "times as fast": 2.3, "images/s": 30.0, "device": "cpu", "size": 128},
            {"way": OURS, "batch": 8, "device": "cpu", "size": 256, "images/s": 8.0},
        ]
    )
    small, gpu, rate = notes.verdicts(ways.INFERENCE, found)
    assert small.endswith("2.30 times (1.00 to 9.00), kept.")
    assert gpu.endswith("2.90 times (1.00 to 9.00), missed.")
    assert rate.endswith("2500 images/s at least: 2600, kept.")


def test_the_cost_of_determinism_is_said():
    row = {"way": FREE, "device": "cpu", "size": 128, "batch": 8}
    row |= dict(zip(notes.TIMES_OURS, (1.25, 1.1, 1.5), strict=True))
    (said,) = notes.variants(ways.TRAINING, table([row, {"way": OURS, "device": "cpu"}]))
    assert said.startswith('"ours, not deterministic", training at 128 px on the CPU, batch 8:')
    assert said.endswith('1.25 times as fast as "ours" (1.10 to 1.50).')


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sizes", "128", "100"], "--sizes are multiples of 16, 32 at least"),
        (["--sizes", "16"], "--sizes are multiples of 16, 32 at least"),
        (["--train-batch", "1"], "--train-batch is at least 2"),
        (["--batches", "8", "0"], "--batches are at least 1"),
        (["--repeats", "0"], "--repeats, --train-repeats and --batches are at least 1"),
        (["--train-repeats", "0"], "--repeats, --train-repeats and --batches are at least 1"),
        (["--threads", "0"], "--threads are 1 to 1024"),
        (["--topology", "unet"], "invalid choice: 'unet'"),
        (["--device", "cuda"], "torch finds no CUDA device here"),
    ],
)
def test_what_can_not_be_measured_ends_in_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        speed.main([*TINY, *words])
    assert sentence in capsys.readouterr().err
