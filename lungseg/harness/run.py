"""Spec -> results directory: runs a plan trial by trial, times, and writes what the report is made from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.harness.announce import announce, announce_reuse
from lungseg.harness.cluster.connection import join_cluster
from lungseg.harness.cluster.dispatch import Dispatch
from lungseg.harness.evaluate import check_rows, is_done, merge, named_errors, run_trial, store_pictures
from lungseg.harness.fit import follow_fit, is_begun, is_fitted
from lungseg.harness.leaks import audit_plan
from lungseg.harness.plan import Plan, make_plan, require_alike, require_fits
from lungseg.harness.record import new_record, trial_record
from lungseg.harness.results_folder import claim, remove_figures, require_nothing_replaced
from lungseg.harness.reuse import read_published, take_over
from lungseg.harness.timings import time_plan, timing_seconds
from lungseg.harness.trial import Trial
from lungseg.report.write import Report, write_report
from lungseg.results import TRIAL_TABLES, finish_run, read_table, write_table
from lungseg.scoring.statistics import summarise
from lungseg.spec import Spec
from lungseg.system.distributed import barrier, broadcast, follow, is_main, world_size
from lungseg.system.errors import InputError, TrialsFailedError, UnwritableError, shorten_paths
from lungseg.system.files import write_atomically
from lungseg.system.interrupts import Interrupted
from lungseg.system.lock import require_free
from lungseg.system.progress import Reporter
from lungseg.system.runtime import keep_process_state
from lungseg.system.stored import write_record

if TYPE_CHECKING:  # an extra
    from distributed import Client


def benchmark(
    spec: Spec,
    directory: Path,
    device: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    reuse: Path | None = None,
    cluster: str | None = None,
) -> Report | None:
    """Run or resume a benchmark and write its results directory.

    Args:
        spec: what to compare.
        directory: where results go; made if it isn't there.
        device: "auto", "cpu" or "cuda", over what the spec says.
        fresh: start over: what a former benchmark left there is removed first.
        reuse: folder of a published result, whose rows of unchanged trials are reused; see `reuse`.
        cluster: address of a Dask scheduler, whose workers run the trials; see `cluster`.

    Returns:
        The report; None in all but the first of several processes.

    A trial that fails doesn't end the run: the others go on, its approach has no rows, and `failed` in
    run.json says why. The next run tries it again.

    Raises:
        InputError: something a user can mend. What was stored by then stays, and the same command goes on.
    """
    with join_cluster(cluster) as client:  # first, as all of them say a wrong use of it
        if not is_main():
            _follow(spec, directory, device)
            return None
        return _benchmark(spec, directory, device, fresh, reporter or Reporter(), reuse, client)


def _benchmark(
    spec: Spec,
    directory: Path,
    device: str | None,
    fresh: bool,
    reporter: Reporter,
    reuse: Path | None,
    client: Client | None,
) -> Report:
    """Runs a benchmark in the first process, with the workers of a cluster if there is a client of one."""
    require_free(directory)  # before the data is read, which may take long
    reporter.say("Reading data and weights ...")
    plan = make_plan(spec, device)
    barrier()
    require_alike(plan)
    require_fits(plan)
    if not plan.trials:
        reasons = "; ".join(f"{entry.name}: {entry.skipped}" for entry in plan.entries)
        raise InputError(f"no approach of {spec.name!r} can run here ({reasons})")
    published = None if reuse is None else read_published(reuse, plan.trials, directory)
    with reporter.bar("leak audit") as move:
        audit = audit_plan(plan, move)
    with claim(directory, spec, fresh):
        require_nothing_replaced(plan.trials, directory)
        record = new_record(plan) | audit.record()
        write_record(directory / "run.json", record)
        if published is not None:
            announce_reuse(take_over(plan.trials, directory, published), reuse, reporter)
        announce(plan, directory, reporter)
        if audit.checked and not audit.leaks:
            reporter.say(
                f"leak audit: {audit.checked} images compared, no patient and no picture on two sides"
            )
        for sentence in audit.leaks:
            reporter.say(f"LEAK, allowed by the spec: {sentence}")
        for sentence in audit.lookalikes:
            reporter.say(f"to be looked at: {sentence}")
        try:
            failures = _run_trials(plan, directory, reporter, client, device)
            report = _finish(plan, directory, record, failures, reporter)
        except (KeyboardInterrupt, Interrupted):
            _say_stored(plan, directory, reporter)
            raise
    broadcast(None)
    return report


def _finish(
    plan: Plan,
    directory: Path,
    record: dict[str, Any],
    failures: Sequence[tuple[Trial, str]],
    reporter: Reporter,
) -> Report:
    """Times the approaches, and writes the tables, run.json and the report."""
    failed = {trial.entry.name for trial, _ in failures}
    # A mean over fewer folds or seeds than the others' would be another quantity.
    trials = [trial for trial in plan.trials if trial.entry.name not in failed]
    record["failed"] = [{**trial.row, "reason": shorten_paths(why)} for trial, why in failures]
    if not trials:
        write_record(directory / "run.json", record)
        raise TrialsFailedError(f"every approach failed: {'; '.join(why for _, why in failures)}")
    _write_tables(trials, directory)
    record["empty"] |= _unit_gap(directory) | time_plan(plan, trials, directory, reporter)
    record["trials"] = [trial_record(trial, directory) for trial in trials]
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    own = (trial["seconds"] for trial in record["trials"] if "taken_over" not in trial)
    record["seconds"] = round(sum(own) + timing_seconds(directory), 1)
    finish_run(directory, record)
    remove_figures(directory)  # a former run may have had one that this one hasn't
    return write_report(directory)


def _say_stored(plan: Plan, directory: Path, reporter: Reporter) -> None:
    """Says what a run that is stopped has stored."""
    done = [trial for trial in plan.trials if is_done(trial, directory)]
    begun = [trial.label for trial in plan.trials if trial not in done and is_begun(trial, directory)]
    also = f", and how far {', '.join(begun)} has come" if begun else ""
    reporter.say(f"stored in {directory}: {len(done)} of {len(plan.trials)} trials{also}")


def _follow(spec: Spec, directory: Path, device: str | None) -> None:
    """Trains with the first process what it names, until there is nothing left to do."""
    barrier()  # the first may have weights to fetch
    plan = make_plan(spec, device)
    require_alike(plan)
    require_fits(plan)
    trials = {trial.label: trial for trial in plan.trials}
    while (label := follow()) is not None:
        with keep_process_state(plan.runtime.threads), named_errors(trials[label], directory):
            follow_fit(trials[label], directory)


def _run_trials(
    plan: Plan, directory: Path, reporter: Reporter, client: Client | None, device: str | None
) -> list[tuple[Trial, str]]:
    """Fits and scores what isn't stored yet; returns the trials that failed, each with its reason."""
    failures: list[tuple[Trial, str]] = []
    for_workers: list[Trial] = []
    for trial in plan.trials:
        record, damage = check_rows(trial, directory)
        if record is not None:
            reporter.say(f"{trial.label}: stored by a former run")
            continue
        if damage:
            reporter.say(f"{trial.label}: {damage}; what depends on it is made again")
        if client is not None and not is_fitted(trial, directory):  # else its scores alone are missing
            for_workers.append(trial)
            continue
        try:
            # Rows must not depend on what another row's class did to the process.
            bar = reporter.bar(trial.label, _short_label(trial, plan.trials))
            with keep_process_state(plan.runtime.threads), bar as move:
                run_trial(trial, directory, move)
        except UnwritableError:
            raise
        except InputError as error:
            if world_size() > 1:  # the other processes wait in the middle of the fit
                raise
            failures.append((trial, str(error)))
            reporter.say(f"failed: {error}")
    if client is not None:
        if for_workers:
            failures += Dispatch(client, plan, device, directory, reporter).run(for_workers)
            failures.sort(key=lambda failure: plan.trials.index(failure[0]))
        client.close()  # timings have the machine to themselves
    evaluated = (sample for trial in plan.trials for sample in trial.fold.evaluated)
    store_pictures(evaluated, directory, plan.evaluated.sha256)
    return failures


def _short_label(trial: Trial, trials: Sequence[Trial]) -> str | None:
    """The name of an approach that has one trial: its fold and seed say nothing then."""
    alone = sum(other.entry.name == trial.entry.name for other in trials) == 1
    return trial.entry.name if alone else None


def _write_tables(trials: Sequence[Trial], directory: Path) -> None:
    """Joins the tables of trials, and makes statistics of their scores."""
    for table in TRIAL_TABLES:
        rows = merge(trials, directory, table)
        write_atomically(directory / f"{table}.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_table(directory / "statistics.csv", "statistics", summarise(read_table(directory, "scores")))


def _unit_gap(directory: Path) -> dict[str, str]:
    if read_table(directory, "scores")["distance_unit"].nunique() < 2:
        return {}
    return {"distances": "some images have a pixel spacing and some have none, so they have no common unit"}
