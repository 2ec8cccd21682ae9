import json
import subprocess

import numpy as np
import pytest

from benchmarks.studies.data import audit_scale, phantom_files
from benchmarks.studies.data.audit_points import count_alignments, count_found, plant_files
from benchmarks.studies.data.audit_projection import compare_with_copy
from benchmarks.studies.data.planted_leaks import COPIES, KINDS
from lungseg.data.audit import alignment
from lungseg.data.audit.compare import Findings, Pair
from lungseg.data.datasets.phantom import render

POINT = {
    "read": 600,
    "seconds": 6.0,
    "CPU seconds": 9.0,
    "peak MiB": 700.0,
    "aligned": 200,
    "copies found": 100,
    "copies": 100,
    "false alarms": 0,
    "again, seconds": 0.1,
    "again, read": 0,
    "one added, seconds": 0.2,
    "one added, read": 1,
    "same again": True,
    "same pairs with one added": True,
    "cache files": 5,
    "cache MiB": 20.0,
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Twenty phantom files, made by two processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_files, "SIDE", 256)
        return phantom_files.make_phantom_files(COPIES, tmp_path_factory.mktemp("pictures"))


def test_phantom_files_are_the_phantoms_and_are_made_once(phantoms, monkeypatch):
    image = render(phantom_files.SEED, 3, phantom_files.SIDE)[0]
    assert phantoms[3].image() == pytest.approx(image, abs=0.5 / 255 + 1e-6)
    monkeypatch.setattr(subprocess, "Popen", lambda *_: pytest.fail("made again"))
    again = phantom_files.make_phantom_files(COPIES, phantoms[0].image_path.parent)
    assert [sample.id for sample in again] == [sample.id for sample in phantoms]


def test_each_kind_is_planted_and_counted_once(phantoms, tmp_path):
    copies = list(plant_files(phantoms, tmp_path / "copies").values())
    assert len(copies) == len(KINDS) * COPIES
    first, second, third = copies[0], copies[COPIES], copies[1]
    original = first.id.partition("-of-")[2]
    assert second.id.partition("-of-")[2] == original

    def pair(one, two, kind="near-duplicate"):
        return Pair(kind, ("phantoms", one), ("planted", two), 0.9)

    pairs = [pair(original, first.id), pair(original, first.id, "same pixels"), pair(first.id, second.id)]
    assert count_found(Findings(pairs, [], []), copies) == (1, 0)
    wrong = [pair(original, third.id), pair(phantoms[0].id, phantoms[1].id)]
    assert count_found(Findings([*pairs, *wrong], [], []), copies) == (1, 2)


def test_alignments_are_counted(monkeypatch):
    monkeypatch.setattr(alignment, "measure_similarity", lambda *_: 0.5)
    with count_alignments() as counted:
        assert [alignment.measure_similarity(1, 2, 3) for _ in range(7)] == [0.5] * 7
    assert counted == [7]


def test_a_point_is_measured_once_and_again_after_a_change(tmp_path, monkeypatch):
    measured = []

    def run(words, **_):
        measured.append(int(words[3]))
        return subprocess.CompletedProcess(words, 0, json.dumps(POINT | {"read": measured[-1] + 100}))

    monkeypatch.setattr(audit_scale, "make_phantom_files", lambda *_: [])
    monkeypatch.setattr(subprocess, "run", run)
    words = ["--out", str(tmp_path), "--counts", "1000", "500"]
    audit_scale.main(words)
    audit_scale.main(words)
    assert measured == [500, 1000]
    page = (tmp_path / "table.md").read_text()
    assert "at least 100 of 100, the same copies each time. False alarms: 0." in page
    assert {path.name for path in tmp_path.iterdir()} >= {"table.csv", "curve.png", "curve.pdf"}
    monkeypatch.setattr(audit_scale, "hash_own_code", lambda: "changed")
    audit_scale.main(words)
    assert measured == [500, 1000, 500, 1000]


def test_a_copy_differs_from_the_window_most_like_it():
    rows = np.eye(5, 4)
    rows[4] = [0, 0, 0.6, 0.8]
    copy = np.array([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(compare_with_copy(rows, copy), rows[3] - copy[0])
