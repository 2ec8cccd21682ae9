"""The audit of a run: what ends it, what it goes on with, and that it looks at every split there is."""

import shutil
from itertools import combinations

import pytest

from lungseg.data.audit.compare import Findings, Pair
from lungseg.data.datasets.export import write_phantoms
from lungseg.harness.leaks import audit_plan
from lungseg.harness.plan import make_plan
from lungseg.harness.run import benchmark
from lungseg.results import read_table
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import read_json
from tests.tiny import NO_TIMING, SPEC

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def clinic(tmp_path, spec_file):
    """A spec over a folder of twelve different pictures."""
    write_phantoms(tmp_path / "clinic", 12, 48, 0)
    text = SPEC.replace('dataset = "phantom"\ncount = 12\nsize = 48\n', "")
    folders = "".join(f'{kind} = "{tmp_path}/clinic/{kind}"\n' for kind in ("images", "masks"))
    spec_file.write_text(text.replace("[data]\n", f'[data]\ndataset = "folder"\n{folders}'))
    return spec_file


@pytest.fixture
def leaky(clinic, tmp_path):
    """The same with five equal pictures: two of them stand on different sides, whatever the split."""
    for kind in ("images", "masks"):
        first = sorted((tmp_path / "clinic" / kind).iterdir())[0]
        for number in range(4):
            shutil.copy(first, first.with_name(f"copy-{number}.png"))
    return clinic


def side_of(fold):
    sides = ("train", "validation", "test")
    return {name: side for side in sides for name in getattr(fold.split, side)}


def make_equal(folder, first, second):
    shutil.copy(folder / f"{first}.png", folder / f"{second}.png")


def test_a_leak_ends_the_run_before_anything_is_fitted(leaky, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"copy-\d .*same") as caught:
        benchmark(read_spec(leaky, NO_TIMING), out)
    assert "allow_leaks" in str(caught.value)
    assert "(one patient: set patient_pattern, or a table with the column patient; two" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    with pytest.raises(InputError, match=r"regroup them \(two people"):  # the pattern is set already
        benchmark(read_spec(leaky, [*NO_TIMING, "data.patient_pattern=^(.*)$"]), out)


@pytest.mark.report
def test_an_allowed_leak_stands_in_every_table(leaky, tmp_path):
    out = tmp_path / "out"
    summary = (
        benchmark(read_spec(leaky, [*NO_TIMING, "data.allow_leaks=true"]), out)
        .page.with_name("summary.md")
        .read_text()
    )
    record = read_json(out / "run.json")
    assert record["leaks_allowed"] is True
    assert record["audit"]["checked"] == 16
    assert any("copy-" in sentence for sentence in record["leaks"])
    tables = [section for section in summary.split("\n## ") if "\n| :--" in section]
    assert len(tables) > 3
    assert all("Leaks allowed" in table for table in tables)
    assert "Leaks allowed" in (out / "summary.tex").read_text()
    assert len(read_table(out, "scores")) > 0


def test_a_clean_split_says_so(spec_file):
    found = audit_plan(make_plan(read_spec(spec_file)))
    assert (found.checked, found.twins, found.leaks) == (12, 0, ())
    assert found.record()["leaks_allowed"] is False


def test_pictures_that_show_too_little_to_be_compared_are_counted(clinic):
    assert audit_plan(make_plan(read_spec(clinic))).record()["audit"]["uncompared"] == 12  # 48 pixels a side


def test_training_on_the_images_that_are_evaluated_is_refused(spec_file):
    spec_file.write_text(SPEC + '[training_data]\ndataset = "phantom"\ncount = 20\nsize = 48\n')
    plan = make_plan(read_spec(spec_file))
    with pytest.raises(InputError, match=r"phantom-00\d\d .*training_data"):
        audit_plan(plan)


def test_every_fold_is_looked_at(clinic, tmp_path):
    spec = read_spec(clinic, [*NO_TIMING, "data.split=kfold", "data.folds=3"])
    first, *later = [side_of(fold) for fold in make_plan(spec).folds]
    pair = next(
        pair
        for pair in combinations(first, 2)
        if len({first[name] for name in pair}) == 1 and len({later[-1][name] for name in pair}) == 2
    )
    assert audit_plan(make_plan(spec)).leaks == ()
    make_equal(tmp_path / "clinic" / "images", *pair)
    with pytest.raises(InputError, match="same file"):
        audit_plan(make_plan(spec))


def test_the_split_that_one_approach_has_for_itself_is_looked_at(clinic, tmp_path):
    changes = [*NO_TIMING, "evaluate_on=validation", "approach.pixels.split=last-fifth"]
    plan = make_plan(read_spec(clinic, changes))
    everybodys, own = side_of(plan.folds[0]), side_of(plan.entries[1].folds[0])
    pair = next(
        pair
        for pair in combinations(everybodys, 2)
        if len({everybodys[name] for name in pair}) == 1 and len({own[name] for name in pair}) == 2
    )
    make_equal(tmp_path / "clinic" / "images", *pair)
    with pytest.raises(InputError, match="same file"):
        audit_plan(make_plan(read_spec(clinic, changes)))
    assert audit_plan(make_plan(read_spec(clinic, changes[:2]))).leaks == ()


@pytest.mark.report
def test_look_alikes_are_told_and_end_no_run(clinic, tmp_path, monkeypatch):
    plan = make_plan(read_spec(clinic))
    side = side_of(plan.folds[0])
    pair = next(pair for pair in combinations(side, 2) if side[pair[0]] != side[pair[1]])
    alike = Pair("look-alike", ("folder", pair[0]), ("folder", pair[1]), 0.7)
    monkeypatch.setattr("lungseg.harness.leaks.compare_samples", lambda *_: Findings([], [alike], []))
    summary = (
        benchmark(read_spec(clinic, NO_TIMING), tmp_path / "out").page.with_name("summary.md").read_text()
    )
    assert f"{pair[0]} and {pair[1]} (folder) may show the same person" in summary
    assert "Leaks allowed" not in summary
