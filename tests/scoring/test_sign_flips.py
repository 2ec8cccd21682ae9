"""Properties of the sign-flip test, and its p checked in exact arithmetic."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lungseg.scoring.comparisons import EXACT_UP_TO, sign_flip_p_values


def one(differences) -> float:
    return sign_flip_p_values(np.asarray(differences, float)[:, None])[0]


def squared_statistic(values: tuple[Fraction, ...]) -> tuple[Fraction, Fraction] | None:
    """p and q of g(t)^2 = p + q sqrt(n (n - 1)); None if it is infinite."""
    n = len(values)
    mean = sum(values) / n
    centred = [value - mean for value in values]
    variance = sum(value**2 for value in centred) / n
    cube = sum(value**3 for value in centred) / n
    if variance == 0:
        return None if mean else (Fraction(0), Fraction(0))
    # g(t) sqrt(n variance) = a sqrt(n (n - 1)) + b
    a = mean + cube**2 * mean**3 * (n - 1) / (27 * n * variance**4)
    b = cube * mean**2 * (n - 1) / (3 * variance**2) + cube / (6 * variance)
    return (n * (n - 1) * a**2 + b**2) / (n * variance), 2 * a * b / (n * variance)


def reaches(first, other, n: int) -> bool:
    """Whether the first squared statistic is at least the second."""
    if first is None or other is None:
        return first is None
    p, q = first[0] - other[0], first[1] - other[1]
    if (p >= 0) == (q >= 0):
        return p >= 0
    larger_p = p**2 >= q**2 * n * (n - 1)
    return larger_p if p >= 0 else not larger_p or p**2 == q**2 * n * (n - 1)


def exact_p(differences: list[Fraction]) -> Fraction:
    n = len(differences)
    observed = squared_statistic(tuple(differences))
    patterns = list(product((1, -1), repeat=n))
    flipped = (
        tuple(sign * value for sign, value in zip(signs, differences, strict=True)) for signs in patterns
    )
    return Fraction(sum(reaches(squared_statistic(values), observed, n) for values in flipped), len(patterns))


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([0.9674, 0.9647, 0.9588, 0.9655], 2 / 2**4),
        ([0.96, 0.9549, 0.9664, 0.9588, 0.9624], 2 / 2**5),
        ([0.9315942, 0.93270366, 0.93529696, 0.9398027], 2 / 2**4),
        ([1 + 1e-6, 1 - 1e-6, 1 + 3e-6], 2 / 2**3),
    ],
)
def test_a_mean_far_from_zero_has_the_smallest_p_that_so_few_can_give(differences, p_value):
    assert one(differences) == p_value


def test_no_p_is_smaller_than_the_observed_pattern_and_its_mirror():
    rng = np.random.default_rng(0)
    for n in range(1, EXACT_UP_TO + 1):
        assert sign_flip_p_values(rng.normal(0.962, 0.006, (n, 200))).tolist() == [2 / 2**n] * 200


@given(
    n=st.integers(1, EXACT_UP_TO),
    exponent=st.none() | st.floats(-1, 6),
    scale=st.floats(-150, 150),
    seed=st.integers(0, 2**32 - 1),
)
def test_p_is_never_below_two_patterns_and_does_not_change_with_scale_sign_order_or_neighbours(
    n, exponent, scale, seed
):
    rng = np.random.default_rng(seed)
    ratio = 0.0 if exponent is None else 10.0**exponent  # of mean to spread
    differences = (ratio + rng.normal(size=(n, 30))) * 10.0**scale
    p_values = sign_flip_p_values(differences)
    assert ((p_values >= 2 / 2**n) & (p_values <= 1)).all()
    same = p_values.tolist()
    assert [one(column) for column in differences.T] == same
    for changed in (-differences, differences * 2.0**-7, differences * 3.7, rng.permutation(differences)):
        assert sign_flip_p_values(changed).tolist() == same


@given(differences=st.lists(st.integers(-60, 60), min_size=1, max_size=6), offset=st.integers(0, 4))
@settings(max_examples=100)
def test_p_is_that_of_exact_arithmetic(differences, offset):
    """Small integers have many ties; an offset puts the mean far from 0."""
    moved = [Fraction(value) + (10**offset if offset else 0) for value in differences]
    assume(any(moved))
    assert one([float(value) for value in moved]) == float(exact_p(moved))


@given(ratio=st.floats(0, 6), n=st.integers(EXACT_UP_TO + 1, 40), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_random_patterns_count_the_observed_one_where_it_is_drawn_again(ratio, n, seed):
    differences = 10.0**ratio + np.random.default_rng(seed).normal(size=(n, 1)) / 10
    p_value = sign_flip_p_values(differences, flips=999)[0]
    rng = np.random.default_rng(20_260_102)
    drawn = rng.integers(0, 2, (999, n), dtype=np.int8).sum(axis=1)
    again = np.isin(drawn, (0, n)).sum()
    assert p_value == (1 + again) / 1000
