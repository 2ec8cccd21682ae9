"""What a fit stores: models that are damaged or of other settings, and fits that were cut."""

import itertools

import numpy as np
import pytest

from lungseg.approaches.vgg19_context import code_tables, resumable_fit
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.stage_models import BoostedStage
from lungseg.system.errors import InputError

GREY = {"features": False}  # quicker, for what isn't about the network's features


def assert_same(one: list[np.ndarray], two: list[np.ndarray]) -> None:
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_damaged_files_of_a_fitted_approach_are_named(share, shared, tmp_path, runtime):
    approach, _ = shared(contexts=0, **GREY)
    folder = tmp_path / "model"
    approach.save(folder)
    for file in (folder / "base.safetensors", folder / "stage-1" / "lightgbm.txt"):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(min(share, 0.5 if file.suffix == ".txt" else 1) * len(whole))])
        with pytest.raises(InputError, match="damaged") as refusal:
            Vgg19Context.load(folder, approach.settings, runtime)
        assert str(file) in str(refusal.value)
        file.write_bytes(whole)


def test_a_model_of_other_settings_is_refused(shared, small, runtime, tmp_path):
    approach, _ = shared()
    approach.save(tmp_path / "model")
    for other in ({"scales": (64,)}, {"components": 5}, {"components": 0}, {"contexts": 2}):
        settings = small(**other)
        with pytest.raises(InputError, match="run its benchmark again, which fits anew"):
            Vgg19Context.load(tmp_path / "model", settings, runtime)


class Cut(BaseException):
    """Ends a session at once."""


def cut_at(call: int, monkeypatch, owner: object, name: str) -> None:
    """Let the call of that number, counted from one, end the session."""
    whole, calls = getattr(owner, name), itertools.count(1)

    def cut(*rest, **more):
        if next(calls) == call:
            raise Cut
        return whole(*rest, **more)

    monkeypatch.setattr(owner, name, cut)


@pytest.mark.parametrize(
    ("owner", "name", "call", "extracted"),
    [
        (code_tables.CodeWriter, "write", 4, True),  # in the middle of the tables
        (BoostedStage, "fit", 5, False),  # in the second
        (BoostedStage, "save", 2, False),  # between its maps and its model
        (resumable_fit, "seal_folder", 3, False),  # between its model and its record
        (BoostedStage, "fit", 7, False),  # in the last
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_cut_fit_goes_on_and_ends_the_same(
    owner, name, call, extracted, shared, fitted, images, monkeypatch
):
    whole, fit_context = shared(contexts=2, **GREY)
    with monkeypatch.context() as patch:
        cut_at(call, patch, owner, name)
        with pytest.raises(Cut):
            fitted(contexts=2, **GREY)
    calls, write = [], code_tables.write_tables
    monkeypatch.setattr(resumable_fit, "write_tables", lambda *rest: calls.append(None) or write(*rest))
    resumed, second = fitted(contexts=2, **GREY)
    assert len(calls) == extracted
    assert_same(resumed.predict(images), whole.predict(images))
    assert second.rows == fit_context.rows
    assert second.report.items == fit_context.report.items
    assert second.report.parameters == fit_context.report.parameters


def test_the_time_of_former_sessions_is_counted(shared, fitted, monkeypatch):
    with monkeypatch.context() as patch:
        cut_at(4, patch, BoostedStage, "fit")
        with pytest.raises(Cut):
            fitted(**GREY)
    _, fit_context = fitted(**GREY)
    assert fit_context.report.seconds_before > 0
    assert shared(**GREY)[1].report.seconds_before == 0
