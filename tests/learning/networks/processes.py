"""Several processes for a test: forked, by torchrun's own agent or without it.

A fork saves importing torch again.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

TIMEOUT = 300  # seconds
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
)  # that the agent handles from then on


@dataclass(frozen=True)
class Forked:
    """What forked processes left: the exit code of the first to end, and what each wrote, by rank."""

    code: int
    output: list[str]


def fork_processes(count: int, call: Callable[[], None], cwd: Path) -> Forked:
    """Call a function in forked processes with torchrun's environment; the first error ends all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [cwd / f"rank-{rank}.txt" for rank in range(count)]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_enter, args=(rank, count, port, file, call, cwd), daemon=True)
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    code, waiting = 0, {process.sentinel: process for process in processes}
    try:
        while waiting and code == 0:
            ended = wait(list(waiting), TIMEOUT)
            assert ended, "the processes wait for each other"
            for sentinel in ended:
                process = waiting.pop(sentinel)
                process.join()
                code = code or process.exitcode
    finally:
        for process in processes:
            process.kill()
            process.join()
    return Forked(code, [file.read_text() for file in files])


def torchrun(count: int, call: Callable[[], None], folder: Path) -> Forked:
    """Call a function in so many processes of this machine, as `torchrun --standalone` starts them."""
    logs = DefaultLogsSpecs(str(folder / "logs"), redirects=Std.ALL)
    config = LaunchConfig(
        *(1, 1, count, logs),
        run_id="one",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    former = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        codes = elastic_launch(config, _exit_code)(call)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    files = sorted((folder / "logs").rglob("std*.log"))
    return Forked(max(codes.values()), [file.read_text() for file in files])


def _exit_code(call: Callable[[], None]) -> int:
    torch.set_num_threads(1)  # OpenMP's threads don't survive a fork
    try:
        call()
    except SystemExit as ended:
        return ended.code or 0
    return 0


def _enter(rank: int, count: int, port: int, file: Path, call: Callable[[], None], cwd: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked"}
    os.chdir(cwd)
    sys.stdout = sys.stderr = open(file, "w", buffering=1)  # noqa: SIM115 (open until the process ends)
    torch.set_num_threads(1)  # OpenMP's threads don't survive a fork
    call()
