"""Connect to a Dask cluster, and say in one sentence why that fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lungseg.system.distributed import world_size
from lungseg.system.errors import InputError, describe_error

if TYPE_CHECKING:  # an extra
    from distributed import Client

SCHEDULER_S, WORKERS_S = 30, 60  # how long the scheduler, and a first worker, are waited for


@contextmanager
def join_cluster(address: str | None) -> Iterator[Client | None]:
    """Connect to the scheduler of a Dask cluster for the `with` block; yield None without an address.

    Dask's own configuration holds, such as that of TLS.

    Raises:
        InputError: torchrun started this process with others, Dask isn't installed, no scheduler answers, or
            it has no worker.
    """
    if address is None:
        yield None
        return
    if world_size() > 1:
        raise InputError("--cluster and torchrun each divide the work in their own way: use one of them")
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--cluster needs Dask: run pip install 'lungseg[distributed]'") from None
    with _without_log():
        yield from _connect(address, Client)


def _connect(address: str, client_class: type[Client]) -> Iterator[Client]:
    try:
        client = client_class(address, timeout=SCHEDULER_S, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} within {SCHEDULER_S} s ({describe_error(error)}): give "
            "--cluster the address that `dask scheduler` prints, such as tcp://host:8786"
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise InputError(explain_no_worker(address)) from None
        yield client
    finally:
        client.close()


def list_workers(client: Client) -> dict[str, str]:
    """List the addresses of workers by their own folders, which a worker that is started again has not.

    Raises:
        InputError: the scheduler is gone.
    """
    try:
        # Not `scheduler_info`, which is some seconds old. A client that has closed itself has no scheduler.
        found = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    except (OSError, AttributeError, RuntimeError) as error:
        raise InputError(
            "the scheduler of the Dask cluster is gone: start it again, then run the same command, which "
            "goes on from what is stored"
        ) from error
    return {each["local_directory"]: address for address, each in found.items()}


def explain_no_worker(address: str) -> str:
    """Return the sentence on a cluster without workers."""
    return (
        f"the Dask cluster at {address} has had no worker for {WORKERS_S} s: start one with "
        f"`dask worker {address}`"
    )


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep Dask's log quiet during the `with` block: what it would say is a sentence of ours."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    levels = [(each, each.level) for each in loggers if each.name.partition(".")[0] == "distributed"]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
