"""Several processes for a test: started by torchrun itself, or forked, which saves importing torch again."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch

TIMEOUT = 300  # seconds


def torchrun(count: int, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run `torchrun WORDS` with so many processes on this machine."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


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


def _enter(rank: int, count: int, port: int, file: Path, call: Callable[[], None], cwd: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "forked"}
    os.chdir(cwd)
    sys.stdout = sys.stderr = open(file, "w", buffering=1)  # noqa: SIM115 (open until the process ends)
    torch.set_num_threads(1)  # OpenMP's threads don't survive a fork
    call()
