import re
import subprocess
import sys
from pathlib import Path

import pytest

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.harness.plan import make_plan
from lungseg.harness.shipped import find_spec
from lungseg.spec import read_spec
from lungseg.system.errors import InputError
from lungseg.system.plugins import load_class, validate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TEXT = """
name = "study"
[data]
dataset = "phantom"
count = 8
[[approach]]
use = "mean-mask"
[[approach]]
use = "vgg19-pixels"
name = "pixels"
size = 48
"""


@pytest.fixture
def spec_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_spec_is_valid_down_to_the_approaches_own_keys(path):
    spec = read_spec(path)
    assert spec.name == path.stem
    for entry in spec.approach:
        approach_class = load_class(entry.use, APPROACHES, Approach, "approach")
        assert validate(approach_class.Settings, entry.options, entry.name)


def test_changes_by_set(spec_file):
    changes = ["seeds=[3, 4]", "data.count=12", "approach.pixels.size=32", "data.split=every-14th"]
    spec = read_spec(spec_file(TEXT), changes)
    assert spec.seeds == (3, 4)
    assert spec.data.options["count"] == 12
    assert spec.data.split == "every-14th"
    assert spec.approach[1].options["size"] == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seeds", "not of the form key=value"),
        ("approach.other.size=3", "no approach 'other'; it has mean-mask, pixels"),
        ("approach=3", "approach"),
        ("name.size=3", "name is not a table"),
        ("colour=3", "unknown key 'colour'"),
        ("seeds=[]", "seeds"),
        ("seeds=[1, 1]", "seed 1 is a duplicate"),
        ("seeds=[-1]", "seeds"),
        ("timing.repeats=soon", "timing.repeats"),
        (
            "timing.batch=3",
            "unknown key 'timing.batch': did you mean 'batch_sizes'? The known keys are enabled, batch_sizes",
        ),
        ("seeds=0", "seeds = 0 can't be used: give a list, as in seeds = [0]"),
        (
            "timing.batch_sizes=3",
            "timing.batch_sizes = 3 can't be used: give a list, as in batch_sizes = [3]",
        ),
        ("approach={ use = 'threshold' }", "give a list, as in [[approach]]"),
        ("datas={ a = 1 }", "unknown table 'datas': did you mean 'data'? The known keys are name,"),
        ("evaluate_on=train", "evaluate_on"),
        ("approach.pixels.threshold=2", "threshold"),
        ("name=../elsewhere", "name"),
    ],
)
def test_bad_changes_name_their_key(spec_file, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_spec(spec_file(TEXT), [change])


@pytest.mark.parametrize(
    ("text", "group"), [("weights", ("weights",)), ('["a b", "c"]', ("a b", "c")), ("[]", ())]
)
def test_a_group_is_one_name_or_several(spec_file, text, group):
    plain, pixels = read_spec(spec_file(TEXT), [f"approach.pixels.group={text}"]).approach
    assert pixels.group == group
    assert "group" not in pixels.options
    assert plain.group == ()


@pytest.mark.parametrize("group", ["3", '""', '["a", 3]', '{ a = "b" }'])
def test_what_is_no_group(spec_file, group):
    with pytest.raises(InputError, match=r"approach\.1\.group"):
        read_spec(spec_file(TEXT), [f"approach.pixels.group={group}"])


def test_duplicate_names(spec_file):
    with pytest.raises(InputError, match="'pixels' is a duplicate"):
        read_spec(spec_file(TEXT + '[[approach]]\nuse = "threshold"\nname = "pixels"\n'))


def test_files_that_are_no_specs(spec_file, tmp_path):
    with pytest.raises(InputError, match="there is no spec"):
        read_spec(tmp_path / "missing.toml")
    with pytest.raises(InputError, match="not valid TOML"):
        read_spec(spec_file("name = "))
    with pytest.raises(InputError, match="can't read"):
        read_spec(tmp_path)
    with pytest.raises(InputError, match="'name' is missing"):
        read_spec(spec_file("[data]\ndataset='phantom'\n[[approach]]\nuse='threshold'\n"))


def test_unknown_approach_lists_the_known_ones():
    with pytest.raises(InputError, match=r"approach 'unet'.*deeplabv3plus-resnet50, masks, mean-mask"):
        load_class("unet", APPROACHES, Approach, "approach")


def test_a_nested_unknown_key_lists_that_tables_keys():
    approach_class = load_class("vgg19-pixels", APPROACHES, Approach, "approach")
    with pytest.raises(InputError, match=r"unknown key 'boosting.trees'; the known keys are rounds, leaves"):
        validate(approach_class.Settings, {"boosting": {"trees": 3}}, "approach 'x'")


@pytest.mark.parametrize(
    ("was", "written", "said"),
    [
        (
            "[[approach]]",
            "[[aproach]]",
            "unknown table 'aproach': did you mean 'approach'? The known keys are",
        ),
        ("dataset =", "datset =", "the key 'data.dataset' is missing: did you mean it by 'datset'?"),
        ("use =", "uses =", "the key 'approach.0.use' is missing: did you mean it by 'uses'?"),
        ("phantom", "phantoms", "unknown dataset 'phantoms': did you mean 'phantom'? Choose one of"),
        ("mean-mask", "mean-masks", "unknown approach 'mean-masks': did you mean 'mean-mask'? Choose one of"),
        ("count", "counts", "unknown key 'counts': did you mean 'count'? The known keys are count,"),
        ("count", "split_sed", "unknown key 'split_sed': did you mean 'split_seed'? The known"),
        ("size", "treshold", "unknown key 'treshold': did you mean 'threshold'? The known keys are"),
        (
            "count = 8",
            'split = "kfolds"',
            "unknown split 'kfolds': did you mean 'kfold'? Use one of every-14th",
        ),
        ("count", "xyz", "unknown key 'xyz'; the known keys are count,"),
    ],
)
def test_the_nearest_known_name_is_proposed(spec_file, was, written, said):
    with pytest.raises(InputError, match=re.escape(said)):
        make_plan(read_spec(spec_file(TEXT.replace(was, written))))


def test_a_shipped_spec_is_found_by_its_name_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_spec(Path("quick")).samefile(BENCHMARKS / "quick.toml")
    with pytest.raises(
        InputError, match=r"no spec 'quik': did you mean 'quick'\? Give the path of a TOML file"
    ):
        find_spec(Path("quik"))
    with pytest.raises(InputError, match=r"give the path of a TOML file, or one of cxr704.*, quick, "):
        find_spec(Path("none-like-it"))
    (tmp_path / "quick").write_text(TEXT)
    for own in ("quick", "none/quick", "quick.toml"):  # `read_spec` names what isn't there
        assert find_spec(Path(own)) == Path(own)


def test_a_wheel_holds_every_package_and_every_shipped_spec(tmp_path):
    pytest.importorskip("setuptools")
    words = ["-q", "egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path / "lib"]
    root = BENCHMARKS.parent
    done = subprocess.run([sys.executable, "setup.py", *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "lib/lungseg"
    specs = {file.name for file in BENCHMARKS.glob("*.toml")}
    assert {file.name for file in (built / "benchmarks").iterdir()} == specs
    modules = {file.relative_to(root / "lungseg") for file in (root / "lungseg").rglob("*.py")}
    assert {file.relative_to(built) for file in built.rglob("*.py")} == modules
    for place in ("prediction/starter", "learning/vgg19"):
        files = {path.relative_to(root / "lungseg") for path in (root / "lungseg" / place).rglob("*.*")}
        kept = {path for path in files if path.suffix != ".pyc"}
        assert kept <= {path.relative_to(built) for path in built.rglob("*")}


def test_an_installed_package_has_the_specs_inside(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/inside.toml").write_text(TEXT)
    monkeypatch.setattr("lungseg.__file__", str(tmp_path / "__init__.py"))
    assert find_spec(Path("inside")) == tmp_path / "benchmarks/inside.toml"


VARIANT = """
[[timing.variants]]
compiled = true
approaches = ["pixel"]
"""


def test_a_variant_of_an_unknown_approach_and_wrong_batch_sizes_name_their_key(spec_file):
    with pytest.raises(InputError, match=r"timing.variants names the approach 'pixel'.*mean-mask, pixels"):
        read_spec(spec_file(TEXT + VARIANT))
    for value in ("all", "[0]", "[]"):
        with pytest.raises(InputError, match=r"timing\.batch_sizes"):
            read_spec(spec_file(TEXT), [f"timing.batch_sizes={value}"])
    assert read_spec(spec_file(TEXT), ["timing.batch_sizes=auto"]).timing.batch_sizes == "auto"


# Texts as other editors and tired people write them


def write_spec(folder, text="", encoding="utf-8"):
    path = folder / "spec.toml"
    path.write_bytes((TEXT + text).encode(encoding))
    return path


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    plain = read_spec(write_spec(tmp_path))
    assert read_spec(write_spec(tmp_path, encoding="utf-8-sig")) == plain
    (tmp_path / "spec.toml").write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert read_spec(tmp_path / "spec.toml") == plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'path = "C:\data"', r"not valid TOML.*single quotes, as in 'C:\\data', or with /"),
        (r'path = "C:\temp\new"', r"path has the control character '\\t': write backslashes"),
        ('path = "a\\u0000b"', r"path has the control character '\\x00'"),
        ("number = " + "9" * 5000, "not valid TOML: .*digits"),
        ("deep = " + "[" * 3000 + "]" * 3000, "not valid TOML: it is nested too deeply"),
        ("[data]\n", "not valid TOML"),
    ],
)
def test_texts_that_are_nearly_right_say_what_to_do(tmp_path, text, said):
    with pytest.raises(InputError, match=rf"spec\.toml.*{said}") as refused:
        read_spec(write_spec(tmp_path, f"\n[more]\n{text}"))
    assert len(str(refused.value)) < 500


def test_other_encodings_and_files_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="is not UTF-8 text: save it as UTF-8"):
        read_spec(write_spec(tmp_path, encoding="utf-16"))
    with pytest.raises(InputError, match="can't read the spec"):
        read_spec(tmp_path)
    (tmp_path / "large.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(InputError, match="over 1000000 bytes, too many for a spec"):
        read_spec(tmp_path / "large.toml")
    with pytest.raises(InputError, match=r'there is no spec .*The shortest has the lines name = "mine"'):
        read_spec(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.split=kfold data.folds=1000000000", "folds = 1000000000 can't be used"),
        ("data.count=1000000000", "count = 1000000000 can't be used"),
        ("data.split_seed=-1", "split_seed = -1 can't be used"),
        ("timing.repeats=1000000000", "timing.repeats = 1000000000 can't be used"),
    ],
)
def test_numbers_without_end(tmp_path, change, said):
    path = write_spec(tmp_path)
    with pytest.raises(InputError, match=said):
        make_plan(read_spec(path, change.split()))


def test_a_home_of_nobody(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(
        'name = "x"\n[data]\ndataset = "folder"\nimages = "~nouser/x"\nmasks = "m"\n'
        '[[approach]]\nuse = "mean-mask"\n'
    )
    with pytest.raises(InputError, match="images '~nouser/x' names a home directory that isn't there"):
        make_plan(read_spec(path))


def test_a_text_that_no_message_could_quote_is_refused(spec_file):
    with pytest.raises(InputError, match=r"data: split has 1001 letters: at most 1000 can be used$"):
        read_spec(spec_file(TEXT), [f"data.split={'b' * 1001}"])


def test_labels_are_unique(spec_file):
    changes = ["approach.pixels.label=Mine", "approach.mean-mask.label=Mine"]
    with pytest.raises(InputError, match="the approach label 'Mine' is a duplicate: give each its own"):
        read_spec(spec_file(TEXT), changes)
