"""A watch over the workers of a Dask cluster: a training that waits for a dead worker is ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future as Outcome
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from lungseg.system.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 0.5  # between two checks of the workers
RESTART_SECONDS = 30


def run_while_workers_live(client: Client, data: Sequence[Future], train: Callable[[], Any]) -> Any:
    """Call `train`, and end it with an error if a worker of the cluster dies meanwhile.

    Without this the other workers would wait for the dead one, or read from its closed socket, for ever
    (LightGBM's issue 5920), in tasks that can't be stopped. They are restarted, and the data, which `train`
    learns from, are released. `train` waits for the cluster in another thread; its result is returned. Raises
    InputError if a worker that was there at the start is gone.
    """
    before = list_workers(client)
    outcome = Outcome()
    # A daemon thread ends with the process: what it waits for may never come.
    threading.Thread(target=_run, args=(train, outcome), daemon=True).start()
    done = False
    while not done:
        done = bool(wait([outcome], LOOK_SECONDS).done)
        if done and outcome.exception() is None:
            break
        if done:
            time.sleep(LOOK_SECONDS)  # LightGBM may see a closed socket before the scheduler misses a worker
        gone = before - _list_workers_or(client, before)
        if gone:
            advice = _release(client, data, before - gone)
            raise InputError(f"a worker of the Dask cluster died while trees grew: {advice}") from (
                outcome.exception() if done else None
            )
    return outcome.result()


def _run(train: Callable[[], Any], outcome: Outcome) -> None:
    try:
        outcome.set_result(train())
    except BaseException as error:
        outcome.set_exception(error)


def list_workers(client: Client) -> set[tuple[str, str]]:
    """Return address and folder of each worker; one that a nanny restarts may keep its address."""
    # Not `scheduler_info`, which is refreshed every few seconds and may then be without workers.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return {(address, worker["local_directory"]) for address, worker in workers.items()}


def _list_workers_or(client: Client, default: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """List the workers; return a default if the scheduler, which misses dead workers, can't be reached.

    If it can't be reached for good, the client gives up what it waits for, and `train` ends.
    """
    try:
        return list_workers(client)
    except (OSError, AttributeError):  # a client that has closed itself has None for a scheduler
        return default


def _release(client: Client, data: Sequence[Future], workers: set[tuple[str, str]]) -> str:
    """Release what a training that can't go on holds in the cluster; return what the user has to do."""
    client.cancel(list(data), force=True)  # and all that depends on it, so that the waiting thread ends
    try:
        client.restart_workers([address for address, _ in workers], timeout=RESTART_SECONDS)
    except Exception:  # there is no nanny, or it took too long; these errors have no common class
        return "restart the other workers, which wait for it, then run the same command again"
    return "run the same command again"
