"""When the timings of a plan are measured, and when those of a former run are kept."""

from types import SimpleNamespace

import pytest
import torch

from lungseg.harness.plan import make_plan
from lungseg.harness.timings import PHASES, STORED, _phases, estimate_seconds, time_plan, timing_seconds
from lungseg.results import read_table
from lungseg.spec import TimingSpec, read_spec
from lungseg.system.files import remove
from lungseg.system.progress import Reporter
from lungseg.system.runtime import Runtime
from lungseg.system.stored import read_record
from lungseg.timing.turns import Timings
from tests.tiny import SPEC as TINY

SPEC = """
name = "tiny"
runtime = { device = "cpu", precision = "float32" }
[data]
dataset = "phantom"
count = 12
size = 48
[[approach]]
use = "mean-mask"
[timing]
batch_sizes = [1]
[[timing.variants]]
precision = "bfloat16"
compiled = true
"""
OWN, VARIANT = "cpu", "cpu, bfloat16, channels-last, compiled"


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """A function that times the spec's plan with a clock that fails as told; gives reasons and labels."""
    spec_file = tmp_path / "tiny.toml"
    spec_file.write_text(SPEC)

    def time_it(changes=(), own=None, variant=None):
        labels = []

        def clock(candidates, images, runtime, timing, progress):
            assert [candidate.name for candidate in candidates] == ["mean-mask"]
            assert images[0].shape == (48, 48)
            labels.append(VARIANT if runtime.compiled else OWN)
            failed = (variant if runtime.compiled else own) or {}
            row = {"approach": "mean-mask", "stage": "whole", "compiled": runtime.compiled}
            pair = {"approach": "mean-mask", "other": "mean-mask", "compiled": runtime.compiled}
            empty, rounds = {"joules_per_image": "no counter"}, [{"round": 0, "sm_clock_mhz": 1700}]
            return Timings([] if failed else [row], [pair], dict(failed), empty, rounds)

        monkeypatch.setattr("lungseg.harness.timings.time_approaches", clock)
        plan = make_plan(read_spec(spec_file, changes))
        return time_plan(plan, plan.trials, tmp_path, Reporter()), labels

    return time_it


def test_timings_are_measured_once_and_again_when_the_spec_changes(timed, tmp_path):
    reasons, labels = timed()
    assert labels == [OWN, VARIANT]
    assert reasons["joules_per_image on cpu"] == "no counter"
    assert "timings on CUDA" in reasons
    assert list(read_table(tmp_path, "timings")["compiled"]) == [False, True]
    assert list(read_table(tmp_path, "timing_pairs")["compiled"]) == [False]  # of the run's own runtime alone
    assert timing_seconds(tmp_path) > 0
    assert read_record(tmp_path / STORED)["rounds"] == [[{"round": 0, "sm_clock_mhz": 1700}]] * 2

    assert timed() == (reasons, [])
    assert timed(["timing.repeats=31"])[1] == [OWN, VARIANT]
    (tmp_path / "timing_pairs.csv").unlink()
    assert timed(["timing.repeats=31"])[1] == []  # written again from what is stored of each runtime
    assert list(read_table(tmp_path, "timing_pairs")["compiled"]) == [False]
    assert len(list((tmp_path / PHASES).iterdir())) == 2  # none of the former repeats
    next((tmp_path / PHASES).iterdir()).write_text("{}")
    (tmp_path / "timings.csv").unlink()
    assert len(timed(["timing.repeats=31"])[1]) == 1  # what is damaged is timed again, alone


def test_a_run_that_is_cut_goes_on_with_the_runtime_it_was_in(timed, tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lungseg.harness.timings._write_tables", cut)  # after the last runtime
        with pytest.raises(KeyboardInterrupt):
            timed()
    next(path for path in (tmp_path / PHASES).iterdir() if '"compiled": true' in path.read_text()).unlink()
    reasons, labels = timed()
    assert labels == [VARIANT]
    cut_tables = [(tmp_path / name).read_bytes() for name in ("timings.csv", "timing_pairs.csv")]
    for path in (tmp_path / PHASES, tmp_path / STORED):
        remove(path)
    assert timed() == (reasons, [OWN, VARIANT])
    assert [(tmp_path / name).read_bytes() for name in ("timings.csv", "timing_pairs.csv")] == cut_tables


def test_what_failed_is_tried_again_but_not_a_variant(timed, tmp_path):
    failed = {"mean-mask, batches of 1": f"OSError: no {tmp_path / 'model'}"}
    reasons, _ = timed(own=failed)
    assert reasons["timings of mean-mask, batches of 1 on cpu"] == "OSError: no model"
    assert timed()[1] == [OWN]  # the variant is stored
    other = ["timing.repeats=31"]
    reasons, labels = timed(other, variant=failed)
    assert labels == [OWN, VARIANT]
    assert reasons[f"timings of mean-mask, batches of 1 on {VARIANT}"] == "OSError: no model"
    assert timed(other) == (reasons, [])


def test_switched_off_leaves_empty_tables_and_says_so(timed, tmp_path):
    timed()
    reasons, labels = timed(["timing.enabled=false"])
    assert (reasons, labels) == ({"timings": "switched off in the spec"}, [])
    assert read_table(tmp_path, "timings").empty
    assert read_table(tmp_path, "timing_pairs").empty
    assert timing_seconds(tmp_path) == 0
    assert timed()[1] == []  # the timings of each runtime are still there
    assert list(read_table(tmp_path, "timings")["compiled"]) == [False, True]


VARIANTS = """
[[timing.variants]]
precision = "float32"
channels_last = false
[[timing.variants]]
compiled = true
approaches = ["pixels"]
"""
UNTUNED = """
[[timing.variants]]
precision = "float32"
channels_last = false
tuned = false
deterministic = false
"""


def test_what_nobody_has_tuned_is_a_variant_of_its_own_even_in_the_same_precision_and_layout(spec_file):
    spec_file.write_text(TINY + UNTUNED)
    plan = SimpleNamespace(spec=read_spec(spec_file), runtime=Runtime(torch.device("cpu")))
    (own, untuned), _ = _phases(plan)
    assert (own.runtime.tuned, own.runtime.deterministic) == (True, True)
    assert untuned.label == "cpu, float32, contiguous, not tuned, not deterministic"
    assert (untuned.runtime.tuned, untuned.runtime.deterministic) == (False, False)


def test_the_cpu_of_a_gpu_machine_is_left_out_if_asked(spec_file):
    for value, labels in (("true", ["cuda", "cpu"]), ("false", ["cuda"])):
        spec = read_spec(spec_file, [f"timing.cpu_latency={value}"])
        plan = SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cuda"), "bfloat16", True))
        assert [phase.label for phase in _phases(plan)[0]] == labels


def test_variants_are_phases_after_the_runs_own_and_those_that_change_nothing_are_left_out(spec_file):
    spec_file.write_text(TINY + VARIANTS)
    spec = read_spec(spec_file)
    plain = SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cpu")))
    assert [phase.label for phase in _phases(plain)[0]] == ["cpu", "cpu, float32, contiguous, compiled"]
    mixed = SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cuda"), "bfloat16", True))
    (own, float32, compiled, cpu), problems = _phases(mixed)
    assert problems == {}
    assert [phase.label for phase in (own, float32, compiled, cpu)] == [
        "cuda",
        "cuda, float32, contiguous",
        "cuda, bfloat16, channels-last, compiled",
        "cpu",
    ]
    assert own.timing.twice
    assert not float32.timing.twice
    assert compiled.approaches == ("pixels",)
    assert cpu.timing.batch_sizes == (1,)


def test_a_cpu_beside_the_gpu_that_can_not_compile_is_said(spec_file, monkeypatch):
    monkeypatch.setattr("lungseg.system.usable_runtime.why_not_compiled", lambda device: "no C++ compiler")
    spec = read_spec(spec_file, ["runtime.compiled=true"])
    phases, problems = _phases(
        SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cuda"), compiled=True))
    )
    assert [phase.runtime.compiled for phase in phases] == [True, False]
    assert problems == {"predictions by torch.compile on cpu": "no C++ compiler"}


def test_the_estimate_grows_with_what_is_asked_for():
    plain = TimingSpec(batch_sizes=(1,), twice=False)
    once = estimate_seconds(plain, 2)
    assert 1.5 * once < estimate_seconds(plain.model_copy(update={"twice": True}), 2) < 2 * once
    assert estimate_seconds(plain.model_copy(update={"batch_sizes": (1, 8)}), 2) > once
    assert estimate_seconds(plain.model_copy(update={"enabled": False}), 2) == 0
    variants = TimingSpec(batch_sizes=(1,), twice=False, variants=({"approaches": ("a",)}, {}))
    assert estimate_seconds(variants, 2) == pytest.approx(once + 1.5 * once)
