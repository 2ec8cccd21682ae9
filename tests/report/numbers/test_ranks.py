"""The order of the approaches over bootstrap samples, against values by hand and another implementation."""

import numpy as np
import pytest
from scipy import stats

from lungseg.report.contents import read_contents
from lungseg.report.numbers.ranks import resample_ranks
from lungseg.scoring.comparisons import bootstrap_ranks, compute_kendall_tau
from lungseg.system.files import read_json
from lungseg.system.stored import write_record
from tests.report.results_directory import read_edited


def test_what_is_better_on_every_patient_is_first_in_every_sample():
    scores = np.linspace(0.5, 0.9, 12)[:, None] + np.array([0.0, 0.05, -0.05])
    assert (bootstrap_ranks(scores) == [2, 1, 3]).all()


def test_equal_approaches_share_their_rank():
    scores = np.random.default_rng(0).random((9, 1)) * np.ones((1, 3))
    assert (bootstrap_ranks(scores, 50) == 2).all()


def test_the_share_of_first_ranks_is_that_of_all_samples_of_two_patients():
    # Of the four samples of two patients, one has the first twice (a wins), one the second twice (b wins),
    # and two have both: the means are .8 and .7, so a wins.
    ranks = bootstrap_ranks(np.array([[0.9, 0.5], [0.7, 0.9]]), 4000)
    assert (ranks[:, 0] == 1).mean() == pytest.approx(0.75, abs=0.03)


def test_tau_is_scipys():
    rng = np.random.default_rng(1)
    ranks = stats.rankdata(rng.integers(0, 5, (40, 6)), axis=1)
    reference = stats.rankdata(rng.integers(0, 4, 6))
    expected = [stats.kendalltau(row, reference).statistic for row in ranks]
    np.testing.assert_allclose(compute_kendall_tau(ranks, reference), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["patient", "source"])
def test_an_approach_may_have_the_name_of_a_column(results, name):
    record = read_json(results / "run.json")
    for entry in record["approaches"]:
        if entry["name"] == "pixels":
            entry["label"] = name
    write_record(results / "run.json", record)
    assert name in resample_ranks(read_edited(results)).names


def test_shares_add_up_and_the_stored_order_is_kept(results):
    found = resample_ranks(read_contents(results))
    assert found.names == read_contents(results).ranked
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()
    assert found.tau[1] <= found.tau[0] <= found.tau[2] <= 1
