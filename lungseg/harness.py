"""Spec -> results directory: runs a plan part by part, times, and writes what the report is made from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lungseg.environment import be_deterministic, cpu_name, cuda_name, use_threads
from lungseg.errors import InputError
from lungseg.fits import goes_on, help_fit
from lungseg.leaks import audit_plan
from lungseg.parts import Part, is_done, merge, named_errors, run_part
from lungseg.plan import Plan, make_plan, require_alike, require_fits
from lungseg.progress import Reporter
from lungseg.ranks import ask_for_help, asked_for, is_first, wait_for_all
from lungseg.record import new_record, part_record
from lungseg.report.figures import draw_figures
from lungseg.report.tables import write_tables
from lungseg.results import FORMAT, TABLES, read_table, write_table
from lungseg.reuse import PART_TABLES, read_published, take_over
from lungseg.scoring.statistics import summarise
from lungseg.spec import Spec
from lungseg.storage import make_folder, read_json, unwritable, write_atomically, write_grey, write_json
from lungseg.timings import estimated_seconds, time_plan, timing_seconds

OUR_FILES = ("run.json", "summary.md", "summary.csv", "summary.tex", *(f"{table}.csv" for table in TABLES))
OUR_FOLDERS = ("parts", "models", "predictions", "figures")


def benchmark(
    spec: Spec,
    directory: Path,
    device: str | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
    reuse: Path | None = None,
) -> str:
    """Runs or resumes a benchmark and writes its results directory.

    Args:
        spec: what to compare.
        directory: where results go; made if it isn't there.
        device: "auto", "cpu" or "cuda", over what the spec says.
        fresh: start over: what a former benchmark left there is removed first.
        reuse: folder of a published result, whose rows of unchanged trainings are taken over; see `reuse`.

    Returns:
        The summary in Markdown; empty in all but the first of several processes.

    Raises:
        InputError: something a user can mend. What was stored by then stays, and the same command goes on.
    """
    if not is_first():
        wait_for_all()  # the first may have weights to fetch
        plan = make_plan(spec, device)
        require_alike(plan)
        require_fits(plan)
        _help(plan, directory)
        return ""
    reporter = reporter or Reporter()
    reporter.say("Reading data and weights ...")
    plan = make_plan(spec, device)
    wait_for_all()
    require_alike(plan)
    require_fits(plan)
    if not plan.parts:
        reasons = "; ".join(f"{c.spec.name}: {c.skipped}" for c in plan.contestants)
        raise InputError(f"no approach of {spec.name!r} can run here ({reasons})")
    published = None if reuse is None else read_published(reuse, plan.parts, directory)
    with reporter.bar("leak audit") as move:
        audit = audit_plan(plan, move)
    _claim(directory, spec, fresh)
    use_threads(plan.runtime.threads)
    be_deterministic()
    record = new_record(plan) | audit.record()
    write_json(directory / "run.json", record)
    if published is not None:
        _say_what_was_taken(take_over(plan.parts, directory, published), reuse, reporter)
    _announce(plan, directory, reporter)
    for kind, sentences in (
        ("LEAK, allowed by the spec", audit.leaks),
        ("to be looked at", audit.lookalikes),
    ):
        for sentence in sentences:
            reporter.say(f"{kind}: {sentence}")
    for part in plan.parts:
        if is_done(part, directory):
            reporter.say(f"{part.label}: stored by a former run")
            continue
        with reporter.bar(part.label) as move:
            run_part(part, directory, move)
    _store_pictures(plan, directory)
    for table in PART_TABLES:
        rows = merge(plan.parts, directory, table)
        write_atomically(directory / f"{table}.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_table(directory / "statistics.csv", "statistics", summarise(read_table(directory, "scores")))
    record["empty"] |= _unit_gap(directory) | time_plan(plan, directory, reporter)
    record["parts"] = [part_record(part, directory) for part in plan.parts]
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    own = (part["seconds"] for part in record["parts"] if "taken_over" not in part)
    record["seconds"] = round(sum(own) + timing_seconds(directory), 1)
    write_json(directory / "run.json", record)
    summary = write_tables(directory)
    make_folder(directory / "figures", empty=True)  # a former run may have had one that this one hasn't
    draw_figures(directory)
    ask_for_help(None)
    return summary


def _help(plan: Plan, directory: Path) -> None:
    """Trains with the first process what it asks for, until it is done."""
    use_threads(plan.runtime.threads)
    be_deterministic()
    parts = {part.label: part for part in plan.parts}
    while (label := asked_for()) is not None:
        with named_errors(parts[label], directory):
            help_fit(parts[label], directory)


def _unit_gap(directory: Path) -> dict[str, str]:
    if read_table(directory, "scores")["distance_unit"].nunique() < 2:
        return {}
    return {"distances": "some images have a pixel spacing and some have none, so they have no common unit"}


def _claim(directory: Path, spec: Spec, fresh: bool) -> None:
    """Makes the directory ours, or refuses one that holds something else."""
    try:
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory} is a file: choose a folder with --out")
        if (directory / "run.json").exists():
            _require_ours(directory, spec, fresh)
            if fresh:
                _clear(directory)
        elif directory.is_dir() and any(directory.iterdir()):
            raise InputError(
                f"{directory} is not empty and holds no benchmark: choose another folder with --out"
            )
    except OSError as error:
        raise unwritable(directory, error) from error
    make_folder(directory)


def _require_ours(directory: Path, spec: Spec, fresh: bool) -> None:
    found = read_json(directory / "run.json")
    written_in = found.get("format")
    if written_in not in range(1, FORMAT + 1):
        raise InputError(
            f"{directory / 'run.json'} is no benchmark's of this version: choose another folder with --out"
        )
    if written_in < FORMAT and not fresh:
        raise InputError(
            f"{directory} holds results of an older version: start over in it with --fresh, or choose "
            "another folder with --out"
        )
    if found.get("name") != spec.name and not fresh:
        raise InputError(
            f"{directory} holds results of {found.get('name')!r}, not of {spec.name!r}: choose another "
            "folder with --out, or start over in it with --fresh"
        )


def _clear(directory: Path) -> None:
    """Removes what a benchmark writes, and nothing else; run.json, which makes the folder ours, last."""
    for folder in OUR_FOLDERS:
        if (directory / folder).exists():
            shutil.rmtree(directory / folder)
    for file in reversed(OUR_FILES):
        (directory / file).unlink(missing_ok=True)


def _announce(plan: Plan, directory: Path, reporter: Reporter) -> None:
    """The plan and an estimate of its time, before anything is computed."""
    spec, fold = plan.spec, plan.folds[0]
    left = [part for part in plan.parts if not is_done(part, directory)]
    device = cuda_name() if plan.runtime.device.type == "cuda" else cpu_name()
    reporter.say(f"Benchmark {spec.name}: {spec.title}" if spec.title else f"Benchmark {spec.name}")
    trained = "" if spec.training_data is None else f", trained on {plan.trained.name}"
    reporter.say(f"  data      {plan.evaluated.name}, {len(plan.evaluated.samples)} images{trained}")
    reporter.say(
        f"  split     {fold.split.rule}: {len(fold.train)} train, {len(fold.validation)} validation, "
        f"{len(fold.evaluated)} evaluated ({spec.evaluate_on}), {len(plan.folds)} fold(s)"
    )
    for note in dict.fromkeys((*plan.evaluated.notes, *plan.trained.notes, *_hints(plan))):
        reporter.say(f"  note      {note}")
    reporter.say(f"  device    {device}, {plan.runtime.precision}, {plan.runtime.threads} threads")
    for contestant in plan.contestants:
        reporter.say(f"  approach  {contestant.spec.name} ({_weights_text(contestant)})")
    reporter.say(f"  parts     {len(plan.parts)}, of which {len(plan.parts) - len(left)} are stored already")
    reporter.say(f"  results   {directory}")
    reporter.say(f"  time      {_estimate(plan, left, directory)}\n")


def _hints(plan: Plan) -> list[str]:
    """What a user may want to change before hours are spent."""
    hints = [
        f"{contestant.spec.name}: {hint}"
        for contestant in plan.contestants
        if not contestant.skipped
        for hint in contestant.kind.hints(contestant.settings, plan.runtime)
    ]
    if plan.not_compiled is not None:
        reason = f"torch.compile can't be used here ({plan.not_compiled})"
        hints.append(f"{reason}: predictions run without it")
    return hints


def _say_what_was_taken(taken: Sequence[Part], reuse: Path, reporter: Reporter) -> None:
    why = (
        "; what isn't stored here yet is of an approach's first seed, or not there with the same code, data, "
        "settings, versions and kind of machine"
    )
    reporter.say(f"parts taken over from {reuse}: {len(taken)}{'' if taken else why}")


def _weights_text(contestant: Any) -> str:
    if contestant.skipped:
        return f"skipped: {contestant.skipped}"
    return f"{contestant.weights.kind} weights" if contestant.weights else "no weights"


def _estimate(plan: Plan, left: Sequence[Part], directory: Path) -> str:
    seconds, unknown = 0.0, set()
    probed: dict[tuple, float | None] = {}
    for part in left:
        probe = (part.approach.name, len(part.train), len(part.validation))
        if probe not in probed:
            probed[probe] = part.kind(part.settings, part.runtime).estimate(*probe[1:])
        if probed[probe] is None:
            unknown.add(part.approach.name)
        seconds += probed[probe] or 0.0
    timing = plan.spec.timing
    if timing.enabled:
        seconds += estimated_seconds(timing, len(plan.contestants), plan.runtime.device.type)
    text = f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
    text += f", and what {', '.join(sorted(unknown))} takes" if unknown else ""
    # How far it has come is known to the approach alone.
    ahead = any(goes_on(part, directory) for part in left)
    return f"{text}, less what is stored of a part that goes on" if ahead else text


def _store_pictures(plan: Plan, directory: Path) -> None:
    """Evaluated images and truths as 8-bit PNG: the report draws from the directory alone."""
    folder = directory / "predictions"
    stored = folder / "images.json"
    if not (stored.exists() and read_json(stored).get("sha256") == plan.evaluated.sha256):
        for side in ("images", "truth"):
            make_folder(folder / side, empty=True)
        write_json(stored, {"sha256": plan.evaluated.sha256})
    for part in plan.parts:
        for sample in part.evaluated:
            if not (folder / "truth" / f"{sample.id}.png").exists():
                write_grey(folder / "images" / f"{sample.id}.png", sample.image())
                write_grey(folder / "truth" / f"{sample.id}.png", sample.mask())
