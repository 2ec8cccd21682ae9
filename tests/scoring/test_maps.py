"""Which maps are taken, and what is said of the others."""

import numpy as np
import pytest
import torch

from lungseg.scoring.maps import check_map

LUNG = np.array([[True, False, True], [False, True, False]])
FLOATS = LUNG.astype(np.float32)


@pytest.mark.parametrize(
    "values",
    [
        FLOATS,
        LUNG,
        LUNG.astype(np.uint8),
        LUNG.astype(np.int64),
        FLOATS.astype(np.float64),
        FLOATS.astype(np.float16),
        np.where(LUNG, np.float32(1.0000001), np.float32(-1e-9)),
        np.where(LUNG, 1.001, -0.001),
        torch.from_numpy(FLOATS),
        torch.from_numpy(FLOATS).to(torch.bfloat16).requires_grad_(),
        torch.from_numpy(LUNG),
        torch.from_numpy(LUNG.astype(np.uint8)),
        FLOATS.tolist(),
        np.asfortranarray(FLOATS),
    ],
)
def test_maps_of_other_types_become_the_same_float32(values):
    found = check_map(values, (2, 3))
    assert found.dtype == np.float32
    assert np.array_equal(found, FLOATS)


def test_probabilities_stay_as_they_are():
    values = np.random.default_rng(0).random((5, 7), np.float32)
    assert np.array_equal(check_map(values, (5, 7)), values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (FLOATS.T, r"its shape is \(3, 2\) and its image's \(2, 3\)"),
        (FLOATS[None], r"its shape is \(1, 2, 3\)"),
        (FLOATS[..., None], r"its shape is \(2, 3, 1\)"),
        (FLOATS * 255, "it has the value 255, which is not in"),
        (FLOATS * 8 - 4, "it has the value -4, which is not in"),
        (np.where(LUNG, 1.0011, 0), r"it has the value 1\.0011"),
        (LUNG.astype(np.uint8) * 255, "it has the integer 255"),
        (-LUNG.astype(np.int8), "it has the integer -1"),
        (np.where(LUNG, np.nan, 0), r"not finite \(nan\)"),
        (np.where(LUNG, np.inf, 0), r"not finite \(inf\)"),
        (np.where(LUNG, -np.inf, 0), r"not finite \(-inf\)"),
        (FLOATS.astype(complex), "its type is complex128"),
        (LUNG.astype(object), "its type is object"),
        (np.where(LUNG, "a", "b"), "its type is <U1"),
        (np.ma.masked_array(FLOATS, LUNG), "masked array"),
        (None, r"its shape is \(\)"),
        ([[1.0, 0.0], [1.0]], "no rectangular shape"),
    ],
)
def test_other_maps_are_refused_with_what_is_wrong(values, said):
    with pytest.raises(ValueError, match=said):
        check_map(values, (2, 3))
