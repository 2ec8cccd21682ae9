"""Spec -> results directory: runs a plan trial by trial, times, and writes what the report is made from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lungseg.harness.announce import announce, announce_reuse
from lungseg.harness.evaluate import is_done, merge, named_errors, run_trial, store_pictures
from lungseg.harness.fit import follow_fit
from lungseg.harness.leaks import audit_plan
from lungseg.harness.plan import Plan, make_plan, require_fits
from lungseg.harness.processes import require_alike
from lungseg.harness.record import new_record, trial_record
from lungseg.harness.results_folder import claim
from lungseg.harness.reuse import TRIAL_TABLES, read_published, take_over
from lungseg.harness.timings import time_plan, timing_seconds
from lungseg.report.write import Report, write_report
from lungseg.results import read_table, write_table
from lungseg.scoring.statistics import summarise
from lungseg.spec import Spec
from lungseg.system.distributed import barrier, broadcast, follow, is_main
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, write_atomically, write_json
from lungseg.system.progress import Reporter
from lungseg.system.runtime import be_deterministic, use_threads


def benchmark(
    spec: Spec,
    directory: Path,
    device: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    reuse: Path | None = None,
) -> Report | None:
    """Run or resume a benchmark and write its results directory.

    Args:
        spec: what to compare.
        directory: where results go; made if it isn't there.
        device: "auto", "cpu" or "cuda", over what the spec says.
        fresh: start over: what a former benchmark left there is removed first.
        reuse: folder of a published result, whose rows of unchanged trials are reused; see `reuse`.

    Returns:
        The report; None in all but the first of several processes.

    Raises:
        InputError: something a user can mend. What was stored by then stays, and the same command goes on.
    """
    if not is_main():
        _follow(spec, directory, device)
        return None
    reporter = reporter or Reporter()
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
    claim(directory, spec, fresh)
    use_threads(plan.runtime.threads)
    be_deterministic()
    record = new_record(plan) | audit.record()
    write_json(directory / "run.json", record)
    if published is not None:
        announce_reuse(take_over(plan.trials, directory, published), reuse, reporter)
    announce(plan, directory, reporter)
    for sentence in audit.leaks:
        reporter.say(f"LEAK, allowed by the spec: {sentence}")
    for sentence in audit.lookalikes:
        reporter.say(f"to be looked at: {sentence}")
    _run_trials(plan, directory, reporter)
    _write_tables(plan, directory)
    record["empty"] |= _unit_gap(directory) | time_plan(plan, directory, reporter)
    record["trials"] = [trial_record(trial, directory) for trial in plan.trials]
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    own = (trial["seconds"] for trial in record["trials"] if "taken_over" not in trial)
    record["seconds"] = round(sum(own) + timing_seconds(directory), 1)
    write_json(directory / "run.json", record)
    make_folder(directory / "figures", empty=True)  # a former run may have had one that this one hasn't
    report = write_report(directory)
    broadcast(None)
    return report


def _follow(spec: Spec, directory: Path, device: str | None) -> None:
    """Trains with the first process what it names, until there is nothing left to do."""
    barrier()  # the first may have weights to fetch
    plan = make_plan(spec, device)
    require_alike(plan)
    require_fits(plan)
    use_threads(plan.runtime.threads)
    be_deterministic()
    trials = {trial.label: trial for trial in plan.trials}
    while (label := follow()) is not None:
        with named_errors(trials[label], directory):
            follow_fit(trials[label], directory)


def _run_trials(plan: Plan, directory: Path, reporter: Reporter) -> None:
    """Fits and scores what isn't stored yet."""
    for trial in plan.trials:
        if is_done(trial, directory):
            reporter.say(f"{trial.label}: stored by a former run")
            continue
        with reporter.bar(trial.label) as move:
            run_trial(trial, directory, move)
    store_pictures(plan.trials, directory, plan.evaluated.sha256)


def _write_tables(plan: Plan, directory: Path) -> None:
    """Joins the tables of all trials, and makes statistics of their scores."""
    for table in TRIAL_TABLES:
        rows = merge(plan.trials, directory, table)
        write_atomically(directory / f"{table}.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_table(directory / "statistics.csv", "statistics", summarise(read_table(directory, "scores")))


def _unit_gap(directory: Path) -> dict[str, str]:
    if read_table(directory, "scores")["distance_unit"].nunique() < 2:
        return {}
    return {"distances": "some images have a pixel spacing and some have none, so they have no common unit"}
