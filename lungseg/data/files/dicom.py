"""Read what a DICOM file says of its picture, and refuse what is no frontal radiograph by its tags.

Nothing that a file says of a person is part of a message.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.data.files.raster import require_picture_size
from lungseg.system.errors import InputError

if TYPE_CHECKING:
    from pydicom import FileDataset

SUFFIXES = (".dcm", ".dicom")

_MAGIC_AT, _MAGIC = 128, b"DICM"
# Without the header a file begins with an element of group 2 or 8, little-endian.
_HEADERLESS = re.compile(rb"[\x02\x08]\x00[\x00-\x20]\x00(?:[A-Z]{2}|..\x00\x00)", re.DOTALL)
_DIRECTORY = "1.2.840.10008.1.3.10"
_RADIOGRAPHS = ("CR", "DX", "DR", "RG", "OT", "SC", "")  # OT and SC: scanned films and captured screens
_MODALITIES = {
    "CT": "a CT slice",
    "MR": "an MR slice",
    "PT": "a PET slice",
    "NM": "a scintigram",
    "US": "an ultrasound picture",
    "MG": "a mammogram",
    "XA": "an angiogram",
    "RF": "a fluoroscopy",
    "SEG": "a segmentation",
    "SR": "a report",
    "PR": "a presentation state",
}
_LATERAL = re.compile(r"\bLAT(ERAL)?\b", re.IGNORECASE)
_DECUBITUS = re.compile(r"DECUB", re.IGNORECASE)  # taken from the front, of somebody who lies on the side
_LATERAL_VIEWS = ("LL", "RL")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SPACING_RANGE = 0.01, 20.0  # mm
# Terms of DICOM PS3.16, annex L. Other words may mean the chest in any language.
_OTHER_PARTS = re.compile(
    "ABDOMEN|ANKLE|ARM|BREAST|CALCANEUS|CLAVICLE|COCCYX|CSPINE|ELBOW|FEMUR|FINGER|FOOT|FOREARM|HAND|HEAD|HIP|"
    "HUMERUS|JAW|KNEE|LEG|LSPINE|MANDIBLE|NECK|NOSE|ORBIT|PATELLA|PELVIS|SACRUM|SCAPULA|SHOULDER|SKULL|"
    "SSPINE|TEETH|THIGH|THUMB|TIBIA|TOE|WRIST|ZYGOMA"
)


@dataclass(frozen=True)
class DicomHeader:
    """What a file says before its pixels.

    Attributes:
        size: (height, width).
        patient_id: the person's identifier, "" if none is given; never to be printed or stored.
        body_part: a part of the body that isn't the chest, "" if none is named.
    """

    size: tuple[int, int]
    patient_id: str = field(repr=False)
    body_part: str
    dataset: FileDataset = field(repr=False)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, or is meant to be, by its first bytes or its ending."""
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError:
        return False
    headerless = path.suffix.lower() in SUFFIXES or _HEADERLESS.match(start)
    return start[_MAGIC_AT:] == _MAGIC or (bool(start) and bool(headerless))


def read_header(path: Path) -> DicomHeader:
    """Read a file's tags, without its pixels.

    Raises InputError if pydicom isn't installed, the file can't be read, has no header, is encrypted, is no
    radiograph, is a lateral view, has several frames, or is too small or too large, as in `read_raster`.
    """
    dataset = read_tags(path, with_pixels=False)
    _require_radiograph(dataset, path)
    frames = _read_tag(path, lambda: int(dataset.get("NumberOfFrames") or 1))
    if frames > 1:
        raise InputError(f"{path} holds {frames} frames: save the one to be used as a file of its own")
    if is_lateral(dataset):
        raise InputError(
            f"{path} is a lateral view by its tags, and lungs are found in frontal ones: remove it"
        )
    size = _read_tag(path, lambda: (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)))
    _require_size(size, dataset, path)
    body_part = str(dataset.get("BodyPartExamined") or "").strip().upper()
    return DicomHeader(
        size,
        patient_id=str(dataset.get("PatientID") or "").strip(),
        body_part=body_part if _OTHER_PARTS.fullmatch(body_part) else "",
        dataset=dataset,
    )


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Return the (vertical, horizontal) distance of pixels in mm, None if the file doesn't say.

    It is PixelSpacing, else ImagerPixelSpacing (at the detector, divided by the magnification if that is
    given), else NominalScannedPixelSpacing. Raises InputError as `read_header`, and for a spacing that isn't
    from 0.01 to 20 mm.
    """
    dataset = read_header(path).dataset
    for tag in _SPACINGS:
        values = _read_tag(path, lambda tag=tag: [float(value) for value in _as_list(dataset.get(tag))])
        if not values:
            continue
        if tag == "ImagerPixelSpacing":
            factor = _read_tag(
                path, lambda: float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
            )
            values = [value / factor if factor > 0 else 0.0 for value in values]
        low, high = _SPACING_RANGE
        if len(values) != 2 or not all(low <= value <= high for value in values):
            shown = " x ".join(f"{value:g}" for value in values)
            raise InputError(
                f"{path} has a {tag} of {shown} mm, which can't be true: correct the tag, or give spacing_mm"
            )
        return values[0], values[1]
    return None


def read_tags(path: Path, with_pixels: bool) -> FileDataset:
    """Read a file by pydicom. Raises InputError if that can't be."""
    pydicom = _load_pydicom(path)
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
        if start[_MAGIC_AT:] != _MAGIC:
            raise InputError(
                f"{path} has no DICOM header (DICM at byte {_MAGIC_AT}), or is encrypted: export it again "
                "as a plain DICOM file"
            )
        return pydicom.dcmread(path, stop_before_pixels=not with_pixels)
    except OSError as error:
        if isinstance(error, EOFError) or error.strerror is None:
            raise _say_damaged(path) from None
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    except (InputError, MemoryError):
        raise
    except Exception:  # pydicom raises a dozen types for damaged files, with texts that may hold names
        raise _say_damaged(path) from None


def is_lateral(dataset: FileDataset) -> bool:
    """Return whether a picture was taken from the side, by its tags."""
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    codes = [str(code.get("CodeMeaning") or "") for code in dataset.get("ViewCodeSequence") or []]
    words = [view, *codes]
    if view in _LATERAL_VIEWS or any(_LATERAL.search(each) and not _DECUBITUS.search(each) for each in words):
        return True
    # Towards the right of the picture lies the front or the back, and not a side of the body.
    orientation = [str(each).upper() for each in _as_list(dataset.get("PatientOrientation"))]
    return bool(orientation) and orientation[0][:1] in ("A", "P")


def explain_encryption(dataset: FileDataset, path: Path) -> InputError:
    """Return the error for a file without a picture: it is encrypted, cut, or of another kind."""
    if dataset.get("EncryptedAttributesSequence"):
        return InputError(f"{path} is encrypted and shows no picture: decrypt it first")
    return InputError(f"{path} holds no pixels, as if it were truncated: copy it again, or remove it")


def _require_radiograph(dataset: FileDataset, path: Path) -> None:
    if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        raise InputError(f"{path} is a list of DICOM files and no picture: name the pictures or their folder")
    modality = str(dataset.get("Modality") or "").strip().upper()
    if modality not in _RADIOGRAPHS:
        shown = modality if re.fullmatch(r"[A-Z0-9_]{1,16}", modality) else "of another kind"
        what = _MODALITIES.get(modality, f"of modality {shown}")
        raise InputError(f"{path} is {what} by its tags, and no radiograph: remove it")


def _require_size(size: tuple[int, int], dataset: FileDataset, path: Path) -> None:
    height, width = size
    if height == 0 or width == 0:
        raise explain_encryption(dataset, path)
    require_picture_size(path, width, height)


def _load_pydicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{path} is a DICOM file, which needs a further package: pip install 'lungseg[dicom]'"
        ) from error
    # What pydicom notices in a file it prints with the value, which may be a person's name.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom


def _read_tag(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception:  # as in `read_tags`
        raise _say_damaged(path) from None


def _say_damaged(path: Path) -> InputError:
    return InputError(f"{path} is a truncated or damaged DICOM file: copy it again or remove it")


def _as_list(value: Any) -> list[Any]:
    """The values of a tag: none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)
