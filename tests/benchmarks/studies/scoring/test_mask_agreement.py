"""The script `benchmarks/studies/scoring/mask_agreement.py` on results whose masks are known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.scoring import mask_agreement as agreement
from lungseg.system.errors import InputError
from lungseg.system.files import write_grey


def strip(width: int) -> np.ndarray:
    """4 x 8, its first columns marked."""
    mask = np.zeros((4, 8), bool)
    mask[:, :width] = True
    return mask


# Columns marked: by the annotation, by the approaches `one` and `two`.
WIDTHS = {"good": (4, 4, 4), "disputed": (6, 2, 2), "between": (4, 3, 4)}


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    rows = []
    for image, (truth, *predicted) in WIDTHS.items():
        write_grey_in(folder / "predictions" / "truth" / f"{image}.png", strip(truth))
        for name, threshold, width in zip(("one", "two"), (0.5, 0.8), predicted, strict=True):
            # Just above the approach's own threshold inside, just below it outside.
            values = threshold - 0.05 + 0.1 * strip(width)
            write_grey_in(folder / "predictions" / "maps" / name / "f0-s0" / f"{image}.png", values)
            rows.append([name, 0, 0, image, "clinic", threshold])
    columns = ["approach", "fold", "seed", "image_id", "source", "threshold"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "scores.csv", index=False)
    entries = [{"name": name, "use": "vgg19-context"} for name in ("one", "two")]
    (folder / "run.json").write_text(json.dumps({"approaches": entries}))
    # Maps that no score belongs to, as a run with other approaches leaves them.
    (folder / "predictions" / "maps" / "former" / "f0-s0").mkdir(parents=True)
    (folder / "predictions" / "maps" / "one" / "f0-s1").mkdir(parents=True)
    return folder


def write_grey_in(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_grey(path, values)


def test_pairs_and_worst_images_are_those_worked_by_hand(results, tmp_path, capsys):
    agreement.main([str(results), "--worst", "1", "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "pairs" / "table.csv")
    assert table[["one", "other"]].to_numpy().tolist() == [
        ["annotation", "one"],
        ["annotation", "two"],
        ["one", "two"],
    ]
    # Dice of strips of a and b columns: 2 min(a, b) / (a + b).
    disputed, narrow = 2 * 2 / 8, 2 * 3 / 7
    assert table["Dice"].tolist() == pytest.approx(
        [(1 + disputed + narrow) / 3, (1 + disputed + 1) / 3, (1 + 1 + narrow) / 3]
    )
    assert table["median"].tolist() == pytest.approx([narrow, 1, 1])
    assert table["worst images"].tolist() == pytest.approx([disputed, disputed, 1])
    assert table["all others"].tolist() == pytest.approx([(1 + narrow) / 2, 1, (1 + narrow) / 2])

    worst = pd.read_csv(tmp_path / "out" / "worst" / "table.csv")
    (row,) = worst.to_dict("records")
    assert row == {
        "image": "disputed",
        "source": "clinic",
        "Dice with the annotation": disputed,
        "Dice among approaches": 1,
        "precision": 1,
        "recall": pytest.approx(2 / 6),
    }
    said = capsys.readouterr().out
    assert "On 1 of the 1 worst images the approaches are closer to one another" in said
    assert "on 1 of them they mark less than the annotation" in said


def test_worst_images_stand_in_order(results):
    run = agreement.find_stored(results, ["two", "one"], 0, 0)
    worst = agreement.find_worst(agreement.compare_masks(run), 9)
    assert worst["image"].tolist() == ["disputed", "between", "good"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--approaches", "one", "three"], "no maps of 'three' for fold 0, seed 0: there are one, two"),
        (["--approaches", "one"], "maps of 1 of the approaches for fold 0, seed 0 (one): two at least"),
        (["--seed", "1"], "maps of 0 of the approaches for fold 0, seed 1 (none)"),
        (["--worst", "0"], "--worst is at least 1"),
    ],
)
def test_what_can_not_be_compared_ends_in_a_sentence(words, sentence, results, capsys):
    with pytest.raises(SystemExit, match="2"):
        agreement.main([str(results), *words])
    assert sentence in capsys.readouterr().err


def test_baselines_are_left_out_unless_they_are_named(results, tmp_path):
    uses = {"one": "vgg19-context", "two": "mean-mask"}
    entries = [{"name": name, "use": use} for name, use in uses.items()]
    (results / "run.json").write_text(json.dumps({"approaches": entries}))
    with pytest.raises(InputError, match=r"maps of 1 of the approaches .* \(one\)"):
        agreement.find_stored(results, [], 0, 0)
    assert list(agreement.find_stored(results, ["two", "one"], 0, 0).thresholds) == ["two", "one"]


def test_approaches_with_images_of_their_own_are_not_compared(results):
    scores = pd.read_csv(results / "scores.csv")
    scores[~((scores["approach"] == "two") & (scores["image_id"] == "good"))].to_csv(
        results / "scores.csv", index=False
    )
    with pytest.raises(InputError, match="two was scored on other images than one"):
        agreement.find_stored(results, [], 0, 0)


def test_a_folder_of_no_run_and_a_missing_map_end_in_a_sentence(results, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        agreement.main([str(tmp_path)])
    assert "holds no scores.csv" in capsys.readouterr().err
    (results / "predictions" / "maps" / "one" / "f0-s0" / "good.png").unlink()
    with pytest.raises(SystemExit, match="2"):
        agreement.main([str(results)])
    assert "good.png can't be read" in capsys.readouterr().err
