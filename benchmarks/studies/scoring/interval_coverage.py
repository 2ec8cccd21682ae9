"""Measures how often the intervals and tests of `lungseg.scoring` are right.

`python -m benchmarks.studies.scoring.interval_coverage`

Scores are drawn from distributions whose mean is known. A 95 % interval should contain it in 95 of 100
samples (the first table). A test at alpha = 0.05 should reject equal means in 5 of 100 (the second).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.studies.study import make_parser, write_study
from lungseg.scoring.comparisons import EXACT_UP_TO, FLIPS, sign_flip_p_values
from lungseg.scoring.intervals import RESAMPLES, bootstrap_t_intervals, resample_moments

REPEATS = 10_000
SEED = 20_260_103
BATCH = 500  # repeats that are computed together
ALPHA = 0.05

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Case:
    """Values n x repeats that are drawn, with a known mean (0 if they are differences), for each n."""

    name: str
    draw: Draw
    mean: float
    sizes: tuple[int, ...]


# Distributions are named by nouns, as in numpy.
def beta(a: float, b: float) -> Draw:
    return lambda rng, shape: rng.beta(a, b, shape)


def poor(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.beta(4, 4, shape)


def missed(_: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape)


def with_failures(share: float, failure: Draw) -> Draw:
    """Return Beta(40, 1.7), of which a share are failures."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        good, failed = rng.beta(40, 1.7, shape), failure(rng, shape)
        return np.where(rng.random(shape) < share, failed, good)

    return draw


def difference(first: Draw, second: Draw) -> Draw:
    return lambda rng, shape: first(rng, shape) - second(rng, shape)


def beta_of_mean(a: float, mean: float) -> Draw:
    return beta(a, a * (1 - mean) / mean)


GOOD, FAIR = 40 / 41.7, 12 / 13.7
POOR_5, POOR_2 = 0.95 * GOOD + 0.05 * 0.5, 0.98 * GOOD + 0.02 * 0.5

SCORES = (
    Case("Beta(40, 1.7)", beta(40, 1.7), GOOD, (28, 141, 704)),
    Case("Beta(12, 1.7)", beta(12, 1.7), FAIR, (28, 141, 704)),
    Case("Beta(40, 1.7), 5 % poor: Beta(4, 4)", with_failures(0.05, poor), POOR_5, (141, 704)),
    Case("Beta(40, 1.7), 2 % poor: Beta(4, 4)", with_failures(0.02, poor), POOR_2, (28,)),
    Case("Beta(40, 1.7), 2 % missed: 0", with_failures(0.02, missed), 0.98 * GOOD, (28,)),
)
SIZES = (5, 7, 10, 13, 28, 141, 704)  # up to 13 all sign patterns are tried
DIFFERENCES = (
    Case("alike: Beta(40, 1.7) both", difference(beta(40, 1.7), beta(40, 1.7)), 0.0, SIZES),
    Case(
        "alike, 5 % poor: Beta(4, 4) in both",
        difference(with_failures(0.05, poor), with_failures(0.05, poor)),
        0.0,
        SIZES,
    ),
    Case("Beta(40, 1.7) - Beta(12, b)", difference(beta(40, 1.7), beta_of_mean(12, GOOD)), 0.0, SIZES),
    Case("Beta(12, 1.7) - Beta(40, b)", difference(beta(12, 1.7), beta_of_mean(40, FAIR)), 0.0, SIZES),
    Case("exponential - its mean", lambda rng, shape: rng.exponential(size=shape) - 1, 0.0, SIZES),
    Case(
        "Beta(40, 1.7) with 5 % poor - Beta(40, b)",
        difference(with_failures(0.05, poor), beta_of_mean(40, POOR_5)),
        0.0,
        SIZES,
    ),
)


def split_into_batches(case: Case, n: int, repeats: int) -> list[tuple[np.random.Generator, tuple[int, int]]]:
    """Return, for each batch, a generator of its own and the batch's shape."""
    name = list(case.name.encode())
    return [
        (np.random.default_rng([SEED, n, start, *name]), (n, min(BATCH, repeats - start)))
        for start in range(0, repeats, BATCH)
    ]


def compute_student_intervals(values: np.ndarray) -> np.ndarray:
    n = len(values)
    half = stats.t.ppf(1 - ALPHA / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return np.column_stack([values.mean(axis=0) - half, values.mean(axis=0) + half])


def compute_percentile_intervals(values: np.ndarray) -> np.ndarray:
    means, _ = resample_moments(values)
    return np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=0, method="weibull").T


def contain(intervals: np.ndarray, mean: float) -> np.ndarray:
    return (intervals[:, 0] <= mean) & (mean <= intervals[:, 1])


METHODS = {
    "bootstrap-t": bootstrap_t_intervals,
    "percentile": compute_percentile_intervals,
    "Student's t": compute_student_intervals,
}


def measure_coverage(case: Case, n: int, repeats: int) -> dict[str, object]:
    """Return a row: how many per cent of each method's intervals contain the mean, and their width."""
    inside = {method: [] for method in METHODS}
    widths = {method: [] for method in METHODS}
    for rng, shape in split_into_batches(case, n, repeats):
        values = case.draw(rng, shape)
        for method, intervals_of in METHODS.items():
            found = np.clip(intervals_of(values), 0, 1)  # as the program does, the scores being in [0, 1]
            inside[method].append(contain(found, case.mean))
            widths[method].append(found[:, 1] - found[:, 0])
    covered = {method: 100 * np.concatenate(parts).mean() for method, parts in inside.items()}
    return {
        "scores": case.name,
        "n": n,
        "true mean": case.mean,
        **{f"{method}, %": value for method, value in covered.items()},
        "± (bootstrap-t)": compute_standard_error(covered["bootstrap-t"], repeats),
        **{f"width, {method}": np.concatenate(parts).mean() for method, parts in widths.items()},
    }


def measure_false_alarms(case: Case, n: int, repeats: int) -> dict[str, object]:
    """Return a row: how many per cent of each test reject equal means."""
    tests = ("sign flips", "sign flips of plain t", "Student's t", "bootstrap-t", "Wilcoxon")
    alarms = {test: [] for test in tests}
    for rng, shape in split_into_batches(case, n, repeats):
        values = case.draw(rng, shape)
        alarms["sign flips"].append(sign_flip_p_values(values) <= ALPHA)
        plain = sign_flip_p_values(values, correct_skewness=False)
        alarms["sign flips of plain t"].append(plain <= ALPHA)
        alarms["Student's t"].append(~contain(compute_student_intervals(values), 0.0))
        alarms["bootstrap-t"].append(~contain(bootstrap_t_intervals(values), 0.0))
        alarms["Wilcoxon"].append(stats.wilcoxon(values, axis=0).pvalue <= ALPHA)
    shares = {test: 100 * np.concatenate(parts).mean() for test, parts in alarms.items()}
    skewness = stats.skew(case.draw(np.random.default_rng(SEED), (1_000_000, 1))[:, 0])
    return {
        "differences": case.name,
        "skewness": round(float(skewness), 1) + 0.0,
        "n": n,
        **{f"{test}, %": value for test, value in shares.items()},
        "± (sign flips)": compute_standard_error(shares["sign flips"], repeats),
    }


def compute_standard_error(percent: float, repeats: int) -> float:
    """Return the Monte-Carlo standard error of a percentage."""
    return float(np.sqrt(percent * (100 - percent) / repeats))


def run_cases(
    measure: Callable[[Case, int, int], dict], cases: tuple[Case, ...], repeats: int
) -> pd.DataFrame:
    """Return a row of `measure` for each case and size, and say on stderr which is being measured."""
    rows = []
    for case in cases:
        for n in case.sizes:
            print(f"{case.name}, n = {n} ...", file=sys.stderr, flush=True)
            rows.append(measure(case, n, repeats))
    return pd.DataFrame(rows)


def write_interval_notes(repeats: int) -> list[str]:
    return [
        f"Each row: {repeats:,} samples of n independent patients, and how many per cent of their 95 % "
        "intervals contain the true mean. This program's method is bootstrap-t. ± is the Monte-Carlo "
        "standard error of that column, in percentage points.",
        f"Bootstrap-t and percentile intervals: {RESAMPLES:,} resamples. Patients are drawn with the same "
        "seed for every sample of a size, as in the program. All intervals are cut to [0, 1]; width is "
        "their mean width.",
        "Few patients and rare failures: with n = 28, 57 % of the samples have none of the 2 % failures, and "
        "no method can know of failures that its sample doesn't have. Keep that in mind with intervals of "
        "fewer than 50 patients.",
    ]


def write_alarm_notes(repeats: int) -> list[str]:
    return [
        f"Each row: {repeats:,} samples of n independent paired differences whose mean is 0, and how many "
        f"per cent of the tests reject at alpha = {ALPHA:g}. A test that keeps its level rejects "
        f"{100 * ALPHA:g} % or less. This program's test is sign flips, which corrects t for skewness. ± is "
        "the Monte-Carlo standard error of that column, in percentage points. Where there is a b, it makes "
        "both means equal.",
        f"Sign flips: all patterns up to n = {EXACT_UP_TO}, else {FLIPS:,} random ones with a fixed seed. "
        "With n patients no p below 2 / 2^n is possible: with 5 the test can't reject. "
        f"Bootstrap-t rejects if 0 is outside the interval ({RESAMPLES:,} resamples).",
        "What was tried: sign flips of plain t and Student's t reject too often where differences are skewed "
        "and n is small, and so does the correction with 13 patients or fewer; bootstrap-t does where they "
        "are symmetric with a few large ones. Where one of two approaches fails rarely, a sample of up to 28 "
        "often shows no failure, and no test holds; with 141 the program's test errs on the safe side.",
        "Wilcoxon's null is that differences are symmetric about 0, which is false in the skewed rows though "
        "the means are equal: it rejects the more often the more patients there are, and tests no mean.",
    ]


def main() -> None:
    parser = make_parser(__doc__, "results")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--only", choices=("intervals", "tests"))
    options = parser.parse_args()
    if options.only != "tests":
        table = run_cases(measure_coverage, SCORES, options.repeats)
        notes = write_interval_notes(options.repeats)
        print(write_study(options.out / "interval-coverage", "Coverage of 95 % intervals", table, notes))
    if options.only != "intervals":
        table = run_cases(measure_false_alarms, DIFFERENCES, options.repeats)
        notes = write_alarm_notes(options.repeats)
        title = "False alarms of paired tests under equal means"
        print(write_study(options.out / "test-false-alarms", title, table, notes))


if __name__ == "__main__":
    main()
