import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lungseg.data.audit import candidates, compare, packs, pictures
from lungseg.data.audit.compare import compare_samples
from lungseg.data.datasets.phantom import render
from lungseg.data.files.file_sample import FileSample
from lungseg.system.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LUNGSEG_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve phantoms, and mirrored copies of two of them, as files."""
    made = tmp_path_factory.mktemp("pictures")
    images = [render(6, index, 128)[0] for index in range(12)]
    images += [images[0][:, ::-1], images[7][:, ::-1]]
    for number, image in enumerate(images):
        Image.fromarray((image * 255).astype(np.uint8)).save(made / f"{number:02d}.png")
    return made


@pytest.fixture
def samples(folder):
    return [FileSample(path.stem, "s", path.stem, "", path, ()) for path in sorted(folder.iterdir())]


EXPECTED = [("00", "12"), ("07", "13")]


@pytest.fixture
def watched(monkeypatch):
    """The ids of pictures that were read, and how many pairs of descriptions were multiplied."""
    seen = {"read": [], "pairs": 0}
    read, multiply = FileSample.image, candidates._compare

    def image(self):
        seen["read"].append(self.id)
        return read(self)

    def count(descriptions, task):
        seen["pairs"] += (task.parts.stop - task.parts.start) * (task.wholes.stop - task.wholes.start)
        return multiply(descriptions, task)

    monkeypatch.setattr(FileSample, "image", image)
    monkeypatch.setattr(candidates, "_compare", count)
    return seen


def find(samples, **options):
    return compare_samples({"set": samples}, **options)


def names(findings):
    return [(pair.first[1], pair.second[1]) for pair in findings.pairs]


def files_of(cache):
    return sorted(path for path in (cache / "lungseg" / "audit").rglob("*") if path.is_file())


def test_one_picture_more_is_read_and_compared_alone(samples, watched, cache):
    find(samples[:13])
    assert (len(watched["read"]), watched["pairs"]) == (13, 13 * 13)
    watched.update(read=[], pairs=0)
    more = find(samples)
    assert watched == {"read": ["13"], "pairs": 14 + 13}  # in both roles, and with itself
    assert names(more) == EXPECTED
    watched.update(read=[], pairs=0)
    assert find(samples) == more
    assert names(find(samples[:13])) == EXPECTED[:1]
    assert watched == {"read": [], "pairs": 0}
    assert len(files_of(cache)) == 5  # two packs of two files, and one record of what was compared


def test_what_is_found_is_the_same_whichever_way_the_pictures_came(samples, cache, monkeypatch):
    find(samples[5:9])
    find(samples[3:12])
    one_by_one = find(samples)
    monkeypatch.setenv("LUNGSEG_CACHE", str(cache / "other"))
    at_once = find(samples[::-1])
    first, second = (
        {frozenset((pair.first, pair.second)): pair.similarity for pair in found.pairs}
        for found in (one_by_one, at_once)
    )
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize("stage", ["reading pictures", "comparing pictures"])
def test_what_was_done_before_an_interruption_is_not_done_again(samples, watched, monkeypatch, stage):
    monkeypatch.setattr(pictures, "_BLOCK", 4)
    monkeypatch.setattr(packs, "FLUSH_EVERY_S", 0.0)
    monkeypatch.setattr(compare, "STORE_EVERY_S", 0.0)

    def interrupt(done, _, text):
        if text == stage and done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(samples, progress=interrupt)
    watched.update(read=[], pairs=0)
    assert names(find(samples)) == EXPECTED
    if stage == "reading pictures":
        assert len(watched["read"]) == 14 - 9
    else:
        assert watched["read"] == []
        assert watched["pairs"] == 14 * 14 - 8 * 8  # two blocks of four had been stored


def test_a_killed_process_loses_only_the_last_seconds(samples, folder, watched, cache):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lungseg.data.audit import packs\n"
        "from lungseg.data.audit.compare import compare_samples\n"
        "from lungseg.data.files.file_sample import FileSample\n"
        "packs.FLUSH_EVERY_S = 0.0\n"
        "paths = sorted(Path(sys.argv[1]).iterdir())\n"
        "samples = [FileSample(path.stem, 's', path.stem, '', path, ()) for path in paths]\n"
        "def wait(done, total, text):\n"
        "    if done == 6:\n"
        "        print('six', flush=True)\n"
        "        time.sleep(60)\n"
        "compare_samples({'set': samples}, wait)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout.readline() == b"six\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(find(samples)) == EXPECTED
    assert len(watched["read"]) == 14 - 6


def test_a_picture_that_can_t_be_read_costs_none_of_the_others(samples, watched, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = FileSample("bad", "s", "bad", "", tmp_path / "bad.png", ())
    with pytest.raises(InputError, match="bad"):
        find([*samples, bad])
    done = len(watched["read"])
    watched["read"].clear()
    find(samples)
    assert len(watched["read"]) <= 14 - (done - 3)  # two threads may have been ahead


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_file_counts_as_missing(samples, watched, cache, damage):
    first = find(samples[:13])
    sound = {path: path.read_bytes() for path in files_of(cache)}
    assert len(sound) == 3
    for path, data in sound.items():
        middle = len(data) // 2
        damaged = {
            "cut": data[:middle],
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "empty": b"",
        }
        path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
        watched["read"].clear()
        assert find(samples[:13]) == first
        if path.suffix == ".pack":
            assert len(watched["read"]) == 13
        assert names(find(samples)) == EXPECTED  # its original may be one of the damaged small pictures
        for other in files_of(cache):
            other.unlink()
        for other, whole in sound.items():
            other.write_bytes(whole)


def test_where_nothing_can_be_written_the_same_is_found(samples, tmp_path, monkeypatch):
    expected = find(samples)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LUNGSEG_CACHE", str(tmp_path / "file"))
    assert find(samples) == expected


def test_pictures_added_one_at_a_time_leave_few_files(samples, watched, cache):
    for count in range(1, 15):
        find(samples[:count])
    assert len(files_of(cache)) <= 2 * 9 + 1
    assert len(watched["read"]) == 14
    assert names(find(samples)) == EXPECTED


def test_pictures_that_were_only_hashed_are_read_before_they_are_compared(samples, watched):
    assert find(samples, pictures=False).pairs == []
    assert names(find(samples)) == EXPECTED
    assert len(watched["read"]) == 28
    watched["read"].clear()
    find(samples, pictures=False)
    assert watched["read"] == []


def test_comparing_is_stored_only_now_and_then(samples, cache, monkeypatch):
    written = []
    monkeypatch.setattr(pictures, "_BLOCK", 2)
    monkeypatch.setattr(compare, "store", lambda *_: written.append(time.monotonic()))
    find(samples)
    assert len(written) == 1
