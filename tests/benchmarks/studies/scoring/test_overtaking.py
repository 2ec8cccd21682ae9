"""The number of training images from which on an approach is ahead, worked by hand."""

import numpy as np
import pytest

from benchmarks.studies.scoring.overtaking import bootstrap_overtaking, find_overtaking, main
from lungseg.harness.run import benchmark
from lungseg.spec import read_spec
from tests.tiny import HEAD, NO_TIMING

SIZES = [4, 16, 64]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-0.1, 0.1, 0.2], 8),  # half way between 2^2 and 2^4
        ([-0.1, 0.3, 0.4], 2**2.5),
        ([0.1, -0.2, 0.2], 32),  # the last time counts
        ([0.1, 0.1, 0.1], 0),
        ([0.1, 0.2, -0.1], np.inf),
        ([-0.1, 0.0, 0.1], 16),
    ],
)
def test_where_lines_meet(differences, expected):
    assert find_overtaking(SIZES, np.array(differences)) == pytest.approx(expected)


def test_the_interval_holds_what_patients_and_draws_leave_open():
    rng = np.random.default_rng(3)
    first = rng.normal(0.8, 0.02, (3, 3, 50))
    same = first + np.array([-0.1, 0.1, 0.2])[:, None, None]
    assert set(bootstrap_overtaking(SIZES, first, same).round(6)) == {8.0}  # each patient says the same
    draws = np.array([[-0.1, -0.1, -0.1], [-0.1, 0.1, 0.3], [0.2, 0.2, 0.2]])[:, :, None]
    found = bootstrap_overtaking(SIZES, first, first + draws)
    assert found.max() == pytest.approx(2 ** (4 + 2 / 3))  # three times the lowest draw
    assert found.min() == pytest.approx(2**2.5)  # three times the highest


def test_it_reads_a_finished_run(tmp_path, capsys):
    row = '[[approach]]\nuse = "{use}"\nname = "{use}-{count}"\ntrain_images = {count}\nsize = 24\n'
    rows = [row.format(use=use, count=count) for use in ("mean-mask", "threshold") for count in (2, 3, 5)]
    (tmp_path / "spec.toml").write_text(HEAD.partition("[[approach]]")[0] + "".join(rows))
    benchmark(read_spec(tmp_path / "spec.toml", NO_TIMING), tmp_path / "run")
    main([str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "is overtaken by" in said
    assert (tmp_path / "out" / "table.csv").exists()
    (tmp_path / "spec.toml").write_text(HEAD)
    benchmark(read_spec(tmp_path / "spec.toml", NO_TIMING), tmp_path / "few")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "few")])
    assert "no two approaches with three numbers" in capsys.readouterr().err
