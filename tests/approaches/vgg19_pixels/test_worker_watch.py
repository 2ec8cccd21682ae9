import threading
from collections.abc import Callable

import pytest

from lungseg.approaches.vgg19_pixels import worker_watch
from lungseg.approaches.vgg19_pixels.worker_watch import run_while_workers_live
from lungseg.system.errors import InputError


class Cluster:
    """A client as far as the watch uses one; looks at the workers return what `looks` says, then the last."""

    def __init__(self, *looks: str) -> None:
        self.looks, self.cancelled, self.restarted = list(looks), [], []
        self.has_nannies = True
        self.scheduler = self

    def sync(self, ask: Callable[..., dict], **arguments: int) -> dict:
        return ask(**arguments)

    def identity(self, n_workers: int) -> dict:
        assert n_workers == -1  # all of them
        now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if now == "no answer":
            raise OSError(now)
        pairs = (word.split("@") for word in now.split())
        return {"workers": {address: {"local_directory": folder} for folder, address in pairs}}

    def cancel(self, futures: list, force: bool) -> None:
        self.cancelled += futures

    def restart_workers(self, workers: list, timeout: float) -> None:
        if not self.has_nannies:
            raise ValueError("no nanny")
        self.restarted += workers


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(worker_watch, "LOOK_SECONDS", 0.01)


def forever() -> None:
    threading.Event().wait(60)


def test_what_waits_for_a_dead_worker_for_ever_ends_and_the_others_are_restarted():
    cluster = Cluster("one@a two@b", "one@a two@b", "one@a")
    with pytest.raises(InputError, match="died while trees grew: run the same command again"):
        run_while_workers_live(cluster, ["part"], forever)
    assert cluster.cancelled == ["part"]
    assert cluster.restarted == ["a"]


def test_a_worker_that_comes_back_at_its_old_address_has_died_too():
    cluster = Cluster("one@a two@b", "one@a three@b")
    with pytest.raises(InputError, match="died while trees grew"):
        run_while_workers_live(cluster, [], forever)


def test_a_look_that_the_scheduler_does_not_answer_is_no_death():
    answered = threading.Event()

    def until_answered() -> str:
        answered.wait(10)
        return "trees"

    class Deaf(Cluster):
        def identity(self, n_workers: int) -> dict:
            if len(self.looks) == 1:
                answered.set()
            return super().identity(n_workers)

    cluster = Deaf("one@a", "no answer", "no answer", "one@a")
    assert run_while_workers_live(cluster, [], until_answered) == "trees"
    assert cluster.cancelled == []


def test_workers_that_can_not_be_restarted_are_left_to_the_user():
    cluster = Cluster("one@a two@b", "one@a")
    cluster.has_nannies = False
    with pytest.raises(InputError, match="restart the other workers"):
        run_while_workers_live(cluster, [], forever)


def test_an_error_that_a_dead_worker_causes_is_told_as_its_death():
    def closed() -> None:
        raise OSError("socket")

    with pytest.raises(InputError, match="died while trees grew") as raised:
        run_while_workers_live(Cluster("one@a two@b", "two@b"), [], closed)
    assert str(raised.value.__cause__) == "socket"


def test_another_error_and_a_result_come_through_and_new_workers_are_welcome():
    def wrong() -> None:
        raise ValueError("wrong")

    cluster = Cluster("one@a", "one@a two@b")
    with pytest.raises(ValueError, match="wrong"):
        run_while_workers_live(cluster, [], wrong)
    assert run_while_workers_live(cluster, [], lambda: "trees") == "trees"
    assert cluster.restarted == []
