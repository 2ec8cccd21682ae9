"""Download the public datasets that may be had without an account, and check what came."""

from __future__ import annotations

import errno
import json
import logging
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests

from lungseg.data.datasets import covid19_radiography, jsrt, shenzhen
from lungseg.data.datasets.registry import DATASETS
from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error, remove, write_json
from lungseg.system.lock import hold_folder
from lungseg.system.plugins import suggest

Progress = Callable[[int, int, str], None]

RECORD = "fetched.json"  # in the folder of datasets: the sha256 of each archive by its address
CHUNK = 1 << 20  # bytes
TIMEOUT_S = 60
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_OF_ENTRIES = (RuntimeError, EOFError, ValueError)  # of a name or a method that it can't have

_CITE = "Jaeger et al., Quant Imaging Med Surg 4(6), 2014, pages 475 to 477"
_TERMS = (
    "public, for research and teaching; name the National Library of Medicine as the source, and cite. The "
    "README in the set has the terms"
)


@dataclass(frozen=True)
class Archive:
    """A ZIP file on a public server, whose only folder is a dataset."""

    address: str
    folder: str  # its folder, which is put into the folder of datasets
    terms: str
    citation: str
    next: str  # what to do then
    sha256: str | None = None  # where it is known


ARCHIVES = {
    "montgomery": Archive(
        "https://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip",
        "MontgomerySet",
        _TERMS,
        _CITE,
        "check it with `lungseg data check montgomery`",
    ),
    "shenzhen": Archive(
        "https://openi.nlm.nih.gov/imgs/collections/ChinaSet_AllFiles.zip",
        "ChinaSet_AllFiles",
        _TERMS,
        _CITE,
        shenzhen.HOW_TO_GET_MASKS,
    ),
}
BY_HAND = {
    "covid19-radiography": covid19_radiography.HOW_TO_GET_IT,
    "cxr704": "get the public set 'Chest Xray Masks and Labels', and unpack it in the folder that "
    "LUNGSEG_DATA names",
    "jsrt": jsrt.HOW_TO_GET_IT,
}


def find_archive(name: str) -> Archive:
    """Return the archive of a dataset.

    Raises InputError if there is none: it says how to get the dataset by hand, or which can be fetched.
    """
    if name in ARCHIVES:
        return ARCHIVES[name]
    if name in BY_HAND:
        raise InputError(f"dataset {name} can't be fetched: {BY_HAND[name]}")
    able = ", ".join(sorted(ARCHIVES))
    if name in DATASETS:
        raise InputError(f"dataset {name} has nothing to fetch: these can be fetched: {able}")
    raise InputError(
        f"unknown dataset {name!r}{suggest(name, [*ARCHIVES, *BY_HAND], ': fetch')} one of {able}"
    )


def fetch_dataset(archive: Archive, root: Path | None, progress: Progress) -> tuple[Path, str]:
    """Download an archive, check it, and unpack it below the folder of datasets.

    What was downloaded before an interruption is not downloaded again. The sha256 is checked where it is
    known; else it is recorded in `RECORD` at the first download, and checked at every further one.

    Args:
        archive: of `find_archive`.
        root: the folder that LUNGSEG_DATA names, or None.
        progress: called with (done, total, text); the numbers are bytes.

    Returns:
        The folder of the dataset, and the archive's sha256, hex.

    Raises:
        InputError: no folder is named, another process writes there, the dataset is there already, the server
            can't be reached, the download is cut or changed, or the archive is damaged or would write
            elsewhere.
    """
    if root is None:
        raise InputError("LUNGSEG_DATA isn't set: set it to the folder that datasets shall be put into")
    target = root / archive.folder
    if target.exists():
        raise InputError(f"{target} is there already: remove it to fetch it again")
    known = _read_record(root / RECORD)
    expected = archive.sha256 or known.get(archive.address)
    with hold_folder(root):
        try:
            file = _download(archive, root, expected, progress)
            found = pooch.file_hash(str(file))
            _unpack(file, archive, target, progress)
            if expected is None:
                write_json(root / RECORD, {**known, archive.address: found})
            file.unlink()
        except OSError as error:
            raise explain_write_error(root, error) from error
    return target, found


def _read_record(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_bytes())
        if isinstance(record, dict) and all(isinstance(each, str) for each in record.values()):
            return record
    except (OSError, ValueError):
        pass
    raise InputError(f"{path} can't be read or is damaged, so no download can be checked: remove it")


def _download(archive: Archive, root: Path, expected: str | None, progress: Progress) -> Path:
    """The whole archive, whose sha256 is the expected one."""
    part = root / f".{archive.folder}.zip.part"

    def download(address: str, output: str, _: object) -> None:
        _resume(address, part, progress)
        os.replace(part, output)

    pooch.get_logger().setLevel(logging.WARNING)  # it would print hashes and paths
    try:
        return Path(
            pooch.retrieve(archive.address, expected, f".{archive.folder}.zip", root, downloader=download)
        )
    except requests.RequestException as error:
        kept = f"; {_size(part)} are kept" if _size(part) else ""
        status = f" {error.response.status_code}" if error.response is not None else ""
        raise InputError(
            f"{archive.address} can't be downloaded ({type(error).__name__}{status}){kept}: run the same "
            "command to go on, or download it by hand and unpack it there"
        ) from error
    except ValueError as error:  # pooch's only sign of another hash
        raise InputError(
            f"{archive.address} has another sha256 than {expected}: the file on the server or the download "
            "has changed, and was not unpacked; if the new one is right, remove its line in "
            f"{RECORD}"
        ) from error


def _resume(address: str, part: Path, progress: Progress) -> None:
    """Download what is missing of a file. Raises RequestException if the connection ends or is refused."""
    tag = part.with_name(f"{part.name}.etag")  # which version of the server's file the part is of
    done = part.stat().st_size if part.exists() and tag.exists() else 0
    # Without If-Range a changed file would go on where the old one ended.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text("utf-8")}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if (
            done
            and not goes_on
            and answer.status_code
            in (requests.codes.partial_content, requests.codes.requested_range_not_satisfiable)
        ):
            part.unlink()
            raise requests.ConnectionError("the server sent another part")
        answer.raise_for_status()
        if not goes_on:
            done = 0
            tag.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            if version := answer.headers.get("ETag") or answer.headers.get("Last-Modified"):
                tag.write_text(version, "utf-8")
        length = answer.headers.get("Content-Length", "")
        total = done + (int(length) if length.isdigit() else 0)
        with part.open("ab") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, max(total, done), f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
    if done < total:
        raise requests.ConnectionError("the connection ended early")
    tag.unlink(missing_ok=True)


def _size(part: Path) -> str:
    """The size of what is there of a download, or "" if that is nothing."""
    count = part.stat().st_size if part.exists() else 0
    return f"{count / 1e6:.1f} MB" if count else ""


class _Refused(Exception):
    """An archive is not to be unpacked; the text says why."""


def _unpack(file: Path, archive: Archive, target: Path, progress: Progress) -> None:
    """Unpack an archive's folder completely or not at all, without what file managers put beside it."""
    work = target.with_name(f".{target.name}.unpacked")
    remove(work)
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
            for entry in entries:
                _require_harmless(entry)
            wanted = [each for each in entries if PurePosixPath(each.filename).parts[:1] == (archive.folder,)]
            if not wanted:
                raise _Refused(f"it has no folder {archive.folder}")
            needed, free = sum(each.file_size for each in wanted), shutil.disk_usage(target.parent).free
            if needed > free:
                raise InputError(
                    f"{file} unpacks to {needed / 1e9:.1f} GB and {target.parent} has {free / 1e9:.1f} GB "
                    "left: free some space, then run the same command"
                )
            for number, entry in enumerate(wanted, start=1):
                opened.extract(entry, work)  # which checks its CRC
                progress(number, len(wanted), "unpacking")
        if not (work / archive.folder).is_dir():
            raise _Refused(f"its {archive.folder} is no folder")
        os.replace(work / archive.folder, target)
    except (OSError, _Refused, zipfile.BadZipFile, zlib.error, lzma.LZMAError, *_OF_ENTRIES) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        file.unlink()  # else the next run would take it again
        raise InputError(f"{archive.address} can't be used, for {error}: get the set by hand") from error
    finally:
        remove(work)


def _require_harmless(entry: zipfile.ZipInfo) -> None:
    """Raise _Refused if an entry would be written outside its folder, or is a link."""
    name = entry.orig_filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise _Refused(f"its entry {name!r} would be written outside its folder")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _Refused(f"its entry {name!r} is a link")
