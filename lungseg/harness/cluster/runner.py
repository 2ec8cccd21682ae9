"""The process beside a Dask worker that makes the plan of a run, and runs its trials in the main thread."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lungseg.harness.cluster.facts import list_facts
from lungseg.harness.cluster.transfer import describe_trial, find_lock, sees
from lungseg.harness.cluster.worker import STOP_S
from lungseg.harness.evaluate import TRACEBACK, is_done, run_trial
from lungseg.harness.plan import make_plan
from lungseg.harness.trial import Trial
from lungseg.spec import Spec
from lungseg.system.errors import InputError, UnwritableError, describe_error
from lungseg.system.hashing import hash_value
from lungseg.system.interrupts import Interrupted, raise_on_signals
from lungseg.system.lock import hold_folder
from lungseg.system.runtime import keep_process_state

IDLE_S = 600  # then the process ends, and gives its memory back


def serve() -> None:
    """Make the plan that the first line of standard input describes, and run the trials that the next name.

    A line of JSON answers each. The process ends with its worker, or after a while without a trial.
    """
    raise_on_signals()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # these two as `cli.main` does
    os.environ["MPLBACKEND"] = "agg"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what approaches print goes to the worker's log

    def answer(reply: dict[str, Any]) -> None:
        with suppress(OSError):  # the worker is gone, and so is this process soon
            print(json.dumps(reply), file=answers, flush=True)

    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=[requests], daemon=True).start()
    try:
        _work(requests, answer)
    except Interrupted as error:
        answer({"stopped": True})
        sys.exit(error.exit_code)


def _listen(requests: queue.Queue[Any]) -> None:
    """Takes in what is asked; where the worker is gone it ends the process as SIGTERM does."""
    begun = b""
    # Not `sys.stdin`, whose lock this thread would hold when the process ends.
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            requests.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


def _work(requests: queue.Queue[Any], answer: Callable[[dict[str, Any]], None]) -> None:
    try:
        trials = _Trials(requests.get())
    except (Exception, SystemExit) as error:
        why = str(error) if isinstance(error, InputError) else describe_error(error)
        answer({"refused": f"it makes no plan ({why})"})
        return
    answer(trials.answer)
    with suppress(queue.Empty):
        while True:
            answer(trials.run(requests.get(timeout=IDLE_S)))


class _Trials:
    """The plan of a run, made here.

    Attributes:
        answer: the keys of its trials, and what these are made of.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._plan = make_plan(Spec.model_validate(setup["spec"]), setup["device"])
        self._trials = {trial.label: trial for trial in self._plan.trials}
        self._directory = Path(setup["directory"])
        self._is_shared = sees(self._directory, setup["token"])
        # The next run of this spec finds again what a client that was killed hasn't fetched.
        same = hash_value([setup["spec"], setup["device"], setup["directory"]])
        self._own = Path(setup["home"]) / "lungseg" / same[:16]
        keys = {label: [trial.keys.fit, trial.keys.score] for label, trial in self._trials.items()}
        self.answer = {"keys": keys, "facts": list_facts(self._plan)}

    def run(self, label: str) -> dict[str, Any]:
        """Run a trial, unless it is stored already, and say what became of it."""
        trial = self._trials[label]
        place = trial.folder(Path())
        root = self._directory if self._is_shared else self._own / place.parent.name / place.name
        with ExitStack() as stack:
            try:
                # A worker that the cluster has lost may still be alive, and write there.
                stack.enter_context(hold_folder(find_lock(trial, root)))
            except UnwritableError as error:
                return self._unwritable(error)
            except InputError as error:
                return {"busy": str(error)}
            return self._run(trial, root)

    def _run(self, trial: Trial, root: Path) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            if not is_done(trial, root):
                with keep_process_state(self._plan.runtime.threads):
                    run_trial(trial, root, lambda *_: None)
        except UnwritableError as error:
            return self._unwritable(error)
        except InputError as error:
            text = str(error).replace(str(root), str(self._directory))
            return {"failed": text, "traceback": self._read_traceback(trial, root)}
        done = {"done": True, "seconds": time.perf_counter() - start}
        return done if self._is_shared else done | {"root": str(root), "files": describe_trial(trial, root)}

    def _unwritable(self, error: UnwritableError) -> dict[str, Any]:
        return {"unwritable": str(error), "shared": self._is_shared}

    def _read_traceback(self, trial: Trial, root: Path) -> str | None:
        """The traceback of a trial that failed, if the client can't see it."""
        if self._is_shared:
            return None
        with suppress(OSError):
            return (trial.folder(root) / TRACEBACK).read_text("utf-8")
        return None
