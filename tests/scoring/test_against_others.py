import numpy as np
import pytest

from benchmarks.studies.scoring.pairs import draw_lung_pairs, draw_random_pairs, make_edge_cases
from benchmarks.studies.scoring.reference import BOUNDARY, OVERLAP, score_by_brute_force, score_by_monai
from lungseg.data.datasets.phantom import render
from lungseg.scoring.metrics import score_mask

PHANTOMS = [render(1, index, 64)[1] for index in range(8)]
# MONAI computes distances, and the rank of a percentile, in float32.
FLOAT32 = {"rel": 1e-6, "abs": 1e-6}
FLOAT32_RANK = {"rel": 1e-6, "abs": 2e-5}


def pairs(share: int = 1):
    rng = np.random.default_rng(5)
    yield from draw_random_pairs(120 // share, rng, largest=32)
    yield from draw_lung_pairs(60 // share, rng, lambda number: PHANTOMS[number % len(PHANTOMS)])
    yield from make_edge_cases().values()


@pytest.mark.parametrize("spacing", [None, (0.8, 0.35)])
def test_boundary_metrics_agree_with_brute_force(spacing):
    compared = 0
    for prediction, truth in pairs():
        if prediction.any() and truth.any():
            ours = score_mask(prediction, truth, spacing)
            theirs = score_by_brute_force(prediction, truth, spacing)
            assert [ours[name] for name in BOUNDARY] == pytest.approx(
                [theirs[name] for name in BOUNDARY], rel=0, abs=1e-6
            )
            compared += 1
    assert compared > 150


def test_all_metrics_agree_with_monai_where_it_defines_them():
    compared = dict.fromkeys(OVERLAP + BOUNDARY, 0)
    for prediction, truth in pairs(share=4):
        ours, theirs = score_mask(prediction, truth), score_by_monai(prediction, truth)
        both = prediction.any() and truth.any()
        for name in compared:
            if both and np.isfinite(theirs[name]):
                tolerance = FLOAT32_RANK if name == "hd95" else FLOAT32
                assert ours[name] == pytest.approx(theirs[name], **tolerance), name
                compared[name] += 1
    assert min(compared.values()) > 40


def test_with_a_spacing_distances_agree_with_monai_too():
    for prediction, truth in make_edge_cases().values():
        if prediction.any() and truth.any():
            ours, theirs = (
                score_mask(prediction, truth, (0.8, 0.35)),
                score_by_monai(prediction, truth, (0.8, 0.35)),
            )
            assert [ours[name] for name in BOUNDARY] == pytest.approx(
                [theirs[name] for name in BOUNDARY], **FLOAT32_RANK
            )
