"""The comparison of every picture with every other one at all windows, without any sieve before it."""

import numpy as np

from lungseg.data.audit.alignment import ROUGH_DETAIL, SIDE, make_view, measure_similarity, normalise_contrast

COARSE_SIDE, CANDIDATE = 48, 0.60


def list_windows():
    """(start, length) of the rows, (start, length) of the columns."""
    near = [(0.0, 1.0)]
    near += [(start, 0.95) for start in (0.0, 0.025, 0.05)]
    near += [(start, 0.9) for start in (0.0, 0.025, 0.05, 0.075, 0.1)]
    near += [(start, 1.0) for start in (-0.05, -0.025, 0.025, 0.05)]
    windows = [(rows, columns) for rows in near for columns in near]
    for length in (0.85, 0.8):
        spans = [((1 - length) / 2 + shift, length) for shift in (-0.05, -0.025, 0.0, 0.025, 0.05)]
        windows += [(rows, columns) for rows in spans for columns in spans]
    return windows


def resample(start, length):
    step = length * SIDE / COARSE_SIDE
    centres = start * SIDE + (np.arange(COARSE_SIDE) + 0.5) * step
    weights = np.maximum(0, 1 - np.abs(np.arange(SIDE) + 0.5 - centres[:, None]) / step) / step
    return weights.astype(np.float32)


def cut(details, window):
    rows, columns = (resample(*span) for span in window)
    cuts = (rows @ details @ columns.T).reshape(len(details), -1)
    cuts = cuts - cuts.mean(axis=1, keepdims=True)
    return cuts / np.linalg.norm(cuts, axis=1, keepdims=True)


def find_all_pairs(pictures, least):
    """What `find_alike_pairs` has to find, from all pairs, windows and mirror images."""
    windows = list_windows()
    details = np.stack([normalise_contrast(one.astype(np.float32), ROUGH_DETAIL)[0] for one in pictures])
    wholes = [cut(details, windows[0]), cut(details[:, :, ::-1], windows[0])]
    parts = np.stack([cut(details, window) for window in windows])
    views = [make_view(one.astype(np.float32)) for one in pictures]
    found = {}
    for mirrored, others in enumerate(wholes):
        alike = parts @ others.T  # windows x parts x wholes
        for part, whole in np.argwhere(alike.max(axis=0) >= CANDIDATE).tolist():
            if part == whole:
                continue
            (top, height), (left, width) = windows[alike[:, part, whole].argmax()]
            placement = np.array([[height, 0, 2 * top + height - 1], [0, width, 2 * left + width - 1]])
            fixed = views[whole].mirrored() if mirrored else views[whole]
            similarity = min(1.0, measure_similarity(views[part], fixed, placement))
            pair = min(part, whole), max(part, whole)
            if similarity >= least:
                found[pair] = max(similarity, found.get(pair, 0.0))
    return [(*pair, similarity) for pair, similarity in sorted(found.items())]
