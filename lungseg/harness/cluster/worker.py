"""What runs in a Dask worker: it passes trials on to a process beside it, and files back to the client.

This module imports neither torch nor the rest of the package, so that a worker stays small.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

STOP_S = 60  # for a network to store its state
START = "from lungseg.harness.cluster.runner import serve; serve()"


class _Runner:
    """The process beside a worker that has made the plan of a run, and runs trials of it."""

    def __init__(self, setup: dict[str, Any]) -> None:
        environment = dict(os.environ)
        for name, value in setup["environment"].items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        self._process = subprocess.Popen(
            [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.plan: dict[str, Any] | None = None  # what it says of its plan

    def make_plan(self, setup: dict[str, Any]) -> dict[str, Any]:
        """Have it make the plan, the first time; say what it has answered."""
        if self.plan is None:
            self.plan = self.ask(setup)
        return self.plan

    def ask(self, request: Any) -> dict[str, Any]:
        """Send a line, and wait for the one that answers it; say how the process ended if none comes."""
        line = b""
        with suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else {"died": self._process.wait()}

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process; a network stores its state first."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_runners: dict[str, _Runner] = {}  # by the token of a run
_stopped: set[str] = set()
_one_at_a_time = threading.Lock()  # whatever the number of the worker's threads


def work(setup: str, label: str | None, home: str) -> str:
    """Run a trial as a task of a worker, or make the plan if there is no label.

    Args:
        setup: JSON, what `dispatch` says of the run.
        label: of a trial.
        home: the worker's own folder, as the client knows it.

    Returns:
        JSON: what the runner answers, or {"died": exit code}, or why nothing was done.
    """
    from distributed import get_worker

    if get_worker().local_directory != home:
        return json.dumps({"moved": True})  # a new worker has the address of a lost one
    values = json.loads(setup) | {"home": home}
    token = values["token"]
    with _one_at_a_time:
        if token in _stopped:
            return json.dumps({"stopped": True})
        runner = _runners.get(token)
        if runner is None or not runner.is_alive():
            runner = _runners[token] = _Runner(values)
        plan = runner.make_plan(values)
        return json.dumps(plan if label is None or "keys" not in plan else runner.ask(label))


async def stop(token: str) -> None:
    """End the runner of a run, in the middle of a trial too."""
    _stopped.add(token)
    runner = _runners.pop(token, None)
    if runner is not None:
        await asyncio.to_thread(runner.stop)


def read_part(path: str, offset: int, size: int) -> bytes:
    """Read a part of a worker's file."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def drop(root: str) -> None:
    """Remove a worker's own copy of a trial."""
    shutil.rmtree(root, ignore_errors=True)
