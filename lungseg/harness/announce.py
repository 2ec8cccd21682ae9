"""What a run says before it computes: the plan, hints, and an estimate of its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungseg.harness.evaluate import is_done
from lungseg.harness.fit import is_begun
from lungseg.harness.plan import Plan
from lungseg.harness.timings import estimate_seconds
from lungseg.harness.trial import Entry, Trial
from lungseg.system.machine import describe_cpu, find_gpu_name
from lungseg.system.plugins import name_errors
from lungseg.system.progress import Reporter


def announce(plan: Plan, directory: Path, reporter: Reporter) -> None:
    """Say the plan and an estimate of its time, before anything is computed."""
    spec, fold = plan.spec, plan.folds[0]
    left = [trial for trial in plan.trials if not is_done(trial, directory)]
    device = find_gpu_name() if plan.runtime.device.type == "cuda" else describe_cpu()
    reporter.say(f"Benchmark {spec.name}: {spec.title}" if spec.title else f"Benchmark {spec.name}")
    trained = "" if spec.training_data is None else f", trained on {plan.trained.name}"
    reporter.say(f"  data      {plan.evaluated.name}, {len(plan.evaluated.samples)} images{trained}")
    for each in fold.scored[1:]:
        reporter.say(f"  test data {each.dataset}, {len(each.samples)} images")
    reporter.say(
        f"  split     {fold.split.rule}: {len(fold.train)} train, {len(fold.validation)} validation, "
        f"{len(fold.evaluated)} evaluated ({spec.evaluate_on}), {len(plan.folds)} fold(s)"
    )
    for note in (*plan.notes, *list_hints(plan)):
        reporter.say(f"  note      {note}")
    reporter.say(f"  device    {device}, {plan.runtime.precision}, {plan.runtime.threads} threads")
    for entry in plan.entries:
        reporter.say(f"  approach  {entry.name} ({_weights_text(entry)})")
    stored = len(plan.trials) - len(left)
    reporter.say(f"  trials    {len(plan.trials)}, of which {stored} are stored already")
    reporter.say(f"  results   {directory}")
    with reporter.waiting("  estimating the time ..."):
        estimate = _estimate(plan, left, directory)
    reporter.say(f"  time      {estimate}\n")


def list_hints(plan: Plan) -> list[str]:
    """List what a user may want to change before hours are spent, a sentence each."""
    hints = []
    for entry in plan.entries:
        if hasattr(entry.approach_class, "hints") and not entry.skipped:
            with name_errors(f"approach {entry.name!r}"):
                own = entry.approach_class.hints(entry.settings, plan.runtime)
            hints += [f"{entry.name}: {hint}" for hint in own]
    if plan.not_compiled is not None:
        reason = f"torch.compile can't be used here ({plan.not_compiled})"
        hints.append(f"{reason}: predictions run without it")
    return hints


def announce_reuse(taken: Sequence[Trial], reuse: Path, reporter: Reporter) -> None:
    """Say how many trials were taken over from a published result, and why others were not."""
    why = (
        "; what isn't stored here yet is of an approach's first seed, or not there with the same code, data, "
        "settings, versions and kind of machine"
    )
    reporter.say(f"trials taken over from {reuse}: {len(taken)}{'' if taken else why}")


def _weights_text(entry: Entry) -> str:
    if entry.skipped:
        return f"skipped: {entry.skipped}"
    trained = f", trained on {entry.spec.train_on}" if entry.spec.train_on else ""
    drawn = f", {entry.spec.train_images} training images" if entry.spec.train_images else ""
    return (f"{entry.weights.kind} weights" if entry.weights else "no weights") + trained + drawn


def _estimate(plan: Plan, left: Sequence[Trial], directory: Path) -> str:
    seconds, unknown = 0.0, set()
    probed: dict[tuple, float | None] = {}
    for trial in left:
        probe = (trial.entry.name, len(trial.fold.train), len(trial.fold.validation))
        if probe not in probed:
            with name_errors(f"approach {trial.entry.name!r}"):
                probed[probe] = trial.entry.new().estimate(*probe[1:])
        if probed[probe] is None:
            unknown.add(trial.entry.name)
        seconds += probed[probe] or 0.0
    timing = plan.spec.timing
    if timing.enabled:
        timed = sum(not entry.approach_class.given for entry in plan.entries)
        seconds += estimate_seconds(timing, timed, plan.runtime.device.type)
    text = f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
    text += f", and what {', '.join(sorted(unknown))} takes" if unknown else ""
    # How far it has come is known to the approach alone.
    return f"{text}, less what is already done" if any(is_begun(t, directory) for t in left) else text
