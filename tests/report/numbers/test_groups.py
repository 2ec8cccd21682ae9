"""The compact letter display says exactly what the tests say."""

from itertools import combinations

import numpy as np
import pytest

from lungseg.report.numbers.groups import assign_letters, find_equals, find_groups
from lungseg.results import read_table, write_table
from tests.report.results_directory import read_edited


def test_piephos_case_of_overlapping_groups():
    # A differs from C and D, B from D: three runs that overlap.
    assert find_groups("ABCD", [("A", "C"), ("A", "D"), ("B", "D")]) == [["A", "B"], ["B", "C"], ["C", "D"]]


def test_one_group_without_differences_and_single_ones_with_all():
    assert find_groups("abc", []) == [["a", "b", "c"]]
    assert find_groups("abc", combinations("abc", 2)) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("seed", range(30))
def test_two_share_a_group_if_and_only_if_no_test_separates_them(seed):
    rng = np.random.default_rng(seed)
    names = "abcdefg"[: rng.integers(2, 8)]
    apart = {pair for pair in combinations(names, 2) if rng.random() < rng.random()}
    groups = find_groups(names, apart)
    together = {pair for group in groups for pair in combinations(group, 2)}
    assert together == set(combinations(names, 2)) - apart
    # No group can be left out or made larger: they are the largest sets without a pair of `apart`.
    free = [
        set(some)
        for size in range(1, len(names) + 1)
        for some in combinations(names, size)
        if not any(pair in apart for pair in combinations(some, 2))
    ]
    largest = [one for one in free if not any(one < other for other in free)]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, largest))


def test_letters_follow_the_stored_p_values(results):
    statistics = read_table(results, "statistics")
    paired = (statistics["kind"] == "paired") & (statistics["metric"] == "dice")
    pairs = statistics[paired].set_index(["approach", "other"]).index
    p = {frozenset(("mean-mask", "good_net")): 0.05, frozenset(("mean-mask", "pixels")): 0.4}
    statistics.loc[paired, "p_holm"] = [p.get(frozenset(pair), 0.06) for pair in pairs]
    write_table(results / "statistics.csv", "statistics", statistics)
    contents = read_edited(results)
    best, middle, worst = contents.ranked
    assert {best, worst} == {"good_net", "mean-mask"}
    assert assign_letters(contents) == {best: "a", middle: "ab", worst: "b"}
    assert find_equals(contents, best) == [middle]


def test_pairs_that_were_not_all_compared_have_no_letters(results):
    statistics = read_table(results, "statistics")
    paired = (statistics["kind"] == "paired") & (statistics["metric"] == "dice")
    write_table(results / "statistics.csv", "statistics", statistics.drop(index=statistics[paired].index[0]))
    assert assign_letters(read_edited(results)) == {}
