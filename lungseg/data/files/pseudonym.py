"""Give a person's identifier a name that nobody can turn back."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from contextlib import suppress
from functools import cache
from pathlib import Path

from lungseg.system.errors import InputError

_BYTES = 32


def name_patient(identifier: str) -> str:
    """Return a name for a patient's identifier, such as "patient-3f9c0a4b7d21": a salted hash (HMAC-SHA256).

    The salt is a secret of this user, made at the first call. With another salt the names are others. Raises
    InputError if it can't be stored.
    """
    known = unicodedata.normalize("NFC", identifier.strip())
    digest = hmac.new(_read_salt(find_salt()), known.encode(errors="replace"), hashlib.sha256)
    return f"patient-{digest.hexdigest()[:12]}"


def find_salt() -> Path:
    """Return the file of the salt: `lungseg/patient-salt` in XDG_CONFIG_HOME or ~/.config.

    Raises InputError if there is no home directory.
    """
    named = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(named) if named else Path.home() / ".config") / "lungseg" / "patient-salt"
    except RuntimeError:
        raise InputError(
            "no home directory holds the salt of patients' names: set XDG_CONFIG_HOME to a folder of yours"
        ) from None


@cache
def _read_salt(path: Path) -> bytes:
    try:
        if not path.exists():
            _write_salt(path)
        salt = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the salt of patients' names {path} can't be stored ({error.strerror}): set XDG_CONFIG_HOME to "
            "a folder that can be written, or name the patients by patient_pattern or a table"
        ) from error
    if len(salt) != _BYTES:
        raise InputError(f"the salt of patients' names {path} is damaged: copy it again, or remove it")
    return salt


def _write_salt(path: Path) -> None:
    """Write a new salt, unless another process has done so meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename it never replaces a file
    finally:
        temporary.unlink()
