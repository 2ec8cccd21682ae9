"""Hand the trials of a plan to the workers of a Dask cluster, one at a time each, until all are stored."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.harness.cluster import worker as remote
from lungseg.harness.cluster.connection import WORKERS_S, explain_no_worker, list_workers
from lungseg.harness.cluster.facts import SAME_CODE, explain_difference, list_facts
from lungseg.harness.cluster.transfer import clear, fetch_trial, find_lock, show
from lungseg.harness.evaluate import TRACEBACK, is_done
from lungseg.harness.plan import Plan
from lungseg.harness.trial import Trial
from lungseg.system.errors import InputError, UnwritableError, describe_error
from lungseg.system.files import write_atomically
from lungseg.system.lock import hold_folder
from lungseg.system.progress import Reporter
from lungseg.system.stored import Description

if TYPE_CHECKING:  # an extra
    from distributed import Client, Future

LOOK_S, STEP_S = 1.0, 0.05  # between two looks at the list of workers, and at their answers
RESULT_S = 10  # for an answer that is ready to come
SEEN_S = 60  # for a file system on a network to show what another machine has written
BUSY_S = 5
MOST_LOSSES = 3  # of one trial
FULL = "most likely memory was full, so lower its size, its batch or its pixels, or give workers more"
# Dask sets these for its workers. Runners have them as this process has, so that all round alike.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Worker:
    """A worker as the client sees it.

    Attributes:
        home: its own folder, which no other worker has, nor a later one with the same address.
        labels: of the trials whose keys are the same there; None until it has made the plan.
        trial: what it runs; None while it makes the plan, or does nothing.
    """

    address: str
    home: str
    future: Future | None = None
    trial: Trial | None = None
    labels: set[str] | None = None


class Dispatch:
    """One run's trials on a cluster.

    Args:
        client: of the cluster.
        plan: made here.
        device: as `make_plan` was given it.
        directory: of the results.
        reporter: gets a line for each trial, and the progress.
    """

    def __init__(
        self, client: Client, plan: Plan, device: str | None, directory: Path, reporter: Reporter
    ) -> None:
        self._client, self._plan, self._directory = client, plan, directory
        self._say, self._bar = reporter.say, reporter.bar
        self._token = secrets.token_hex(16)
        self._setup = json.dumps(
            {
                "token": self._token,
                "spec": plan.spec.model_dump(mode="json", exclude_unset=True),
                "device": device,
                "directory": os.path.abspath(directory),
                "environment": {name: os.environ.get(name) for name in THREAD_VARIABLES},
            }
        )
        self._facts = list_facts(plan)
        self._workers: dict[str, _Worker] = {}  # by home
        self._refusals: dict[str, str] = {}  # by approach: why the last one that refused it did
        self._left: list[Trial] = []
        self._failures: list[tuple[Trial, str]] = []
        self._not_before: dict[str, float] = {}
        self._tried: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._sent, self._looked_at, self._helped_at = 0, -LOOK_S, time.monotonic()
        self._all_have_answered = False

    def run(self, trials: Sequence[Trial]) -> list[tuple[Trial, str]]:
        """Run trials and store them; return those that failed, each with its reason.

        Raises:
            InputError: the scheduler is gone, no worker is left, or none makes the same plan as this machine.
            UnwritableError: the directory can't be written.
        """
        self._left, total = list(trials), len(trials)
        show(self._directory, self._token)
        try:
            with self._bar("trials on the cluster") as move:
                while self._left or self._running():
                    self._step(total, move)
        finally:
            self._end()
        if not self._failures:  # else a worker that the cluster has lost may still hold a lock
            clear(self._directory)
        return self._failures

    def _running(self) -> list[Trial]:
        return [worker.trial for worker in self._workers.values() if worker.trial is not None]

    def _step(self, total: int, move: Callable[[int, int, str], None]) -> None:
        if time.monotonic() - self._looked_at > LOOK_S:
            self._look()
            self._looked_at = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.future is not None and worker.future.done():
                self._collect(worker)
        for worker in self._workers.values():
            if worker.future is None and worker.labels:
                self._hand_out(worker)
        self._require_help()
        move(total - len(self._left) - len(self._running()), total, self._describe_workers())
        time.sleep(STEP_S)

    def _describe_workers(self) -> str:
        count = len(self._workers)
        planning = sum(worker.labels is None for worker in self._workers.values())
        running = "; ".join(trial.label for trial in self._running())
        text = f"{count} worker{'s' * (count != 1)}"
        text += f", {planning} of which read data" if planning else ""
        return f"{text}: {running}" if running else text

    def _look(self) -> None:
        """Notices which workers are new, and which are gone."""
        now = list_workers(self._client)
        for home in self._workers.keys() - now.keys():
            worker = self._workers.pop(home)
            if worker.future is not None:
                worker.future.cancel()
            if worker.trial is not None:
                self._count_loss(worker.trial, f"the worker {worker.address} was lost", FULL)
        for home in sorted(now.keys() - self._workers.keys()):
            self._workers[home] = worker = _Worker(now[home], home)
            self._send(worker, None)

    def _send(self, worker: _Worker, trial: Trial | None) -> None:
        """Has a worker run a trial, or make the plan."""
        self._sent += 1
        worker.trial = trial
        worker.future = self._client.submit(
            *(remote.work, self._setup, trial and trial.label, worker.home),
            key=f"lungseg-{self._token}-{self._sent}",
            workers=[worker.address],
            pure=False,
        )

    def _hand_out(self, worker: _Worker) -> None:
        now = time.monotonic()
        fitting = [
            trial
            for trial in self._left
            if trial.label in worker.labels and self._not_before.get(trial.label, now) <= now
        ]
        if not fitting:
            return
        # What a worker has tried before goes to another one, if there is something else for this one.
        trial = min(fitting, key=lambda trial: (worker.home, trial.label) in self._tried)
        self._tried.add((worker.home, trial.label))
        self._left.remove(trial)
        self._send(worker, trial)

    def _collect(self, worker: _Worker) -> None:
        """Takes in a worker's answer."""
        from distributed import KilledWorker

        try:
            reply = json.loads(worker.future.result(timeout=RESULT_S))
        except TimeoutError:
            return  # the worker was lost with it, as `_look` will notice
        except KilledWorker:
            reply = {"died": "its worker was lost"}
        except CancelledError:  # the scheduler was restarted, or is gone
            self._forget(worker)
            return
        except Exception as error:
            reply = {"refused": f"it can't run lungseg ({describe_error(error)}): {SAME_CODE}"}
        trial, worker.future, worker.trial = worker.trial, None, None
        if trial is None:
            self._learn(worker, reply)
        else:
            self._settle(worker, trial, reply)

    def _forget(self, worker: _Worker) -> None:
        """Has `_look` find a worker again, if it is still there."""
        del self._workers[worker.home]
        if worker.trial is not None:
            self._put_back(worker.trial, None, BUSY_S)

    def _learn(self, worker: _Worker, reply: dict[str, Any]) -> None:
        """Takes down which trials have the same keys on a worker as here."""
        keys = reply.get("keys", {})
        pairs = {trial.label: [trial.keys.fit, trial.keys.score] for trial in self._plan.trials}
        worker.labels = {label for label, pair in pairs.items() if keys.get(label) == pair}
        refused = [trial.entry.name for trial in self._plan.trials if trial.label not in worker.labels]
        for name in dict.fromkeys(refused):
            if "facts" in reply:
                why = explain_difference(self._facts[name], reply["facts"].get(name, {}))
            else:
                why = reply.get("refused") or f"{_name_end(reply)}: look into its log"
            self._refuse(name, f"the worker {worker.address} is not used for {name}, since {why}")

    def _refuse(self, name: str, sentence: str) -> None:
        self._refusals[name] = sentence
        self._say(sentence)

    def _settle(self, worker: _Worker, trial: Trial, reply: dict[str, Any]) -> None:
        """Stores what a worker has done, or sees to it that it is done again."""
        if "done" in reply:
            self._store(worker, trial, reply)
        elif "failed" in reply:
            if reply["traceback"]:
                write_atomically(trial.folder(self._directory) / TRACEBACK, reply["traceback"])
            self._fail(trial, reply["failed"])
        elif "unwritable" in reply and reply["shared"]:
            raise UnwritableError(reply["unwritable"])
        elif "unwritable" in reply or "refused" in reply:
            worker.labels = set()
            why = reply.get("unwritable") or reply["refused"]
            for name in {each.entry.name for each in self._plan.trials}:
                self._refusals[name] = f"the worker {worker.address} is not used any more: {why}"
            self._put_back(trial, self._refusals[trial.entry.name])
        elif reply.get("died"):
            self._count_loss(trial, f"on {worker.address} {_name_end(reply)}", FULL)
        else:
            self._put_back(trial, reply.get("busy"), BUSY_S)

    def _put_back(self, trial: Trial, why: str | None, seconds: float = 0) -> None:
        self._left.append(trial)
        self._not_before[trial.label] = time.monotonic() + seconds
        text = f"{trial.label}: {why}"
        if why and text not in self._told:  # a lock may be held for long
            self._told.add(text)
            self._say(text)

    def _count_loss(self, trial: Trial, how: str, advice: str) -> None:
        """Has a trial done again that came to nothing, unless that has happened too often."""
        self._losses[trial.label] += 1
        if self._losses[trial.label] < MOST_LOSSES:
            self._put_back(trial, f"{how}; it is tried again")
        else:
            times = f"was lost {MOST_LOSSES} times, the last time because"
            self._fail(trial, f"{trial.label} {times} {how}: {advice}")

    def _fail(self, trial: Trial, reason: str) -> None:
        self._failures.append((trial, reason))
        self._say(f"failed: {reason}")

    def _store(self, worker: _Worker, trial: Trial, reply: dict[str, Any]) -> None:
        """Fetches a trial if need be, and checks that it is stored."""
        if "files" in reply and not self._fetch(worker, trial, Path(reply["root"]), reply["files"]):
            return
        until = time.monotonic() + (0 if "files" in reply else SEEN_S)
        while not is_done(trial, self._directory):
            if time.monotonic() > until:
                self._fail(
                    trial,
                    f"{trial.label} was stored by the worker {worker.address}, but {self._directory} doesn't "
                    "show it whole: choose a folder with --out that all machines see alike",
                )
                return
            time.sleep(LOOK_S)
        self._say(f"{trial.label}: {reply['seconds']:.1f} s on {worker.address}")

    def _fetch(self, worker: _Worker, trial: Trial, root: Path, files: Description) -> bool:
        """Copies a trial from a worker's own folder; if that fails it is asked for again."""

        def read(name: str, start: int, size: int) -> bytes:
            return self._call(worker, remote.read_part, str(root / name), start, size)

        with ExitStack() as stack:
            try:
                # Another worker, which shares the directory and was lost, may still write there.
                stack.enter_context(hold_folder(find_lock(trial, self._directory)))
            except UnwritableError:
                raise
            except InputError as error:
                self._put_back(trial, str(error), BUSY_S)
                return False
            try:
                fetch_trial(trial, files, read, self._directory)
            except (OSError, ValueError, KeyError) as error:
                how = f"it couldn't be fetched from {worker.address} ({describe_error(error)})"
                self._count_loss(trial, how, "look whether the worker's disk and network are sound")
                return False
        with suppress(OSError, KeyError):  # the worker is gone, and its copy most likely too
            self._call(worker, remote.drop, str(root))
        return True

    def _call(self, worker: _Worker, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.run(function, *args, workers=[worker.address])[worker.address]

    def _require_help(self) -> None:
        """Ends the run if nobody can do what is left, at once if that is so from the start."""
        workers, left = list(self._workers.values()), self._left
        able = set().union(*(worker.labels or () for worker in workers))
        helpless = [trial for trial in left if trial.label not in able]
        have_answered = bool(workers) and all(worker.labels is not None for worker in workers)
        if have_answered and helpless and not self._all_have_answered:
            raise InputError(self._refusals[helpless[0].entry.name])
        self._all_have_answered |= have_answered
        if (workers and not have_answered) or len(helpless) < len(left) or self._running() or not left:
            self._helped_at = time.monotonic()
        elif time.monotonic() - self._helped_at > WORKERS_S:  # lost workers may come back
            refusal = self._refusals.get(left[0].entry.name) if workers else None
            raise InputError(refusal or explain_no_worker(self._client.scheduler.address))

    def _end(self) -> None:
        """Ends what workers do for this run; the cluster stays."""
        for worker in self._workers.values():
            if worker.future is not None:
                worker.future.cancel()
        # In a thread, since a worker that doesn't answer would be waited for without end.
        ending = threading.Thread(target=self._stop_runners, daemon=True)
        ending.start()
        ending.join(remote.STOP_S + RESULT_S)

    def _stop_runners(self) -> None:
        with suppress(Exception):  # of a scheduler or a worker that is gone
            self._client.run(remote.stop, self._token, on_error="ignore")


def _name_end(reply: dict[str, Any]) -> str:
    """How a process ended."""
    code = reply.get("died", 0)
    if isinstance(code, str):
        return code
    return f"its process ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended ({code})"
