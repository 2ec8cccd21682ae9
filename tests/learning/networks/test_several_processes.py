import multiprocessing
import sys
from dataclasses import replace

import pytest
import torch

from lungseg import cli
from lungseg.harness.run import benchmark
from lungseg.learning.networks import data_parallel
from lungseg.learning.networks.data_parallel import require_image_per_process, share_norms
from lungseg.results import read_table
from lungseg.spec import RuntimeSpec, read_spec
from lungseg.system import distributed, usable_runtime
from lungseg.system.errors import InputError
from tests.learning.networks.processes import fork_processes, torchrun
from tests.learning.networks.three_steps import train_three_steps

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
SPEC = """
name = "two"
seeds = [0]
runtime = { device = "cpu", precision = "float32", threads = 1 }
[data]
dataset = "phantom"
count = 12
size = 32
[[approach]]
use = "mean-mask"
size = 16
[[approach]]
use = "tests.learning.networks.small_network:ApproachWithoutDropout"
name = "network"
size = 32
epochs = 8
batch_size = 4
learning_rate = 0.02
freeze_norms = true
[timing]
enabled = false
"""


@needs_fork
def test_two_processes_learn_what_one_does(tmp_path, short_backbone):
    files = [tmp_path / "one.pt", tmp_path / "two.pt"]
    train_three_steps(files[0])
    done = fork_processes(2, lambda: train_three_steps(files[1]), cwd=tmp_path)
    assert done.code == 0, done.output
    one, two = (torch.load(file, weights_only=True) for file in files)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(two["everyone"]) == 2
    assert len(set(two["everyone"])) == 1  # both hold the same weights, bit for bit
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["row"] == pytest.approx(one["row"], abs=1e-5)
    for what in ("first", "gradients"):
        for name, value in one[what].items():
            largest = value.abs().max()
            assert largest > 1e-6, name  # of less, an agreement would say nothing
            assert (two[what][name] - value).abs().max() <= 0.01 * largest, f"{what} {name}"
    assert 0 < one["row"]["validation_dice"] < 1
    for name, value in one["start"].items():
        moved = one["weights"][name] - value
        apart = two["weights"][name] - one["weights"][name]
        assert apart.abs().max() <= 0.01 * moved.abs().max() + 2e-7, name
    assert max((one["weights"][n] - value).abs().max() for n, value in one["start"].items()) > 100 * 1e-5
    for what in ("weights", "average"):
        for name, value in one[what].items():
            torch.testing.assert_close(two[what][name], value, atol=1e-5, rtol=1e-5, msg=f"{what} {name}")


@needs_fork
def test_the_command_line_with_two_processes_gives_the_scores_of_one(tmp_path, without_figures, monkeypatch):
    (tmp_path / "two.toml").write_text(SPEC)
    benchmark(read_spec(tmp_path / "two.toml", []), tmp_path / "out-1")
    monkeypatch.setattr(
        sys, "argv", ["lungseg", "benchmark", str(tmp_path / "two.toml"), "--out", str(tmp_path / "out-2")]
    )
    done = torchrun(2, cli.main, tmp_path)
    assert done.code == 0, done.output
    assert "".join(done.output).count("Benchmark two") == 1  # the other prints nothing
    scores = [read_table(tmp_path / f"out-{count}", "scores") for count in (1, 2)]
    assert scores[1]["dice"].tolist() == pytest.approx(scores[0]["dice"].tolist(), abs=2e-3)
    dice = scores[0].loc[scores[0]["approach"] == "network", "dice"]
    assert dice.between(0.05, 0.95).all()  # neither empty nor perfect maps, which would agree by themselves
    assert dice.nunique() > 1
    assert list(scores[0]["approach"]) == list(scores[1]["approach"])


@needs_fork
def test_what_can_not_be_shared_is_one_sentence_from_all_processes(tmp_path, monkeypatch):
    (tmp_path / "two.toml").write_text(SPEC.replace("freeze_norms = true\n", ""))
    monkeypatch.setattr(sys, "argv", ["lungseg", "benchmark", "two.toml"])
    done = fork_processes(2, cli.main, cwd=tmp_path)
    assert done.code == 2
    said = "".join(done.output)
    assert said.count("lungseg: approach 'network': several processes can't share a batch norm") == 1


def test_parts_are_whole_and_nearly_equal(monkeypatch):
    for count, items in ((1, 5), (2, 5), (3, 5), (4, 4)):
        monkeypatch.setattr(distributed, "world_size", lambda count=count: count)
        parts = []
        for number in range(count):
            monkeypatch.setattr(distributed, "rank", lambda number=number: number)
            parts.append(list(distributed.shard(range(items))))
        assert [item for part in parts for item in part] == list(range(items))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_processes_is_refused(settings, monkeypatch):
    monkeypatch.setattr(data_parallel.distributed, "world_size", lambda: 4)
    require_image_per_process(16, settings(batch_size=4))
    with pytest.raises(InputError, match=r"batch_size = 4 makes batches of 3 images, fewer than the 4"):
        require_image_per_process(15, settings(batch_size=4))


def test_shared_norms_are_asked_for_where_there_are_some(settings, runtime, monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    assert share_norms(network, settings(), runtime) is network
    monkeypatch.setattr(data_parallel.distributed, "world_size", lambda: 2)
    assert share_norms(network, settings(freeze_norms=True), runtime) is network
    with pytest.raises(InputError, match="freeze_norms = true"):
        share_norms(network, settings(), runtime)
    cuda = replace(runtime, device=torch.device("cuda"))
    assert isinstance(share_norms(network, settings(), cuda)[1], torch.nn.SyncBatchNorm)


@pytest.fixture
def started_by_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "32")


def test_more_processes_than_gpus_are_refused(monkeypatch, started_by_torchrun):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    distributed._take_a_gpu(1)
    assert taken == [1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"3 processes on a machine with 2 GPUs: .* --nproc-per-node 2"):
        distributed._take_a_gpu(1)


def test_processes_of_a_machine_share_its_cores(monkeypatch, started_by_torchrun):
    monkeypatch.setattr(usable_runtime, "count_usable_cores", lambda: 8)
    for processes, threads in ((1, 8), (3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert usable_runtime.resolve_runtime(RuntimeSpec(), "cpu").threads == threads


def test_within_alone_a_process_counts_as_the_only_one(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (3, 2, False)
    with distributed.work_alone():
        assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.world_size() == 3
