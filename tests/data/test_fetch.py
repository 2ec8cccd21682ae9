"""Downloads from a server on the loopback address: whole, cut, changed and hostile."""

import hashlib
import io
import json
import stat
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from lungseg.data import fetch
from lungseg.data.fetch import ARCHIVES, RECORD, fetch_dataset, find_archive
from lungseg.data.loading import find_dataset
from lungseg.system.errors import InputError
from lungseg.system.lock import LOCK
from tests.data.datasets.layouts import make_montgomery
from tests.refusals import assert_refused

PATH = "/set.zip"


class Server(ThreadingHTTPServer):
    """Serves `body`; ends the connection after `cut` bytes of an answer; notes the ranges asked for."""

    body, cut, status = b"", None, 200

    def __init__(self):
        self.ranges = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}{PATH}"

    @property
    def tag(self):
        return f'"{hashlib.sha256(self.body).hexdigest()[:8]}"'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        start = int(asked[6:-1]) if asked and self.headers.get("If-Range") == server.tag else 0
        self.send_response(server.status if not start else 206)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(server.body[start:][: server.cut])

    def log_message(self, *_):
        pass


def pack(files, links=(), method=zipfile.ZIP_STORED):
    """A ZIP file of names and contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            mode = stat.S_IFLNK if name in links else stat.S_IFREG
            entry.external_attr = (mode | 0o644) << 16
            archive.writestr(entry, content, method)
    return packed.getvalue()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The archive of a tiny copy of Montgomery's set."""
    root = tmp_path_factory.mktemp("original")
    make_montgomery(root / "MontgomerySet", 2)
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    return pack(files | {"__MACOSX/MontgomerySet/._CXR_png": b"a Mac's"})


@pytest.fixture
def server(original, monkeypatch):
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        server.body = original
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def archive(server):
    return replace(ARCHIVES["montgomery"], address=server.address)


@pytest.fixture
def get(archive, tmp_path):
    """Fetches into a folder, and returns its moves."""

    def run(**changes):
        moves = []
        fetch_dataset(replace(archive, **changes), tmp_path, lambda *move: moves.append(move))
        return moves

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_a_whole_download_is_a_dataset(get, server, tmp_path, original):
    moves = get()
    assert len(find_dataset("montgomery", {}, tmp_path).samples()) == 2
    assert names(tmp_path) == ["MontgomerySet", RECORD]  # neither the archive nor what a Mac added
    sha256 = hashlib.sha256(original).hexdigest()
    assert json.loads((tmp_path / RECORD).read_text()) == {server.address: sha256}
    downloaded = [move for move in moves if move[2] != "unpacking"]
    assert downloaded[-1][:2] == (len(original), len(original))
    with pytest.raises(InputError, match="MontgomerySet is there already: remove it"):
        get()


def test_two_do_not_fetch_into_one_folder_at_once(get, tmp_path):
    holder = FileLock(tmp_path / LOCK, is_singleton=False)
    with holder, pytest.raises(InputError, match="is in use"):
        get()
    assert names(tmp_path) == []


def test_a_cut_download_goes_on(get, server, tmp_path, original):
    server.cut = 5500
    with pytest.raises(InputError, match=r"can't be downloaded \(.*\); 0\.0 MB are kept: run the same"):
        get()
    kept = (tmp_path / ".MontgomerySet.zip.part").read_bytes()
    assert 4000 <= len(kept) <= 5500
    assert kept == original[: len(kept)]
    assert not (tmp_path / "MontgomerySet").exists()
    server.cut = None
    get()
    assert server.ranges == [None, f"bytes={len(kept)}-"]
    assert len(find_dataset("montgomery", {}, tmp_path).samples()) == 2
    assert json.loads((tmp_path / RECORD).read_text())[server.address] == hashlib.sha256(original).hexdigest()
    assert names(tmp_path) == ["MontgomerySet", RECORD]


def test_a_file_that_changed_meanwhile_is_not_joined_with_the_old_part(get, server, tmp_path):
    server.cut = 5500
    with pytest.raises(InputError, match="can't be downloaded"):
        get()
    server.cut, server.body = None, pack({"MontgomerySet/new.txt": b"new" * 5000})
    get()
    assert names(tmp_path / "MontgomerySet") == ["new.txt"]


def test_a_changed_file_is_not_unpacked(get, server, tmp_path):
    get()
    (tmp_path / "MontgomerySet").rename(tmp_path / "old")
    server.body = pack({"MontgomerySet/other.txt": b"other"})
    with pytest.raises(InputError, match=r"has another sha256 than [0-9a-f]{64}: .* was not unpacked"):
        get()
    assert names(tmp_path) == [RECORD, "old"]


def test_a_known_hash_is_checked_at_the_first_download(get, tmp_path, original):
    with pytest.raises(InputError, match="has another sha256 than 00"):
        get(sha256="0" * 64)
    assert names(tmp_path) == []
    get(sha256=hashlib.sha256(original).hexdigest())
    assert names(tmp_path) == ["MontgomerySet"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.txt", "would be written outside its folder"),
        ("MontgomerySet/../../outside.txt", "would be written outside its folder"),
        ("MontgomerySet\\..\\..\\outside.txt", "would be written outside its folder"),
        ("/outside.txt", "would be written outside its folder"),
        ("C:/outside.txt", "would be written outside its folder"),
        ("MontgomerySet/link", "is a link"),
    ],
)
def test_a_hostile_archive_writes_nothing(get, server, tmp_path, name, reason):
    server.body = pack({"MontgomerySet/a.txt": b"a", name: b"/etc"}, links=["MontgomerySet/link"])
    with pytest.raises(InputError, match=f"can't be used, for its entry .* {reason}: get the set by hand"):
        get()
    assert names(tmp_path) == []
    assert not (tmp_path.parent / "outside.txt").exists()


def damage(method):
    """An archive whose compressed data were overwritten."""
    whole = bytearray(pack({"MontgomerySet/a": bytes(range(256)) * 8}, method=method))
    at = whole.index(b"MontgomerySet/a") + len(b"MontgomerySet/a")
    whole[at + 12 : at + 40] = b"\xff" * 28
    return bytes(whole)


def test_files_that_are_no_archive_of_the_set(get, server, tmp_path, original):
    for body, reason in (
        (b"<html>maintenance</html>", "File is not a zip file"),
        (pack({"other/a.txt": b"a"}), "it has no folder MontgomerySet"),
        (original.replace(b"normal", b"abnorm", 1), "Bad CRC-32"),
        (damage(zipfile.ZIP_LZMA), ""),
        (damage(zipfile.ZIP_BZIP2), "Invalid data stream"),
        (pack({"MontgomerySet/" + 300 * "a": b"a"}), ".*too long"),
        (pack({"MontgomerySet": b"a"}), "its MontgomerySet is no folder"),
        (pack({"MontgomerySet/a": b"a", "MontgomerySet/a/b": b"b"}), ".*"),
    ):
        server.body = body
        with pytest.raises(InputError, match=f"can't be used, for {reason}"):
            get()
        assert names(tmp_path) == []


def test_servers_and_places_that_fail(get, server, archive, tmp_path):
    server.status = 503
    with pytest.raises(InputError, match=r"can't be downloaded \(HTTPError 503\): run"):
        get()
    with pytest.raises(InputError, match=r"can't be downloaded \(ConnectionError\): run"):
        get(address="http://127.0.0.1:1/set.zip")
    with pytest.raises(InputError, match="LUNGSEG_DATA isn't set"):
        fetch_dataset(archive, None, print)
    (tmp_path / RECORD).write_text("[")
    with pytest.raises(InputError, match=rf"{RECORD} can't be read or is damaged"):
        get()


def test_the_command_names_terms_and_citation(lungseg, monkeypatch, archive, tmp_path, original):
    monkeypatch.setitem(ARCHIVES, "montgomery", archive)
    done = lungseg("data", "fetch", "montgomery", LUNGSEG_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for words in (
        "terms: public, ",
        "cite:  Jaeger et al.",
        hashlib.sha256(original).hexdigest(),
        "next: check it",
    ):
        assert words in done.stdout
    assert_refused(lungseg("data", "fetch", "jsrt", LUNGSEG_DATA=str(tmp_path)), "jsrt can't be fetched")


def test_others_are_told_how():
    for name, what in (
        ("jsrt", "SCR database"),
        ("cxr704", "Masks and Labels"),
        ("covid19-radiography", "Kaggle"),
    ):
        with pytest.raises(InputError, match=f"{name} can't be fetched: get .*{what}.* LUNGSEG_DATA"):
            find_archive(name)
    with pytest.raises(
        InputError, match="phantom has nothing to fetch: these can be fetched: montgomery, shen"
    ):
        find_archive("phantom")
    with pytest.raises(
        InputError, match=r"unknown dataset 'shenzen': did you mean 'shenzhen'\? Fetch one of"
    ):
        find_archive("shenzen")
