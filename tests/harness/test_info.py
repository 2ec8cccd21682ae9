import shutil
import sys

import pytest

from lungseg.data.datasets.export import write_phantoms
from lungseg.harness.commands import info
from lungseg.harness.commands.info import check_data
from lungseg.harness.leaks import audit_plan
from lungseg.harness.plan import make_plan
from lungseg.learning.trees import evaluator as trees
from lungseg.learning.trees import llvm as trees_llvm
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from tests.tiny import SPEC


@pytest.fixture
def without_triton(monkeypatch):
    def fails(*_):
        raise ImportError("Failed to find C compiler")

    monkeypatch.setattr(trees, "_make_triton", fails)
    monkeypatch.setattr(info, "find_gpu_name", lambda: "a GPU")


def test_it_says_what_evaluates_trees(monkeypatch):
    monkeypatch.setattr(info, "find_gpu_name", lambda: None)
    rows = dict(info.list_facts())
    assert rows["trees on CPU"] == "llvm"
    assert "trees on CUDA" not in rows
    assert "llvmlite" in rows["versions"]


def test_it_says_what_the_speed_of_a_gpu_depends_on(monkeypatch):
    monkeypatch.setattr(info, "describe_gpu", lambda: None)
    assert "GPU" not in dict(info.list_facts())
    found = {"name": "a GPU", "driver": "580.1", "power_limit_w": 700.0, "ecc": True, "mig": None}
    monkeypatch.setattr(info, "describe_gpu", lambda: found)
    assert dict(info.list_facts())["GPU"] == "driver 580.1, power limit 700 W, ecc on"


def test_it_says_what_to_install_for_faster_trees(without_triton, monkeypatch):
    assert dict(info.list_facts())["trees on CUDA"] == (
        "llvm; the engine 'triton' doesn't work here (Failed to find C compiler): "
        "install triton, a C compiler and Python's headers"
    )
    trees_llvm._compile_once.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    rows = dict(info.list_facts())
    assert rows["trees on CPU"].startswith("lightgbm; ")
    assert rows["trees on CPU"].endswith("install llvmlite")
    assert rows["trees on CUDA"].startswith("lightgbm; ")


# Checking data


@pytest.fixture
def check():
    """Checks data, and returns what was found."""
    return lambda what, *changes: check_data(str(what), changes, lambda *_: None)


@pytest.fixture
def clinic(tmp_path, spec_file):
    """A spec over a folder of 12 pictures, two of each patient."""
    write_phantoms(tmp_path / "clinic", 12, 48, 0)
    for kind in ("images", "masks"):
        for number, path in enumerate(sorted((tmp_path / "clinic" / kind).iterdir())):
            path.rename(path.with_name(f"p{number // 2}_{number % 2}.png"))
    keys = "".join(f'{kind} = "{tmp_path}/clinic/{kind}"\n' for kind in ("images", "masks"))
    data = f'dataset = "folder"\n{keys}'
    spec_file.write_text(SPEC.replace('dataset = "phantom"\ncount = 12\nsize = 48\n', data))
    return spec_file


def test_a_spec_is_checked_with_its_split(clinic, check):
    found = check(clinic, "data.patient_pattern='^(p\\d)_'")
    assert found.problems == []
    assert [title for title, _ in found.tables] == ["data: folder", "split"]
    assert found.tables[1][1] == [
        ("random, fold 0", "8 train (4 patients), 2 validation (1 patient), 2 test (1 patient)")
    ]
    assert dict(found.tables[0][1])["patients"] == "6"
    assert any(note.startswith("only 2 validation images") for note in found.notes)
    plain = check(clinic)
    assert "12 patients = 12 images: set patient_pattern if people have several images" in plain.notes


def test_every_fold_and_every_split_of_its_own_is_a_row(clinic, check):
    found = check(clinic, "data.split=kfold", "data.folds=3", "approach.pixels.split=every-14th")
    assert [name for name, _ in found.tables[1][1]] == [
        "kfold, fold 0", "kfold, fold 1", "kfold, fold 2", "every-14th, fold 0",
    ]  # fmt: skip


def test_training_data_is_checked_too(clinic, check, tmp_path):
    other = {"dataset": "folder", "images": f"{tmp_path}/other/images", "masks": f"{tmp_path}/other/masks"}
    write_phantoms(tmp_path / "other", 20, 48, 7)
    changes = [f"training_data.{key}={value}" for key, value in other.items()]
    found = check(clinic, *changes)
    assert [title for title, _ in found.tables] == ["data: folder", "training data: folder", "split"]
    assert found.tables[2][1][0][1].startswith("18 train (18 patients), 2 validation (2 patients), ")
    assert found.problems == []
    masks = tmp_path / "other/masks"
    shutil.copy(tmp_path / "clinic/images/p0_0.png", sorted(masks.iterdir())[0])
    assert any("other/masks" in problem for problem in check(clinic, *changes).problems)


def harm_leak(folder):
    shutil.copy(folder / "images/p0_0.png", folder / "images/p1_0.png")
    for number in range(4):
        for kind in ("images", "masks"):
            shutil.copy(folder / kind / "p0_0.png", folder / kind / f"copy{number}.png")


def harm_size(folder):
    write_phantoms(folder / "larger", 1, 64, 0)
    shutil.copy(folder / "larger/masks/phantom-0000.png", folder / "masks/p0_0.png")


def harm_image(folder):
    (folder / "images/p3_1.png").write_bytes(b"no picture")


def harm_count(folder):
    for number in range(1, 6):
        (folder / f"images/p{number}_0.png").unlink()
        (folder / f"images/p{number}_1.png").unlink()


@pytest.mark.parametrize("harm", [harm_leak, harm_size, harm_image, harm_count])
def test_what_ends_a_benchmark_is_a_problem(clinic, check, tmp_path, harm):
    harm(tmp_path / "clinic")
    with pytest.raises(InputError) as refused:
        audit_plan(make_plan(read_spec(clinic)))
    found = check(clinic)
    assert found.problems
    if harm in (harm_leak, harm_count):  # of which nothing is known before the split is made
        assert found.problems == [str(refused.value)]
    else:
        assert "the split is checked once the problems are mended" in found.notes


def test_an_allowed_leak_is_a_note(clinic, check, tmp_path):
    harm_leak(tmp_path / "clinic")
    found = check(clinic, "data.allow_leaks=true")
    assert found.problems == []
    assert any(note.startswith("LEAK, allowed by the spec: ") for note in found.notes)


def test_a_dataset_without_its_keys_and_names_that_are_nothing(check, tmp_path):
    with pytest.raises(
        InputError, match=r"needs the keys images and masks.*--set images=... --set masks=...$"
    ):
        check("folder")
    with pytest.raises(InputError, match="the key 'masks' is missing"):
        check("folder", "images=x")
    with pytest.raises(InputError, match=r"no dataset or spec 'phantm': did you mean 'phantom'\?"):
        check("phantm")
    with pytest.raises(InputError, match=r"there is no spec .*none\.toml"):
        check(tmp_path / "none.toml")
