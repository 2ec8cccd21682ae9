import shutil

import pytest
from tiny import NO_TIMING, SPEC

from lungseg.data.export import write_phantoms
from lungseg.errors import InputError
from lungseg.harness import benchmark
from lungseg.leaks import audit_plan
from lungseg.plan import make_plan
from lungseg.results import read_json, read_table
from lungseg.spec import read_spec

FOLDERS = ["data.dataset=folder", "data.split=random", "seeds=[0]"]


@pytest.fixture
def clinic(tmp_path, spec_file):
    """A spec over a folder of twelve pictures; one of them stands there a second time under another name."""
    write_phantoms(tmp_path / "clinic", 12, 48, 0)
    text = SPEC.replace('dataset = "phantom"\ncount = 12\nsize = 48\n', "")
    folders = "".join(f'{kind} = "{tmp_path}/clinic/{kind}"\n' for kind in ("images", "masks"))
    spec_file.write_text(text.replace("[data]\n", f'[data]\ndataset = "folder"\n{folders}'))
    for kind in ("images", "masks"):
        first = sorted((tmp_path / "clinic" / kind).iterdir())[0]
        for number in range(4):  # of five equal pictures two stand on different sides, whatever the split
            shutil.copy(first, first.with_name(f"copy-{number}.png"))
    return spec_file


def test_a_leak_ends_the_run_before_anything_is_fitted(clinic, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"copy-\d .*same") as caught:
        benchmark(read_spec(clinic, NO_TIMING), out)
    assert "allow_leaks" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_an_allowed_leak_stands_in_every_table(clinic, tmp_path):
    out = tmp_path / "out"
    summary = benchmark(read_spec(clinic, [*NO_TIMING, "data.allow_leaks=true"]), out)
    record = read_json(out / "run.json")
    assert record["leaks_allowed"] is True
    assert record["audit"]["checked"] == 16
    assert any("copy-" in sentence for sentence in record["leaks"])
    tables = summary.split("\n## ")
    assert all("eak" in table for table in tables if "\n| :--" in table)
    assert "eak" in (out / "summary.tex").read_text()
    assert len(read_table(out, "scores")) > 0


def test_a_clean_split_says_so(spec_file, tmp_path):
    found = audit_plan(make_plan(read_spec(spec_file)))
    assert (found.checked, found.twins, found.leaks) == (12, 0, ())
    assert found.record()["leaks_allowed"] is False


def test_training_on_the_images_that_are_evaluated_is_refused(spec_file):
    spec_file.write_text(SPEC + '[training_data]\ndataset = "phantom"\ncount = 20\nsize = 48\n')
    plan = make_plan(read_spec(spec_file))
    with pytest.raises(InputError, match=r"phantom-00\d\d"):
        audit_plan(plan)


def test_each_fold_is_looked_at(clinic, tmp_path):
    spec = read_spec(clinic, [*NO_TIMING, "data.split=kfold", "data.folds=3"])
    with pytest.raises(InputError, match="same"):
        audit_plan(make_plan(spec))
