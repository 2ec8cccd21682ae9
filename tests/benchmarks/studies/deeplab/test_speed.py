"""The script `benchmarks/studies/deeplab/speed.py`, run tiny; what it says is fast is not tested."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from benchmarks.studies import ceilings
from benchmarks.studies.deeplab import floor, notes, speed, ways
from lungseg.approaches.deeplabv3plus import network as our_network
from lungseg.approaches.deeplabv3plus.network import NetworkSettings
from lungseg.learning.networks.convolutions import AtrousConv2d, DenseConv2d, PointwiseConv2d
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

OURS, PLAIN, FREE, COMPILED, PEER, TUNED_PEER = ways.NAMES
measure_in_process = speed._measure_in_process
FOLDERS = ("training", "inference", "floor")
SEED = NetworkSettings(topology="seed")
CEILINGS = ceilings.Ceilings(gflops=200.0, gbytes=1.0, visits=None)
TINY = ["--topology", "seed", "--device", "cpu", "--threads", "1", "--sizes", "32", "--train-batch", "2"]
TINY += ["--batches", "2", "--repeats", "1", "--train-repeats", "1"]


@pytest.fixture(autouse=True)
def _quick(quick_ceilings, short_backbone, monkeypatch):
    """A small network, a made-up number of operations, and no GPU."""
    monkeypatch.setattr(speed, "count_operations", lambda network, runtime, batch, *_: batch * 10**9)
    # A process of its own would know nothing of what is patched here.
    monkeypatch.setattr(
        speed,
        "_measure_in_process",
        lambda work, way, load, job: ways.measure_peak_memory(way, ways.make_noise(load)),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which the script sets if nobody else did


class FakeNetwork(nn.Module):
    """With one channel 4 x 1 x 3 x 3 and 1 x 4 x 1 x 1 weights: 40 multiply-adds a pixel."""

    def __init__(self, **given) -> None:
        super().__init__()
        self.given = given
        self.encoder, self.last = nn.Conv2d(given["in_channels"], 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.encoder(images).relu())


@pytest.fixture
def library(monkeypatch) -> ModuleType:
    """Stands in for the peer library; `made` are the networks that were built."""
    module = ModuleType("segmentation_models_pytorch")
    module.made = []

    def build(encoder_name, **given) -> FakeNetwork:
        module.made.append(FakeNetwork(encoder_name=encoder_name, **given))
        return module.made[-1]

    def dice_loss(mode):
        assert mode == "binary"
        return lambda logits, masks: ((logits - masks) ** 2).mean()

    module.DeepLabV3Plus, module.losses = build, SimpleNamespace(DiceLoss=dice_loss)
    module.__version__ = "0.0"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def load() -> ways.Workload:
    return ways.Workload(SEED, Runtime(torch.device("cpu"), threads=1), 32, 2)


def job(**values) -> speed.Job:
    once = {ways.TRAINING: 1, ways.INFERENCE: 1}
    batches = {ways.TRAINING: [2], ways.INFERENCE: [2]}
    return speed.Job(SEED, None, "it isn't there", [32], batches, once, **values)


@pytest.fixture
def _few_trainings(monkeypatch):
    """Without the trainings that differ from ours in a switch alone."""

    def list_ways(*given) -> list[ways.Way]:
        return [way for way in ways.list_training_ways(*given) if way.name in (OURS, PEER)]

    monkeypatch.setattr(speed, "list_training_ways", list_ways)


def table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).reindex(columns=speed.COLUMNS)


def test_all_take_turns_and_three_tables_are_written(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)
    speed.main([*TINY, "--compiled", "--out", str(tmp_path)])
    training, inference, floors = (pd.read_csv(tmp_path / name / "table.csv") for name in FOLDERS)

    assert training["way"].tolist() == [OURS, PLAIN, FREE, PEER, TUNED_PEER]
    assert inference["way"].tolist() == [OURS, COMPILED, PEER, TUNED_PEER] * 2
    assert inference["batch"].tolist() == [1] * 4 + [2] * 4
    assert training["times as fast"].notna().tolist() == [True, True, True, False, True]
    assert training["times ours"].notna().tolist() == [False, True, True, False, True]
    assert (training["peak MiB"] > 0).all()
    assert inference["peak MiB"].notna().tolist() == [True, False, True, True] * 2
    assert inference["compile s"].notna().tolist() == [False, True, False, False] * 2
    assert floors["work"].tolist() == ["inference", "inference", "training"]
    measured = [*inference[inference["way"] == OURS]["ms"], training["ms"][0]]
    assert floors["measured ms"].tolist() == pytest.approx(measured)

    given = {"encoder_name": "resnet50", "encoder_weights": None, "in_channels": 1, "classes": 1}
    made = [network.given for network in library.made]
    assert given in made  # as its README has it, and on three equal channels in our runtime
    assert all(one in (given, given | {"in_channels": 3}) for one in made)
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
    assert pd.read_csv(tmp_path / "inference" / "table.csv")["batch"].tolist() == [1] * 3 + [2] * 3


@pytest.mark.usefixtures("_few_trainings")
def test_operations_in_the_tables_are_those_worked_by_hand(library, load, monkeypatch):
    monkeypatch.setattr(speed, "count_operations", floor.count_operations)
    with_peer = replace(job(), library=library)
    training, of_training = speed.time_work(ways.TRAINING, load, with_peer, CEILINGS)
    inference, of_inference = speed.time_work(ways.INFERENCE, load, with_peer, CEILINGS)
    # Weights 36 and 4 at 32 x 32 pixels; gradients of both weights, and of the map between them.
    assert inference[-1]["GFLOP an image"] == pytest.approx(2 * 32**2 * (3 * 36 + 4) / 1e9)  # three channels
    assert inference[-2]["GFLOP an image"] == pytest.approx(2 * 32**2 * (36 + 4) / 1e9)
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
    assert floor.count_operations(network(), runtime, 2, 8, training=False) == first + second
    assert floor.count_operations(network(), runtime, 2, 8, training=True) == 2 * first + 3 * second


def test_the_border_that_products_take_in_is_not_counted():
    network = nn.Sequential(PointwiseConv2d(1, 48, 1), DenseConv2d(48, 48, 3, padding=1))
    first, second = (2 * 2 * 16**2 * weights for weights in (48, 48 * 48 * 3 * 3))
    runtime = Runtime(torch.device("cpu"), channels_last=True)
    assert floor.count_operations(network, runtime, 2, 16, training=True) == 2 * first + 3 * second


def test_taps_that_meet_padding_alone_are_not_counted_where_they_are_left_out():
    def network(kind: type[nn.Conv2d]) -> nn.Module:
        return nn.Sequential(kind(1, 4, 1), AtrousConv2d(4, 8, 3, padding=6, dilation=6))

    first, tap = 2 * 2 * 8**2 * 4, 2 * 2 * 8**2 * 4 * 8
    # Of 8 rows and columns the outer taps meet 2.
    met = tap * (1 + 2 * 2 / 8) ** 2
    whole, sparing = Runtime(torch.device("cpu")), Runtime(torch.device("cpu"), "bfloat16", True)
    assert floor.count_operations(network(nn.Conv2d), whole, 2, 8, training=False) == first + 9 * tap
    assert floor.count_operations(network(PointwiseConv2d), sparing, 2, 8, training=False) == first + met
    assert (
        floor.count_operations(network(PointwiseConv2d), sparing, 2, 8, training=True) == 2 * first + 3 * met
    )


def test_the_floor_worked_by_hand():
    cells = floor.compute_floor(4_000_000_000, 8, CEILINGS)
    assert cells == pytest.approx({"GFLOP": 4.0, "floor ms": 20.0, "images/s at the floor": 400.0})
    assert floor.compute_share(20.0, 80.0) == {"floor ms": 20.0, "floor / measured": "25%"}


@pytest.mark.usefixtures("_few_trainings")
def test_without_the_library_and_a_gpu_their_rows_say_why(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    speed.main([*TINY, "--device", "auto", "--out", str(tmp_path)])
    for folder in FOLDERS:
        found = pd.read_csv(tmp_path / folder / "table.csv")
        assert "times as fast" not in found
        assert (found.iloc[-1]["device"], found.iloc[-1]["why empty"]) == ("cuda", "no CUDA device")
        if folder != "floor":
            assert found["way"].tolist()[:3] == [OURS, PEER, TUNED_PEER]
            assert "segmentation_models_pytorch can't be imported" in found["why empty"][1]
            assert found["images/s"][0] > 0


def test_what_the_memory_can_not_hold_is_an_empty_row_with_the_reason(load, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.\nand how much of it")

    monkeypatch.setattr(
        speed, "list_training_ways", lambda *_: [ways.Way(OURS, full, ways.use_torch_defaults)]
    )
    rows, floors = speed.time_work(ways.TRAINING, load, job(), CEILINGS)
    reasons = {row["way"]: row["why empty"] for row in rows}
    assert reasons == {OURS: "CUDA out of memory.", PEER: "it isn't there", TUNED_PEER: "it isn't there"}
    assert floors == []


def test_memory_is_measured_where_nothing_else_has_taken_any(load, forks, monkeypatch):
    monkeypatch.setattr(speed, "get_context", {"spawn": forks}.get)  # which has the libraries already
    held = torch.ones(2**28)  # a GiB
    found = measure_in_process(ways.TRAINING, ways.Way(OURS, None), load, job())
    assert found["MiB before"] < 1024 * held.element_size() / 4
    assert found["peak MiB"] > found["MiB before"] + 100  # weights, gradients and moments of millions


def test_a_compiler_that_fails_is_an_empty_row_and_the_rest_is_measured(load, monkeypatch):
    def compiled(network):
        def call(images):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    rows, _ = speed.time_work(ways.INFERENCE, load, job(compiled=True), CEILINGS)
    found = {row["way"]: row for row in rows}
    assert "no compiler here" in found[COMPILED]["why empty"]
    assert found[OURS]["images/s"] > 0


def test_each_way_has_its_own_switches_and_puts_them_back(load, library):
    def seen() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = seen()
    spy = {"build": lambda: lambda _: seen()}
    built = {way.name: replace(way, **spy) for way in ways.list_training_ways(load, library)}
    assert {name: way.make_ready()(None) for name, way in built.items()} == {
        OURS: (True, False),
        PLAIN: (True, False),
        FREE: (False, True),
        PEER: (False, False),
        TUNED_PEER: (True, False),
    }
    broken = replace(built[FREE], build=lambda: lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.make_ready()(None)
    assert seen() == before


def test_both_learn_in_their_turns(load, library, monkeypatch):
    made = []

    class Kept(our_network.DeepLabV3Plus):
        def __init__(self, settings) -> None:
            super().__init__(settings)
            made.append(self)

    monkeypatch.setattr(ways, "DeepLabV3Plus", Kept)
    steps = [ways.build_our_training(load), ways.build_peer_training(load, library)]
    weights = [next(network.parameters()) for network in (made[0], library.made[0])]
    before = [weight.detach().clone() for weight in weights]
    batch = ways.make_noise(load)
    with torch.inference_mode():  # as turns are taken
        for step in steps:
            step(batch)
    assert not any(torch.equal(new, old) for new, old in zip(weights, before, strict=True))


def test_a_loss_that_is_not_finite_ends_the_measurement(load):
    step = ways.build_our_training(load)
    batch = ways.make_noise(load)
    with pytest.raises(InputError, match="the loss is nan"):
        step(replace(batch, images=batch.images * float("nan")))


def test_the_cost_of_determinism_is_said():
    row = {"way": FREE, "device": "cpu", "size": 128, "batch": 8}
    row |= dict(zip(notes.TIMES_OURS, (1.25, 1.1, 1.5), strict=True))
    (said,) = notes.compare_variants(ways.TRAINING, table([row, {"way": OURS, "device": "cpu"}]))
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
