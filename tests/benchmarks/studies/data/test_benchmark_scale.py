"""The curve of a benchmark's steps: what counts where, and that a point is measured once."""

import json
import sys

import pandas as pd
import pytest

from benchmarks.studies import points
from benchmarks.studies.data import benchmark_scale
from benchmarks.studies.data.benchmark_points import STEPS, Stopwatch
from lungseg.system.errors import InputError


def test_a_step_within_another_counts_there_alone(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("benchmarks.studies.data.benchmark_points.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    inner = watch._wrap("fit", lambda: None)

    def score() -> None:
        inner()
        inner()

    watch._wrap("predict and score", score)()
    # Readings: 0 begins; 1 stops it, 2 to 3 is the first fit, 4 goes on; 5 to 8 again; 9 ends.
    assert watch.seconds == {"predict and score": 3, "fit": 2}


def test_every_step_is_a_function_that_the_harness_calls_by_that_name():
    for module, name in STEPS.values():
        assert callable(getattr(sys.modules[module], name))


def test_a_point_is_measured_once_and_again_with_another_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "point.py").write_text(
        'import sys\nprint("said")\nprint(\'{"seconds": %d}\' % int(sys.argv[1]))'
    )
    path = tmp_path / "points" / "7.json"
    assert points.get_point(path, {"code": 1}, "point", "3") == {"seconds": 3}
    assert points.get_point(path, {"code": 1}, "point", "4") == {"seconds": 3}
    assert points.get_point(path, {"code": 2}, "point", "5") == {"seconds": 5}
    with pytest.raises(InputError, match="measured 7 failed with exit code 1"):
        points.get_point(path, {"code": 3}, "point")
    assert json.loads(path.read_text())["found"] == {"seconds": 5}


def test_growth_in_proportion_and_with_the_square():
    counts = pd.Series([10, 100, 1000])
    assert points.measure_exponent(counts, 3.0 * counts) == pytest.approx(1)
    assert points.measure_exponent(counts, 0.1 * counts**2) == pytest.approx(2)


def test_the_table_has_an_exponent_of_each_column_and_a_curve(tmp_path, monkeypatch, capsys):
    def get_point(path, key, module, count, folder):
        seconds = dict.fromkeys([*STEPS, "all", "again, all"], float(count) / 100)
        return seconds | {"peak MiB": 900.0, "report.html MiB": float(count) ** 2 / 1e4}

    monkeypatch.setattr(benchmark_scale, "get_point", get_point)
    monkeypatch.setattr(benchmark_scale, "make_phantom_files", lambda *_, **__: [])
    benchmark_scale.main(["--counts", "100", "200", "--out", str(tmp_path)])
    last = pd.read_csv(tmp_path / "table.csv").iloc[-1]
    assert last["images"] == "exponent"
    assert (float(last["fit"]), float(last["report.html MiB"])) == pytest.approx((1, 2))
    assert (tmp_path / "curve.png").exists()
    with pytest.raises(SystemExit):
        benchmark_scale.main(["--counts", "100"])
    assert "two different numbers" in capsys.readouterr().err
