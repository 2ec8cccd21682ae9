import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lungseg.cli import app
from lungseg.results import read_run
from tests.refusals import assert_refused

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def spec(tmp_path):
    def write(
        data: str = 'dataset = "phantom"\ncount = 10\nsize = 32', approach: str = 'use = "mean-mask"'
    ) -> str:
        path = tmp_path / "try.toml"
        path.write_text(
            f'name = "try"\n[data]\n{data}\n[[approach]]\n{approach}\n[timing]\nenabled = false\n'
        )
        return str(path)

    return write


def test_a_benchmark_and_its_report(lungseg, spec, tmp_path):
    done = lungseg("benchmark", spec(), "--out", str(tmp_path / "out"), "--set", "seeds=[7]")
    assert done.returncode == 0, done.stderr
    assert "time      about" in done.stdout
    assert "mean-mask" in done.stdout
    assert {trial["seed"] for trial in read_run(tmp_path / "out")["trials"]} == {7}
    again = lungseg("report", str(tmp_path / "out"))
    assert again.returncode == 0
    assert "Mean of the training masks" in again.stdout


def test_bad_specs_and_flags(lungseg, spec, tmp_path):
    assert_refused(lungseg("benchmark", str(tmp_path / "no.toml")), "no.toml")
    assert_refused(lungseg("benchmark", spec(approach='use = "unet"')), "unet", "vgg19-pixels")
    assert_refused(lungseg("benchmark", spec(approach='use = "mean-mask"\nsise = 3')), "sise", "size")
    assert_refused(lungseg("benchmark", spec(), "--device", "tpu"), "tpu")
    if not torch.cuda.is_available():
        assert_refused(lungseg("benchmark", spec(), "--device", "cuda"), "CUDA")
    assert_refused(lungseg("report", str(tmp_path)), "run.json")
    assert_refused(lungseg("publish", str(tmp_path)), "run.json")
    assert_refused(lungseg("benchmark", spec(), "--reuse", str(tmp_path)), "run.json")


def test_what_a_spec_says_wrong_does_not_wait_for_torch(spec):
    code = "import atexit, sys; from lungseg.cli import main; sys.argv[0] = 'lungseg'; "
    code += "atexit.register(lambda: print('torch' in sys.modules)); main()"
    path = spec(data='dataset = "phantom"\nsplits = 3\n[timeing]')
    words = [sys.executable, "-c", code, "benchmark", path]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert_refused(done, "timeing")
    assert done.stdout.strip() == "False"


def test_the_version_does_not_wait_for_torch():
    code = "import atexit, sys; from lungseg.cli import main; sys.argv = ['lungseg', '--version']; "
    code += "atexit.register(lambda: print('torch' in sys.modules)); main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    shown, torch_imported = done.stdout.splitlines()
    assert re.fullmatch(rf"lungseg {version('lungseg')}( \(revision [0-9a-f]{{12}}(, changed)?\))?", shown)
    assert (torch_imported, done.stderr) == ("False", "")


def test_helps_fit_a_narrow_terminal(lungseg):
    commands = [*(c.name or c.callback.__name__ for c in app.registered_commands)]
    words = [(), *((c,) for c in commands), *(("data", c) for c in ("list", "check", "phantom"))]
    for command in words:
        shown = lungseg(*command, "--help", COLUMNS="80").stdout
        assert max(map(len, shown.splitlines())) <= 80
        assert "Usage: " in shown
        assert "…" not in shown


def test_a_benchmark_by_its_name(lungseg):
    assert_refused(lungseg("benchmark", "quik"), "did you mean 'quick'?")
    small = [word for key in ("count=12", "size=48") for word in ("--set", f"data.{key}")]
    done = lungseg("data", "check", "quick", *small, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    said = re.sub(r"[│\s]+", " ", done.stdout)  # the table may be wrapped
    assert re.search(r"\d train \(\d patients\), \d validation \(\d patients?\), 3 test \(3 pat", said)


def test_data_that_is_not_there(lungseg, spec, tmp_path):
    real = spec(data='dataset = "cxr704"\nsplit = "every-14th"')
    assert_refused(lungseg("benchmark", real), "LUNGSEG_DATA")
    assert_refused(lungseg("benchmark", real, LUNGSEG_DATA=str(tmp_path / "nowhere")), "nowhere")
    assert_refused(lungseg("benchmark", real, LUNGSEG_DATA=str(tmp_path)), str(tmp_path))


def test_weights_that_cannot_be_used(lungseg, spec, tmp_path):
    pixels = spec(approach='use = "vgg19-pixels"\nweights = "imagenet"')
    assert_refused(lungseg("benchmark", pixels, LUNGSEG_WEIGHTS=str(tmp_path / "nowhere")), "LUNGSEG_WEIGHTS")
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file({"conv1.weight": torch.zeros(4, 3, 7, 7)}, folder / "vgg19.safetensors")
    out = ("--out", str(tmp_path / "out"))
    assert_refused(lungseg("benchmark", pixels, *out, LUNGSEG_WEIGHTS=str(folder)), "vgg19.safetensors")
    (folder / "vgg19.safetensors").write_bytes(b"\x10\x00")
    assert_refused(lungseg("benchmark", pixels, *out, LUNGSEG_WEIGHTS=str(folder)), "vgg19.safetensors")


def test_an_unreadable_image_is_named(lungseg, spec, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(8):
        for side, values in (("images", rng.integers(0, 255, (32, 32))), ("masks", np.eye(32) * 255)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / side / f"p{index}.png")
    broken = tmp_path / "images" / "p3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    folder = spec(data='dataset = "folder"\nimages = "images"\nmasks = "masks"')
    out = ("--out", str(tmp_path / "out"))
    assert_refused(lungseg("benchmark", folder, *out, LUNGSEG_DATA=str(tmp_path)), "p3.png")
    words = ("data", "check", "folder", "--set", "images=images", "--set", "masks=masks")
    checked = lungseg(*words, LUNGSEG_DATA=str(tmp_path))
    assert checked.returncode == 1
    assert "p3.png" in checked.stdout


def test_phantoms_as_files_are_a_sound_folder_dataset(lungseg, tmp_path):
    made = lungseg("data", "phantom", str(tmp_path / "made"), "--count", "4", "--size", "64")
    assert made.returncode == 0, made.stderr
    words = ("data", "check", "folder", "--set", "images=made/images", "--set", "masks=made/masks")
    checked = lungseg(*words, LUNGSEG_DATA=str(tmp_path))
    assert checked.returncode == 0, checked.stdout
    assert "sound" in checked.stdout


def test_info_and_list_say_what_is_missing(lungseg):
    done = lungseg("info")
    assert done.returncode == 0, done.stderr
    assert "LUNGSEG_DATA" in done.stdout
    assert "phantom" in lungseg("data", "list").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no root there")
def test_a_folder_that_cannot_be_made(lungseg, spec, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(lungseg("benchmark", spec(), "--out", str(tmp_path / "file")), "is a file")
    assert_refused(lungseg("benchmark", spec(), "--out", str(tmp_path / "file" / "below")), "another folder")


def test_empty_masks_are_named_before_the_run(lungseg, spec, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(8):
        mask = np.zeros((32, 32)) if index == 2 else np.eye(32) * 255
        for side, values in (("images", rng.integers(0, 255, (32, 32))), ("masks", mask)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / side / f"p{index}.png")
    folder = spec(data='dataset = "folder"\nimages = "images"\nmasks = "masks"')
    words = ("benchmark", folder, "--out", str(tmp_path / "out"))
    done = lungseg(*words, LUNGSEG_DATA=str(tmp_path))
    assert "1 masks are empty" in done.stdout
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "masks" / "p4.png")
    assert_refused(lungseg(*words, LUNGSEG_DATA=str(tmp_path)), "p4.png", "40")


# Places as they are elsewhere


TINY = """
name = "tiny"
[data]
dataset = "phantom"
count = 12
size = 48
[[approach]]
use = "mean-mask"
size = 24
[timing]
enabled = false
"""


def test_as_typed_no_place_is_too_strange(tmp_path):
    """A process of its own, with figures, as a user has it, where all is unlike here.

    A window's backend, another alphabet, no home, no temporary folder, a narrow terminal, brackets.
    """
    folder = tmp_path / "Jane Doe" / "röntgen [b] $x_$"
    folder.mkdir(parents=True)
    (folder / "tiny.toml").write_text(TINY)
    places = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "LUNGSEG_CACHE": "/proc/none", "RANK": "abc"}
    shown = {"MPLBACKEND": "nonsense", "COLUMNS": "40", "LC_ALL": "C", "PYTHONUTF8": "0"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LUNGSEG_")}
    words = ["-m", "lungseg", "benchmark", str(folder / "tiny.toml"), "--out", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**clean, **places, **shown}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "[b] $x_$" in done.stdout
    assert "Figures:" in done.stdout
    figures = list((folder / "out/figures").iterdir())
    assert {path.stem for path in figures} >= {"dice", "samples"}
    assert {path.suffix for path in figures} == {".png", ".pdf"}
    assert "Jane Doe" not in (folder / "out/run.json").read_text()


def test_a_closed_output_is_no_traceback(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    # Without figures, which take seconds.
    code = "from lungseg.report import write; write.draw_figures = lambda contents: []; "
    code += "from lungseg.cli import main; main()"
    words = [sys.executable, "-c", code, "benchmark", tmp_path / "tiny.toml", "--out", tmp_path / "out"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert b"Traceback" not in errors
    assert process.returncode in (0, 1)


def test_a_name_that_is_no_text_is_a_problem_to_both_commands(lungseg, tmp_path):
    assert lungseg("data", "phantom", str(tmp_path), "--count", "6", "--size", "48").returncode == 0
    for side in ("images", "masks"):
        os.rename(tmp_path / side / "phantom-0000.png", os.fsencode(tmp_path / side) + b"/\xff.png")
    own = [f"{side}={tmp_path / side}" for side in ("images", "masks")]
    checked = lungseg("data", "check", "folder", "--set", own[0], "--set", own[1])
    assert checked.returncode == 1
    assert r"problem: the id '\udcff' can't be a file's name: rename the image and its mask" in checked.stdout
    (tmp_path / "spec.toml").write_text(
        f'name = "x"\n[data]\ndataset = "folder"\nimages = "{tmp_path}/images"\nmasks = "{tmp_path}/masks"\n'
        '[[approach]]\nuse = "mean-mask"\n'
    )
    assert_refused(
        lungseg("benchmark", str(tmp_path / "spec.toml")), "can't be a file's name: rename the image"
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_test_takes_paths():
    words = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "-o",
        ".venv/.lungseg-test-ready",
        "test",
        "TESTS=tests/test_cli.py",
    ]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=alone)
    assert done.stdout.rstrip().endswith("-m pytest --numprocesses 2 --dist worksteal tests/test_cli.py")
