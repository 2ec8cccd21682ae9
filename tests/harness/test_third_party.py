"""Approaches and datasets that aren't ours: what they may do, and what becomes of what they may not."""

import re

import numpy as np
import pytest

from lungseg.approaches.base import Approach, Stage
from lungseg.harness.run import benchmark
from lungseg.learning.fit import FitReport
from lungseg.results import read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from lungseg.system.plugins import Settings
from tests.tiny import NO_TIMING, SPEC

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.report]


class Half(Approach):
    """A third party's approach: says lung in the upper half."""

    Settings = Settings

    @classmethod
    def depends_on_seed(cls, settings):
        return False

    def fit(self, train, validation, run):
        run.history(unit="epoch", step=1, train_loss=0.1, validation_loss=run.score(self._maps(validation)))
        return FitReport("images", len(train))

    @staticmethod
    def _maps(samples):
        return [np.ones_like(sample.image()) for sample in samples]

    def prepare(self, images):
        import torch

        return torch.from_numpy(np.stack(images))[:, None]

    def stages(self):
        def upper(batch):
            maps = batch * 0
            maps[:, :, : batch.shape[2] // 2] = 1
            return maps

        return [Stage("upper", upper)]

    def save(self, directory):
        (directory / "nothing.txt").write_text("")

    @classmethod
    def load(cls, directory, settings, runtime):
        return cls(settings, runtime)


class Unable(Half):
    def skip(self):
        return "it needs a device that is not here"


def test_a_third_partys_class_and_one_that_cannot_run_here(spec_file, tmp_path):
    entries = '[[approach]]\nuse = "tests.harness.test_third_party:Half"\nname = "half"\n'
    entries += '[[approach]]\nuse = "tests.harness.test_third_party:Unable"\nname = "unable"\n'
    spec_file.write_text(SPEC + entries)
    out = tmp_path / "out"
    summary = benchmark(read_spec(spec_file, NO_TIMING), out).page.with_name("summary.md").read_text()
    assert "it needs a device that is not here" in summary
    scores = read_table(out, "scores")
    assert set(scores["approach"]) == {"mean-mask", "pixels", "half"}
    half = scores[scores["approach"] == "half"]
    assert (half["tp"] + half["fp"] == 48 * 24).all()
    assert read_json(out / "run.json")["empty"]["unable"] == "it needs a device that is not here"


class Wild(Half):
    """Maps that aren't numbers."""

    def finish(self, maps, sizes):
        return [np.full(size, np.nan, np.float32) for size in sizes]


class OneWay(Half):
    """Can't be loaded at all."""

    @classmethod
    def load(cls, directory, settings, runtime):
        raise RuntimeError("no way back")


def test_maps_that_are_no_numbers_are_refused(spec_file, tmp_path):
    spec_file.write_text(SPEC + '[[approach]]\nuse = "tests.harness.test_third_party:Wild"\nname = "wild"\n')
    (failure,) = benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out").contents.run["failed"]
    assert re.match(
        r"wild, fold 0, seed 0: the map of phantom-\d+ can't be used, it has a value that is not finite",
        failure["reason"],
    )


def test_a_class_that_cannot_load_what_it_saved(spec_file, tmp_path):
    spec_file.write_text(
        SPEC + '[[approach]]\nuse = "tests.harness.test_third_party:OneWay"\nname = "one-way"\n'
    )
    (failure,) = benchmark(read_spec(spec_file, NO_TIMING), tmp_path / "out").contents.run["failed"]
    assert re.match(r"one-way.*no way back.*mend the save and load", failure["reason"])


def test_nothing_that_can_run_here(spec_file, tmp_path):
    text = (
        SPEC.split("[[approach]]")[0]
        + '[[approach]]\nuse = "tests.harness.test_third_party:Unable"\nname = "unable"\n'
    )
    spec_file.write_text(text)
    with pytest.raises(InputError, match="needs a device that is not here"):
        benchmark(read_spec(spec_file), tmp_path / "out")
