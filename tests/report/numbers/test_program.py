"""Two programs of one approach, timed in the same precision and layout, are two measurements."""

import pandas as pd
import pytest

from lungseg.report.figures.timing import _collect_series
from lungseg.report.numbers.timing import name_program, split_by_device

ROW = {
    **{"approach": "net", "stage": "whole", "device": "cuda", "precision": "float32", "layout": "contiguous"},
    **{"compiled": False, "copies": True, "height": 64, "width": 64, "batch_size": 1, "median_ms": 2.0},
    **{"images_per_s": 500.0, "tuned": True, "deterministic": "yes"},
}
UNTUNED = {**ROW, "tuned": False, "deterministic": "no", "median_ms": 8.0, "images_per_s": 125.0}


@pytest.mark.parametrize(
    ("tuned", "deterministic", "text"),
    [
        (True, "yes", ""),
        (False, "yes", "not tuned"),
        ("True", "no", "not deterministic"),
        ("False", "no", "not tuned nor deterministic"),
        (float("nan"), float("nan"), ""),  # of an older version
        (float("nan"), "", ""),
    ],
)
def test_a_program_is_named_by_what_it_is_not(tuned, deterministic, text):
    assert name_program(tuned, deterministic) == text


def test_a_figure_draws_each_program_and_the_main_table_takes_the_first():
    frame = pd.DataFrame([ROW, UNTUNED])
    series = _collect_series(frame)
    assert list(series["variant"]) == [
        "float32, contiguous",
        "float32, contiguous, not tuned nor deterministic",
    ]
    (own,) = split_by_device(frame, "net")
    assert list(own["median_ms"]) == [2.0]
