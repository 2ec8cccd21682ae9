"""Processes of one run have to be alike."""

import pytest

from lungseg.harness.plan import _facts, differences, make_plan
from lungseg.harness.run import benchmark
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import NO_TIMING

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def other_process(spec_file, monkeypatch):
    """A function that makes the processes of a run two: this one, and one whose facts are changed."""

    def make(**changed) -> None:
        monkeypatch.setattr("lungseg.harness.plan.world_size", lambda: 2)
        monkeypatch.setattr("lungseg.harness.plan.all_gather", lambda own: [*own, {**own[0], **changed}])

    return make


def test_processes_that_would_learn_from_different_things_are_refused(spec_file, tmp_path, other_process):
    other_process(data="another", newer="fact")
    with pytest.raises(InputError, match="processes of this run differ in their data, newer: give all"):
        benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_processes_have_to_share_follows_from_the_plan(spec_file):
    plain = ["runtime.precision=float32"]  # what "auto" takes depends on the machine
    base = _facts(make_plan(read_spec(spec_file, plain)))
    assert base == _facts(make_plan(read_spec(spec_file, plain)))
    for change, differ in (
        ("approach.pixels.size=24", {"settings"}),
        ("data.count=13", {"data", "split"}),
        ("seeds=[0]", {"seeds"}),
        ("runtime.threads=1", set()),
        ("runtime.precision=bfloat16", {"precision"}),
    ):
        other = _facts(make_plan(read_spec(spec_file, [*plain, change])))
        assert set(differences([base, other])) == differ, change


def test_an_approach_that_one_process_lacks_is_what_differs(spec_file, monkeypatch):
    base = _facts(make_plan(read_spec(spec_file)))
    monkeypatch.setattr("lungseg.approaches.baselines.MeanMask.skip", lambda self: "not installed")
    other = _facts(make_plan(read_spec(spec_file)))
    assert differences([base, other]) == ["code, packages and weights of mean-mask"]
