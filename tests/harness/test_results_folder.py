"""A results directory is claimed, or refused."""

import errno
import json
from pathlib import Path

import pytest

from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.results import FORMAT
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import NO_TIMING

pytestmark = pytest.mark.usefixtures("without_figures")


def test_directories_that_hold_something_else_are_refused(spec_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(InputError, match="holds no benchmark"):
            benchmark(read_spec(spec_file), out, fresh=fresh)
    assert (out / "thesis.tex").read_text() == "years of work"

    (out / "thesis.tex").unlink()
    (out / "run.json").write_text(json.dumps({"format": FORMAT, "name": "another"}))
    with pytest.raises(InputError, match="results of 'another'"):
        benchmark(read_spec(spec_file), out)
    (out / "run.json").write_text(json.dumps({"format": FORMAT - 1, "name": "tiny"}))
    with pytest.raises(InputError, match="older version: start over in it with --fresh"):
        benchmark(read_spec(spec_file), out)
    (out / "run.json").write_text("{ half")
    with pytest.raises(InputError, match="damaged"):
        benchmark(read_spec(spec_file), out)
    (out / "run.json").write_text(json.dumps({"name": "tiny", "made_by": "another tool"}))
    (out / "models").mkdir()
    with pytest.raises(InputError, match="no benchmark's"):
        benchmark(read_spec(spec_file), out, fresh=True)
    assert (out / "models").is_dir()


def test_a_folder_without_the_right_to_look_into_it(spec_file, tmp_path, monkeypatch):
    def forbidden(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    spec = read_spec(spec_file, NO_TIMING)
    plan = make_plan(spec)
    monkeypatch.setattr("lungseg.harness.run.make_plan", lambda *_: plan)
    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(InputError, match=r"Permission denied.*choose another folder"):
        benchmark(spec, tmp_path / "shut")
