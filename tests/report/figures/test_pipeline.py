"""The figures of the pipelines and of the maps after each stage: real numbers, and left out without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from lungseg.report.figures.style import use_house_style
from lungseg.report.figures.xrays.pipeline import _choose_rows, _write_number, draw_pipeline
from lungseg.report.figures.xrays.stage_maps import draw_stage_maps
from lungseg.report.figures.xrays.stored import _average_cells, read_features_of
from lungseg.results import read_table, write_table
from lungseg.system.errors import InputError
from lungseg.system.files import read_json, write_json
from tests.report.results_directory import IDS, read_edited


def draw(draw_figure: Any, results: Path) -> Figure | None:
    """Draw a figure of an edited results directory and lay it out, without storing it."""
    with use_house_style():
        figure = draw_figure(read_edited(results))
        if figure is not None:
            figure.draw_without_rendering()
    return figure


def list_texts(figure: Figure) -> list[str]:
    found = []
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_title(), axes.get_xlabel()]
    return found


def change_entry(results: Path, name: str, **changes: Any) -> None:
    """Change an approach of run.json."""
    run = read_json(results / "run.json")
    next(entry for entry in run["approaches"] if entry["name"] == name).update(changes)
    write_json(results / "run.json", run)


def make_network(results: Path, **network: Any) -> None:
    settings = {"size": 64, "network": {"output_stride": 16, "rates": None, **network}}
    change_entry(results, "good_net", use="deeplabv3plus-resnet50", settings=settings)


def test_the_table_has_the_features_of_its_pixels_and_their_share_of_lung(results: Path) -> None:
    figure = draw(draw_pipeline, results)
    assert figure.get_size_inches().tolist() == pytest.approx([7.2, 2.25])
    texts = list_texts(figure)
    # The fixture's five maps are 48 x 56 pixels; map k has the value (y - k) mod 48 in row y.
    assert {"5 feature maps", "2,688 rows × 5 maps\nof this image, 8 rows shown"} <= set(texts)
    start = texts.index("pixel")
    assert texts[start : start + 7] == ["pixel", "0", "1", "2", "…", "4", "lung"]
    truth = read_truth_of_first()
    for number in range(1, 9):
        place, *numbers = texts[start + 7 * number : start + 7 * (number + 1)]
        y, x = map(int, place.split(", "))
        assert [float(each) for each in (*numbers[:3], numbers[4])] == [(y - k) % 48 for k in (0, 1, 2, 4)]
        assert float(numbers[5]) == truth[y, x]
    assert {"Dice 0.800\nline: true outline", "loss", "regressor", "48 × 56 pixels"} <= set(texts)


def read_truth_of_first() -> np.ndarray:
    """Return the mask of the fixture's first image: two ellipses."""
    y, x = np.mgrid[:48, :56]
    left = ((x - 16) / 6) ** 2 + ((y - 24) / 15) ** 2 < 1
    return left | (((x - 40) / 6) ** 2 + ((y - 24) / 14) ** 2 < 1)


@pytest.mark.parametrize(
    ("network", "strides", "branches"),
    [
        ({}, [4, 8, 16, 16], ["3 × 3, dilated"] * 3),
        ({"output_stride": 8, "rates": [2, 4, 6]}, [4, 8, 8, 8], [f"3 × 3, rate {r}" for r in (2, 4, 6)]),
        ({"topology": "seed"}, [4, 8, 16], ["3 × 3, dilated"] * 3),
    ],
    ids=["standard", "stride 8", "seed"],
)
def test_a_network_has_its_strides_and_rates(
    results: Path, network: dict[str, Any], strides: list[int], branches: list[str]
) -> None:
    make_network(results, **network)
    figure = draw(draw_pipeline, results)
    assert figure.get_size_inches().tolist() == pytest.approx([7.2, 4.5])
    texts = list_texts(figure)
    assert [text for text in texts if text.startswith("stride")] == [f"stride {each}" for each in strides]
    assert [text for text in texts if text.startswith("3 × 3")] == branches
    # Both rows are of one image: 0.80 of pixels, 0.95 of good_net.
    assert [text[:10] for text in texts if text.startswith("Dice")] == ["Dice 0.800", "Dice 0.950"]
    assert {"48 × 56 pixels\nresized to 64 × 64", "ImageNet weights"} <= set(texts)


def test_a_row_without_its_approach_is_left_out(results: Path) -> None:
    (results / "predictions/features/pixels.npz").unlink()
    assert draw(draw_pipeline, results) is None
    make_network(results)
    texts = list_texts(draw(draw_pipeline, results))
    assert "ResNet50" in texts
    assert "table of pixels" not in texts


def test_64_maps_are_preferred_and_without_a_curve_it_says_so(results: Path) -> None:
    maps = np.zeros((64, 4, 4), np.float16)
    np.savez(results / "predictions/features/mean-mask.npz", maps=maps, image_id=IDS[1])
    change_entry(results, "mean-mask", settings={"regressor": "ridge"})
    history = read_table(results, "history")
    once = history[(history["approach"] == "pixels") & (history["step"] == 1)]
    write_table(results / "history.csv", "history", once.assign(approach="mean-mask"))
    texts = set(list_texts(draw(draw_pipeline, results)))
    assert texts >= {"64 feature maps", "ridge regression", "fitted\nin one step"}
    assert "loss" not in texts


def test_a_pixels_share_of_lung_is_that_of_its_cell() -> None:
    mask = np.array([[True, True], [True, False], [False, False]])
    # Of three rows in two cells, the middle one counts to each by half.
    assert _average_cells(mask, 2) == pytest.approx(np.array([[1, 2 / 3], [1 / 3, 0]]))
    assert _average_cells(mask, 3).tolist() == mask.tolist()


def test_shown_pixels_are_from_no_lung_to_all_lung() -> None:
    shares = np.repeat([0, 0.25, 0.5, 1], 4).reshape(4, 4)
    rows = _choose_rows(shares)
    assert shares.ravel()[rows].tolist() == [0, 0, 0.25, 0.25, 0.5, 0.5, 1, 1]
    assert len(_choose_rows(np.zeros((1, 3)))) == 3


def test_numbers_have_three_digits() -> None:
    assert [_write_number(value) for value in (0, 9.876, 98.76, 987.6, 9876)] == [
        *("0.00", "9.88", "98.8", "988", "9876")
    ]


def test_stage_maps_are_shown_with_their_dice(results: Path) -> None:
    figure = draw(draw_stage_maps, results)
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["image\n48 × 56", "shape prior\n8 × 8", "stage 1\n16 × 16", "final mask,\ntrue outline"]
    below = [axes.get_xlabel() for axes in figure.axes[:4]]
    assert below == ["img_0", "Dice 0.500", "Dice 0.800", "Dice 0.800"]
    assert (figure.axes[1].images[0].get_array() == 0.25).all()
    assert figure.axes[2].images[0].get_array().tolist() == np.eye(16).tolist()
    assert [axes.images[0].get_clim() for axes in figure.axes[1:3]] == [(0, 1)] * 2


def test_of_many_stages_the_last_are_shown(results: Path) -> None:
    stored = {f"map_{index}": np.full((4, 4), index / 10, np.float16) for index in range(9)}
    titles = [f"stage {number}" for number in range(1, 10)]
    path = results / "predictions/stages/pixels.npz"
    np.savez(path, **stored, titles=titles, dice=np.arange(9) / 10, image_id=IDS[0])
    figure = draw(draw_stage_maps, results)
    assert "the last 6 of 9" in figure.get_suptitle()
    assert [axes.get_xlabel() for axes in figure.axes[1:7]] == [f"Dice 0.{each}00" for each in range(3, 9)]


@pytest.mark.parametrize("lost", ["stages/pixels.npz", "images/img_0.png", "maps/pixels/f0-s0/img_0.png"])
def test_stage_maps_are_left_out_without_what_they_show(results: Path, lost: str) -> None:
    (results / "predictions" / lost).unlink()
    assert draw(draw_stage_maps, results) is None


@pytest.mark.parametrize("damaged", [b"", b"no numbers"])
def test_damaged_maps_are_one_sentence_that_names_the_file(results: Path, damaged: bytes) -> None:
    for folder, read in (("stages", draw_stage_maps), ("features", lambda c: read_features_of(c, "pixels"))):
        (results / "predictions" / folder / "pixels.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{folder}.pixels\.npz can't be read.*again"):
            read(read_edited(results))
