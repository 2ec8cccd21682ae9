"""Training that all workers of a Dask cluster take part in ends when one of them dies, instead of hanging."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future as Outcome
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from lungseg.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 0.5  # between two looks at which workers are there
RESTART_SECONDS = 30


def unless_a_worker_dies(client: Client, parts: Sequence[Future], train: Callable[[], Any]) -> Any:
    """What `train` returns, unless a worker of the cluster goes meanwhile.

    The others would wait for it, or read from its closed socket, for ever (LightGBM's issue 5920), each in a
    task that can't be stopped: they are restarted, and what the cluster holds is given up.

    Args:
        client: of the cluster.
        parts: all that `train` learns from, as the cluster holds it.
        train: waits for the cluster; runs in another thread.

    Raises:
        InputError: a worker that was there at the start has gone.
    """
    before = _workers(client)
    outcome = Outcome()
    # A thread that ends with the process: what it waits for may never come.
    threading.Thread(target=_run, args=(train, outcome), daemon=True).start()
    done = False
    while not done:
        done = bool(wait([outcome], LOOK_SECONDS).done)
        if done and outcome.exception() is None:
            break
        if done:
            time.sleep(LOOK_SECONDS)  # LightGBM may see a closed socket before the scheduler misses a worker
        gone = before - _seen(client, before)
        if gone:
            left = _give_up(client, parts, before - gone)
            raise InputError(f"a worker of the Dask cluster died while trees grew: {left}") from (
                outcome.exception() if done else None
            )
    return outcome.result()


def _run(train: Callable[[], Any], outcome: Outcome) -> None:
    try:
        outcome.set_result(train())
    except BaseException as error:
        outcome.set_exception(error)


def _seen(client: Client, otherwise: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The workers, or `otherwise` if the scheduler can't be asked: it is the one to miss a worker.

    Where it can't be reached for good, the client gives up what it waits for, and `train` ends.
    """
    try:
        return _workers(client)
    except (OSError, AttributeError):  # a client that has closed itself has None for a scheduler
        return otherwise


def _workers(client: Client) -> set[tuple[str, str]]:
    """Address and folder of each worker; one that a nanny restarts may keep its address."""
    # Not `scheduler_info`: what it returns may be the refresh without workers that runs every few seconds.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return {(address, worker["local_directory"]) for address, worker in workers.items()}


def _give_up(client: Client, parts: Sequence[Future], workers: set[tuple[str, str]]) -> str:
    """Frees the cluster of a training that can't go on; returns what is left for the user to do."""
    client.cancel(list(parts), force=True)  # and all that depends on them, so the waiting thread ends
    try:
        client.restart_workers([address for address, _ in workers], timeout=RESTART_SECONDS)
    except Exception:  # without a nanny, or not back in time; there is no common class
        return "restart the other workers, which wait for it, then run the same command again"
    return "run the same command again"
