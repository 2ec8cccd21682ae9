"""Trials on the workers of a Dask cluster: the same tables, whatever becomes of a worker."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed", reason="the extra `distributed` isn't installed")

from distributed import LocalCluster

from lungseg.harness.cluster import connection, dispatch, transfer, worker
from lungseg.harness.cluster.dispatch import Dispatch
from lungseg.harness.cluster.facts import explain_difference, list_facts
from lungseg.harness.evaluate import is_done, run_trial
from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.results import read_run
from lungseg.spec import read_spec
from lungseg.system.errors import InputError, UnwritableError
from lungseg.system.interrupts import Interrupted
from lungseg.system.lock import hold_folder
from lungseg.system.progress import Reporter
from lungseg.system.stored import describe_files
from tests.conftest import ROOT
from tests.tiny import HEAD, NO_TIMING, PIXELS

ROW = '[[approach]]\nuse = "rows_of_workers:{}"\nname = "{}"\nsize = 24\n'
PLACE = "LUNGSEG_TEST_PLACE"
TABLES = ("scores", "calibration", "history", "importance", "statistics")
# In a module of its own: all that its module imports is hashed by each process that makes the plan.
ROWS = """
import os, time
from pathlib import Path
from lungseg.approaches.baselines import MeanMask

class Waits(MeanMask):
    # Names its worker the first time, and then waits for the worker's end.
    def fit(self, train, validation, context):
        place = Path(os.environ["LUNGSEG_TEST_PLACE"]) / "waiting"
        if not place.exists():
            place.with_suffix(".new").write_text(str(os.getppid()))
            place.with_suffix(".new").rename(place)
            time.sleep(60)
        return super().fit(train, validation, context)

class Fails(MeanMask):
    def fit(self, train, validation, context):
        print("what an approach prints is no answer")
        raise ValueError("evil")
"""


class Listener(Reporter):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text=""):
        self.lines.append(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the module of the rows, which any process finds."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "rows_of_workers.py").write_text(ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def address(place):
    """A scheduler with two workers in processes of their own, which nobody replaces."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LUNGSEG_")}
    environment |= {PLACE: str(place), "LUNGSEG_CACHE": str(place / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(place), str(ROOT)])
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        words = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        words += ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(place)]
        workers = [subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
        yield cluster.scheduler_address
        for each in workers:
            each.terminate()
        for each in workers:
            each.wait(20)


@pytest.fixture
def make_spec(tmp_path):
    def make(*parts: str):
        path = tmp_path / "tiny.toml"
        path.write_text("".join(parts))
        return read_spec(path, NO_TIMING)

    return make


def read_tables(out: Path) -> dict[str, bytes]:
    return {name: (out / f"{name}.csv").read_bytes() for name in TABLES}


def read_models_and_maps(out: Path) -> dict[str, dict]:
    return {name: describe_files(out / name) for name in ("models", "predictions")}


def test_a_worker_killed_in_a_trial_costs_that_trial_alone(make_spec, address, place, tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE, str(place))
    killed, stored, listener = [], {}, Listener()
    out, local = tmp_path / "out", tmp_path / "local"
    head, bracket, mean = HEAD.partition("[[")
    rows = (
        head,
        ROW.format("Waits", "waits"),
        bracket + mean,
        '[[approach]]\nuse = "threshold"\nsize = 24\n',
    )

    def kill() -> None:
        mean = out / "trials/mean-mask/f0-s0/trial.json"
        while not (place / "waiting").exists() or not mean.exists():
            time.sleep(0.05)
        stored[mean] = mean.stat().st_mtime_ns
        killed.append(int((place / "waiting").read_text()))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    benchmark(make_spec(*rows, ROW.format("Fails", "fails")), out, reporter=listener, cluster=address)
    assert killed
    assert any("was lost; it is tried again" in line for line in listener.lines)
    for path, changed in stored.items():
        assert path.stat().st_mtime_ns == changed
    for label in ("waits, fold 0, seed 0", "mean-mask, fold 0, seed 0", "threshold, fold 0, seed 0"):
        assert sum(line.startswith(f"{label}: ") and " s on tcp://" in line for line in listener.lines) == 1
    (failure,) = read_run(out)["failed"]
    assert failure["reason"].startswith("fails, fold 0, seed 0 ended with ValueError (evil): mend its class")
    assert "in fit" in (out / "trials/fails/f0-s0/traceback.txt").read_text()
    assert not (out / transfer.PLACE / "waits-f0-s0/incoming").exists()
    benchmark(make_spec(*rows), local)
    assert read_tables(out) == read_tables(local)
    assert read_models_and_maps(out)["predictions"] == read_models_and_maps(local)["predictions"]


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="no folder that each process sees its own of")
def test_workers_that_do_not_see_the_directory_send_the_trials(
    make_spec, address, place, finished_once, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the workers stay where they are
    monkeypatch.setattr(transfer, "PART_BYTES", 1000)
    out = Path("/proc/self/cwd/out")
    spec = make_spec(HEAD, PIXELS, ROW.format("Fails", "fails"))
    benchmark(spec, out, cluster=address)
    assert read_tables(out) == read_tables(finished_once)
    assert read_models_and_maps(out) == read_models_and_maps(finished_once)
    (failure,) = read_run(out)["failed"]
    assert failure["reason"].endswith("where it happened is in traceback.txt")
    assert "in fit" in (out / "trials/fails/f0-s0/traceback.txt").read_text()
    assert not list(place.rglob("lungseg/*/*/*/models"))  # workers keep no copy
    times = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/*/trial.json")}
    listener = Listener()
    benchmark(make_spec(HEAD, PIXELS), out, reporter=listener, cluster=address)
    assert sum("stored by a former run" in line for line in listener.lines) == 3
    assert times == {path: path.stat().st_mtime_ns for path in times}


# --- the client with a cluster that does as a test says


class Cluster:
    """A client whose workers answer at once what `answers` says; they do the rest here."""

    def __init__(self, plan, out, *addresses):
        self.plan, self.out, self.addresses = plan, out, list(addresses)
        self.answers, self.asked, self.ended = {}, [], []
        self.plans = dict.fromkeys(addresses)
        self.scheduler = SimpleNamespace(identity=None, address="tcp://scheduler:1")

    def sync(self, identity, n_workers):
        return {"workers": {each: {"local_directory": f"/home/{each}"} for each in self.addresses}}

    def submit(self, function, setup, label, home, key, workers, pure):
        future, reply = Future(), None
        self.asked.append((workers[0], label))
        if label is None:
            keys = {trial.label: [trial.keys.fit, trial.keys.score] for trial in self.plan.trials}
            reply = self.plans[workers[0]] or {"keys": keys, "facts": list_facts(self.plan)}
        elif self.answers.get(label):
            reply = self.answers[label].pop(0)
        else:
            (trial,) = [trial for trial in self.plan.trials if trial.label == label]
            run_trial(trial, self.out, lambda *_: None)
            reply = {"done": True, "seconds": 1.0}
        if reply == "lost":
            self.addresses.remove(workers[0])
        elif reply == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif reply != "never":
            future.set_result(dispatch.json.dumps(reply))
        return future

    def run(self, function, *args, workers=(), **_):
        if function is worker.stop:
            self.ended.append(function)
        return {address: function(*args) for address in workers}


@pytest.fixture
def plan(make_spec, place):
    return make_plan(make_spec(HEAD, ROW.format("Waits", "other")))


@pytest.fixture
def run(plan, tmp_path, monkeypatch):
    """A function that runs the plan's trials on a cluster, and returns failures and what was said."""
    monkeypatch.setenv(PLACE, str(tmp_path))
    (tmp_path / "waiting").touch()
    for name in ("LOOK_S", "STEP_S", "BUSY_S"):
        monkeypatch.setattr(dispatch, name, 0.01)

    def run(cluster):
        listener = Listener()
        dispatching = Dispatch(cluster, plan, None, cluster.out, listener)
        return dispatching.run(plan.trials), listener.lines

    return run


OTHER = "other, fold 0, seed 0"


def test_what_ends_three_processes_has_failed_and_the_others_go_on(plan, run, tmp_path):
    cluster = Cluster(plan, tmp_path / "out", "a", "b")
    cluster.answers = {OTHER: [{"died": -9}, "lost", {"died": 3}]}
    ((trial, reason),), said = run(cluster)
    assert trial.label == OTHER
    assert reason.startswith(f"{OTHER} was lost 3 times, the last time because on ")
    assert "its process ended (3): most likely memory was full" in reason
    assert any("its process ended by SIGKILL; it is tried again" in line for line in said)
    assert is_done(plan.trials[0], tmp_path / "out")
    assert sum(label == OTHER for _, label in cluster.asked) == 3


def test_a_trial_that_is_held_or_was_stopped_is_asked_for_again(plan, run, tmp_path):
    cluster = Cluster(plan, tmp_path / "out", "a")
    busy = {"busy": "in use"}
    cluster.answers = {OTHER: [busy, busy, {"stopped": True}, {"died": 0}, "cancelled"]}
    failures, said = run(cluster)
    assert failures == []
    assert said.count(f"{OTHER}: in use") == 1
    assert all(is_done(trial, tmp_path / "out") for trial in plan.trials)
    assert not (tmp_path / "out" / transfer.PLACE).exists()
    assert cluster.ended == [worker.stop]


def test_a_worker_with_other_keys_is_not_used_and_said_why(plan, run, tmp_path):
    cluster, facts = Cluster(plan, tmp_path / "out", "a", "b"), list_facts(plan)
    facts["other"]["machine"] = ["another CPU"]
    facts["other"]["versions"] |= {"numpy": "0.1"}
    keys = {trial.label: [trial.keys.fit, trial.keys.score] for trial in plan.trials}
    keys[OTHER] = ["another", "another"]
    cluster.plans["a"] = {"keys": keys, "facts": facts}
    failures, said = run(cluster)
    assert failures == []
    assert ("b", OTHER) in cluster.asked
    assert ("a", OTHER) not in cluster.asked
    (why,) = [
        line for line in said if line.startswith("the worker a is not used for other, since it differs")
    ]
    assert "numpy (0.1 there, " in why
    assert "machine (another CPU there, " in why
    assert "use workers with as many cores of the same kind as this machine has" in why
    assert "install the same versions there" in why


def test_where_no_worker_has_the_same_keys_the_run_ends(plan, run, tmp_path):
    cluster = Cluster(plan, tmp_path / "out", "a", "b")
    cluster.plans = {each: {"refused": "it makes no plan (no data)"} for each in "ab"}
    with pytest.raises(InputError, match=r"worker b is not used for .*it makes no plan \(no data\)"):
        run(cluster)
    assert [label for _, label in cluster.asked] == [None, None]


def test_where_all_workers_are_lost_the_run_ends(plan, run, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "WORKERS_S", 0.1)
    cluster = Cluster(plan, tmp_path / "out", "a")
    cluster.answers = {OTHER: ["lost"]}
    with pytest.raises(InputError, match="the Dask cluster at tcp://scheduler:1 has had no worker"):
        run(cluster)


def test_a_full_disk_of_the_shared_directory_ends_the_run(plan, run, tmp_path):
    cluster = Cluster(plan, tmp_path / "out", "a")
    cluster.answers = {OTHER: [{"unwritable": "the disk is full", "shared": True}]}
    with pytest.raises(UnwritableError, match="the disk is full"):
        run(cluster)


def test_a_full_disk_of_one_worker_leaves_the_work_to_others(plan, run, tmp_path):
    cluster = Cluster(plan, tmp_path / "out", "a", "b")
    cluster.answers = {OTHER: [{"unwritable": "the disk is full", "shared": False}]}
    failures, said = run(cluster)
    assert failures == []
    assert any("is not used any more: the disk is full" in line for line in said)


def test_a_signal_cancels_what_workers_do(plan, tmp_path, run, monkeypatch):
    cluster = Cluster(plan, tmp_path / "out", "a")
    cluster.answers = {OTHER: ["never"]}
    futures, submit = [], cluster.submit
    monkeypatch.setattr(
        cluster, "submit", lambda *args, **rest: futures.append(submit(*args, **rest)) or futures[-1]
    )

    def interrupt(seconds):
        if len(futures) == 3:
            raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(dispatch.time, "sleep", interrupt)
    with pytest.raises(Interrupted):
        run(cluster)
    assert futures[-1].cancelled()
    assert cluster.ended == [worker.stop]
    assert is_done(plan.trials[0], tmp_path / "out")


def test_what_cannot_be_fetched_whole_is_asked_for_again(plan, run, tmp_path, monkeypatch):
    trial, root, out = plan.trials[1], tmp_path / "root", tmp_path / "out"
    monkeypatch.setenv(PLACE, str(tmp_path))
    (tmp_path / "waiting").touch()
    run_trial(trial, root, lambda *_: None)
    whole = {"done": True, "seconds": 1.0, "root": str(root), "files": transfer.describe_trial(trial, root)}
    other = whole | {"files": {name: each | {"sha256": "0"} for name, each in whole["files"].items()}}
    cluster = Cluster(plan, out, "a")
    cluster.answers = {OTHER: [whole | {"root": str(tmp_path / "gone")}, other, whole]}
    failures, said = run(cluster)
    assert failures == []
    assert sum(line.startswith(f"{OTHER}: it couldn't be fetched from a (") for line in said) == 2
    assert is_done(trial, out)
    assert not root.exists()
    shutil.rmtree(out)
    cluster.answers = {OTHER: [whole] * 3}
    ((_, reason),), _ = run(cluster)
    assert reason.startswith(f"{OTHER} was lost 3 times, the last time because it couldn't be fetched")


def test_a_full_disk_here_ends_the_run(elsewhere, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    trial, root, files = elsewhere
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UnwritableError, match="the disk is full"):
        transfer.fetch_trial(trial, files, read_from(root), tmp_path / "out")


# --- what comes back


@pytest.fixture
def elsewhere(plan, tmp_path):
    """A finished trial in a folder of its own, and what describes it."""
    trial, root = plan.trials[0], tmp_path / "elsewhere"
    run_trial(trial, root, lambda *_: None)
    return trial, root, transfer.describe_trial(trial, root)


def read_from(root):
    def read(name, start, size):
        return (root / name).read_bytes()[start : start + size]

    return read


def test_a_trial_is_placed_whole_or_not_at_all(elsewhere, tmp_path, monkeypatch):
    trial, root, files = elsewhere
    out = tmp_path / "out"
    broken = read_from(root)
    with pytest.raises(OSError, match="another content"):
        transfer.fetch_trial(trial, files, lambda *part: broken(*part)[::-1], out)
    assert not trial.folder(out).exists()
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, target: replace(source, target) if "models" in str(target) else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        transfer.fetch_trial(trial, files, read_from(root), out)
    assert not is_done(trial, out)
    monkeypatch.undo()
    transfer.fetch_trial(trial, files, read_from(root), out)
    assert is_done(trial, out)
    assert describe_files(out) == {
        name: each for name, each in describe_files(root).items() if ".lock" not in name
    }


def test_a_path_that_leads_elsewhere_is_refused_before_anything_is_read(elsewhere, tmp_path):
    trial, _, files = elsewhere
    for name in (
        *(
            "run.json",
            "/etc/passwd",
            "models/mean-mask/f0-s0/../../../run.json",
            "models/mean-mask/f0-s01/file",
        ),
        *("models/other/f0-s0/file", "models/mean-mask/f0-s0//file", "models/mean-mask/f0-s0/a\\b"),
        *("models/mean-mask/f0-s0/C:file", "trials/mean-mask/f0-s0", "predictions/features/other.npz"),
    ):
        with pytest.raises(ValueError, match="is no file of mean-mask, fold 0, seed 0"):
            transfer.fetch_trial(trial, files | {name: {"bytes": 1, "sha256": ""}}, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_the_folder_itself_shows_its_token(tmp_path):
    transfer.show(tmp_path / "a", "one")
    transfer.show(tmp_path / "b", "two")
    assert transfer.sees(tmp_path / "a", "one")
    assert not transfer.sees(tmp_path / "b", "one")
    assert not transfer.sees(tmp_path / "c", "one")


def test_a_lock_outlives_what_a_new_fit_removes(plan, tmp_path):
    trial = plan.trials[0]
    with hold_folder(transfer.find_lock(trial, tmp_path)):
        run_trial(trial, tmp_path, lambda *_: None)
        assert (transfer.find_lock(trial, tmp_path) / ".lock").exists()


def test_a_runner_that_dies_says_how(monkeypatch):
    monkeypatch.setattr(worker, "START", "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)")
    runner = worker._Runner({"environment": {}})
    assert runner.ask("anything") == {"died": -9}
    assert runner.ask("more") == {"died": -9}


def test_a_runner_has_the_client_s_variables_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    monkeypatch.setattr(
        worker, "START", f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    )
    runner = worker._Runner({"environment": {"OMP_NUM_THREADS": None, "MKL_NUM_THREADS": "3"}})
    assert runner.ask("anything") == [None, "3"]


def test_a_row_that_a_worker_leaves_out_is_explained():
    assert explain_difference({"code": "x"}, {"skipped": "no such package"}) == (
        "it leaves that out (no such package): install there what is missing"
    )
    assert (
        explain_difference({"code": "x"}, {"code": "y"}) == "it differs in code: install the same code there"
    )


# --- what ends before it begins


@pytest.mark.parametrize("given", ["tcp://127.0.0.1:9", "nonsense", "http://127.0.0.1:9"])
def test_a_wrong_address(lungseg, spec_file, tmp_path, monkeypatch, given):
    monkeypatch.setattr(connection, "SCHEDULER_S", 0.3)
    done = lungseg("benchmark", str(spec_file), "--out", str(tmp_path / "out"), "--cluster", given)
    assert done.returncode == 2
    assert f"no Dask scheduler answers at {given} within 0.3 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers(make_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "WORKERS_S", 0.3)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        pytest.raises(InputError, match=r"has had no worker for 0.3 s: start one with `dask worker tcp:"),
    ):
        benchmark(make_spec(HEAD), tmp_path / "out", cluster=cluster.scheduler_address)


def test_without_the_extra(make_spec, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'lungseg\[distributed\]'"):
        benchmark(make_spec(HEAD), tmp_path / "out", cluster="tcp://host:1")


def test_with_torchrun_it_is_refused(make_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "world_size", lambda: 2)
    with pytest.raises(InputError, match="--cluster and torchrun each"):
        benchmark(make_spec(HEAD), tmp_path / "out", cluster="tcp://host:1")
