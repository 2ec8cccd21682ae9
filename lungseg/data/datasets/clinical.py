"""The names and the clinical readings of the National Library of Medicine's two sets of chest X-rays."""

from __future__ import annotations

import re
from pathlib import Path

from lungseg.system.errors import InputError

LABELS = {"0": "normal", "1": "tuberculosis"}

_NAME = re.compile(r"((?:MCUCXR|CHNCXR)_\d+)_([01])")
# What a file says of the person: "Patient's Age: 027Y" (Montgomery), "male 45yrs" (Shenzhen).
_PERSON = re.compile(r"^\s*(patient's .*|(fe)?mal\w*\W*\d+\s*\w*)", re.IGNORECASE | re.MULTILINE)


def parse_name(stem: str, prefix: str) -> tuple[str, str] | None:
    """Return (patient, label) of a name such as `MCUCXR_0001_0`, or None if it isn't of that form.

    The patient is the prefix and the number, so that two sets have no patient in common.
    """
    found = _NAME.fullmatch(stem)
    return (found[1], LABELS[found[2]]) if found and stem.startswith(prefix) else None


def read_finding(path: Path) -> str:
    """Read the finding of a file of `ClinicalReadings`, of either set, on one line and without the person.

    Raises InputError if the file can't be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    return " ".join(_PERSON.sub("", text).split()).strip(" ,.")


def compare_readings(folder: Path, labels: dict[str, str]) -> list[str]:
    """Return a note on images whose name says another thing than their reading; [] without such images.

    Args:
        folder: `ClinicalReadings`, which may be missing.
        labels: the label of each image by its id, from its name.
    """
    files = {name: folder / f"{name}.txt" for name in labels}
    findings = {name: read_finding(path) for name, path in files.items() if path.is_file()}
    wrong = [
        name
        for name, finding in findings.items()
        if finding and (finding.lower() == "normal") != (labels[name] == "normal")
    ]
    if not wrong:
        return []
    first = wrong[0]
    count = "1 image is" if len(wrong) == 1 else f"{len(wrong)} images are"
    return [
        f"{count} read otherwise than named, such as {first} ({labels[first]}, read as '{findings[first]}'): "
        "the label is the name's"
    ]
