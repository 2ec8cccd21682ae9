"""Files and records that are checked before they are used; one writer of a folder; signals that wait."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from lungseg.system.errors import InputError
from lungseg.system.files import remove, write_atomically
from lungseg.system.interrupts import Interrupted, delay_interrupts, raise_on_signals
from lungseg.system.lock import hold_folder, require_free
from lungseg.system.stored import (
    DamagedError,
    append_digest,
    describe_files,
    find_damage,
    has_digest,
    read_record,
    read_sealed,
    seal_folder,
    write_record,
)


def test_a_record_comes_back_and_any_change_is_seen(tmp_path):
    path = tmp_path / "record.json"
    values = {"key": "ab", "seconds": 0.1, "list": [1, None, "ü"], "nested": {"b": 1, "a": True}}
    assert read_record(path) is None
    write_record(path, values)
    assert read_record(path) == values
    text = path.read_text()
    for harmed in (
        *(text[:end] for end in range(0, len(text) - 1, 7)),
        text.replace("0.1", "0.2"),
        text.replace('"ab"', "1"),
        json.dumps(values),
        json.dumps([values]),
        "null",
        "[" * 100_000,
    ):
        path.write_text(harmed)
        with pytest.raises(DamagedError, match=r"record\.json is damaged"):
            read_record(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedError, match=r"record\.json is damaged"):
        read_record(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedError, match=r"record\.json can't be read"):
        read_record(path)


def test_files_are_known_by_length_and_hash(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "sub/b.txt").write_text("")
    found = describe_files(tmp_path)
    assert found == {
        "a.txt": {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        "sub/b.txt": {
            "bytes": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
    }
    assert find_damage(tmp_path, found) is None
    (tmp_path / "more.txt").write_text("others' files don't matter")
    assert find_damage(tmp_path, found) is None
    os.utime(tmp_path / "a.txt", ns=(0, 0))
    assert find_damage(tmp_path, found) is None
    (tmp_path / "a.txt").write_text("abd")
    assert "a.txt has another content" in find_damage(tmp_path, found)
    (tmp_path / "a.txt").write_text("ab")
    assert "a.txt has 2 bytes instead of 3" in find_damage(tmp_path, found)
    (tmp_path / "a.txt").unlink()
    assert "a.txt is missing" in find_damage(tmp_path, found)


def test_a_sealed_folder_is_whole_or_made_again(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"model")
    assert read_sealed(tmp_path) is None
    seal_folder(tmp_path, {"rows": 3})
    assert read_sealed(tmp_path) == {"rows": 3}
    (tmp_path / "model.bin").write_bytes(b"modem")
    with pytest.warns(UserWarning, match=r"model\.bin has another content.* is made again"):
        assert read_sealed(tmp_path) is None


def test_a_digest_behind_the_data_shows_any_changed_byte(tmp_path):
    path, data = tmp_path / "data.bin", append_digest(b"data")
    assert len(data) == 4 + 32
    path.write_bytes(data)
    assert has_digest(path)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not has_digest(path)
        path.write_bytes(data[:place])
        assert not has_digest(path)
    with pytest.raises(FileNotFoundError):
        has_digest(tmp_path / "none")


def test_two_processes_may_write_one_file(tmp_path):
    path, texts = tmp_path / "file.txt", [str(number) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    for name in ("link", "none"):
        remove(tmp_path / name)
    assert (tmp_path / "theirs/file").exists()
    remove(tmp_path / "theirs")
    assert not list(tmp_path.iterdir())


def test_a_folder_has_one_writer_and_says_who(tmp_path):
    folder = tmp_path / "out"
    require_free(folder)
    with hold_folder(folder):
        held = json.loads((folder / ".lock.json").read_text())
        assert held["process"] == os.getpid()
        with pytest.raises(InputError, match=rf"out is in use: process {os.getpid()} on .*, since \d{{4}}-"):
            require_free(folder)
        code = "import sys; from pathlib import Path; from lungseg.system.lock import hold_folder\n"
        code += "with hold_folder(Path(sys.argv[1])): pass"
        second = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
        assert "is in use: process" in second.stderr
    require_free(folder)
    with hold_folder(folder):
        pass


def test_where_a_folder_cannot_be_made_it_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write"), hold_folder(tmp_path / "file" / "out"):
        pass


@pytest.fixture
def signals():
    """The command line's handlers, and afterwards those that were there."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    raise_on_signals()
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def raise_within(*numbers, error=None):
    """Raise signals where they wait; return what was done, which the block's end doesn't change."""
    done = []

    def work():
        with delay_interrupts() as is_interrupted:
            for number in numbers:
                done.append(is_interrupted())
                signal.raise_signal(number)
            done.append(is_interrupted())
            if error:
                raise error

    return work, done


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_block(signals, number, code):
    work, done = raise_within(number)
    with pytest.raises(Interrupted) as stopped:
        work()
    assert done == [False, True]
    assert stopped.value.exit_code == code
    with pytest.raises(Interrupted):
        signal.raise_signal(number)


def test_a_second_signal_does_not_wait(signals):
    work, done = raise_within(signal.SIGINT, signal.SIGINT)
    with pytest.raises(Interrupted):
        work()
    assert done == [False, True]


def test_a_signal_is_not_lost_where_the_block_raises(signals):
    work, _ = raise_within(signal.SIGTERM, error=ValueError())
    with pytest.raises(Interrupted):
        work()


def test_without_handlers_of_ours_python_does_what_it_does(signals):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), delay_interrupts():
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_nothing_waits():
    found = []

    def work():
        with delay_interrupts() as is_interrupted:
            found.append(is_interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_an_ignored_signal_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    others = signal.getsignal(signal.SIGTERM)
    try:
        raise_on_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with delay_interrupts() as is_interrupted:
            signal.raise_signal(signal.SIGINT)
            assert not is_interrupted()
    finally:
        signal.signal(signal.SIGINT, former)
        signal.signal(signal.SIGTERM, others)
