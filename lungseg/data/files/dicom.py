"""Read what a DICOM file says of its picture, and refuse what is no frontal radiograph by its tags.

Nothing that a file says of a person is part of a message.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.data.files.raster import has_known_start, require_picture_size
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
_CLASS = "1.2.840.10008.5.1.4.1.1."  # so the identifiers of storage classes begin
_MODALITY_OF_CLASS = {
    **{"2": "CT", "2.1": "CT", "4": "MR", "4.1": "MR", "128": "PT", "130": "PT", "20": "NM", "3.1": "US"},
    **{"6.1": "US", "1.2": "MG", "1.2.1": "MG", "12.1": "XA", "12.2": "RF", "66.4": "SEG"},
}
_LATERAL = re.compile(r"\b[LR]?LAT(ERAL)?\b", re.IGNORECASE)
_DECUBITUS = re.compile(r"DECUB", re.IGNORECASE)  # taken from the front, of somebody who lies on the side
_LATERAL_VIEWS = ("LL", "RL")
_OBLIQUE_VIEWS = ("RAO", "LAO", "RPO", "LPO", "RLO", "LLO")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SPACING_RANGE = 0.01, 20.0  # mm
_NEEDED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_MOST_BITS = 16
# Terms of DICOM PS3.16, annex L. Other words may mean the chest in any language.
_OTHER_PARTS = re.compile(
    "ABDOMEN|ABDOMENPELVIS|ANKLE|ARM|BREAST|CALCANEUS|CLAVICLE|COCCYX|CSPINE|ELBOW|EXTREMITY|FEMUR|FINGER|"
    "FOOT|FOREARM|HAND|HEAD|HIP|HUMERUS|JAW|KNEE|LEG|LOWEXTM|LSPINE|MANDIBLE|NECK|NOSE|ORBIT|PATELLA|PELVIS|"
    "SACRUM|SCAPULA|SHOULDER|SKULL|SPINE|SSPINE|TEETH|THIGH|THUMB|TIBIA|TOE|UPEXTM|WRIST|ZYGOMA"
)


@dataclass(frozen=True)
class DicomHeader:
    """What a file says of its picture.

    Attributes:
        size: (height, width).
        patient_id: the person's identifier, "" if none is given; never to be printed or stored.
        spacing: the first tag of `_SPACINGS` that is there, and its numbers in mm; None without one.
        mirrored: the patient's right side is at the right of the picture.
        cautions: what somebody should look at, such as "is of the hand by its tag BodyPartExamined".
        photometric: PhotometricInterpretation.
        bits: BitsStored.
        slope: RescaleSlope, 1 without one.
        window: centre and width of the first window, None without one.
        function: VOILUTFunction.
        padding: the smallest and the largest value of padding, None without one.
    """

    size: tuple[int, int]
    patient_id: str = field(repr=False)
    spacing: tuple[str, tuple[float, ...]] | None
    mirrored: bool
    cautions: tuple[str, ...]
    photometric: str
    bits: int
    slope: float
    window: tuple[float, float] | None
    function: str
    padding: tuple[int, int] | None


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, or is meant to be, by its first bytes or its ending."""
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError:
        return False
    if start[_MAGIC_AT:] == _MAGIC:
        return True
    meant = path.suffix.lower() in SUFFIXES or _HEADERLESS.match(start)
    return bool(start) and bool(meant) and not has_known_start(start)


def read_header(path: Path) -> DicomHeader:
    """Read a file's tags, without its pixels.

    Raises InputError if pydicom isn't installed, the file can't be read, has no header, is encrypted, is no
    radiograph, is a lateral view, has several frames or over 16 bits, lacks a tag, or is too small or too
    large, as in `read_raster`.
    """
    return make_header(read_tags(path, with_pixels=False), path)


def make_header(dataset: FileDataset, path: Path) -> DicomHeader:
    """Return what a file that was read says. Raises InputError as `read_header`."""
    try:  # pydicom reads a tag when it is asked for, and raises a dozen types, with texts that hold names
        _require_radiograph(dataset, path)
        size = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        _require_picture(dataset, size, path)
        return _make_header(dataset, size)
    except (InputError, MemoryError):
        raise
    except Exception:
        raise say_damaged(path) from None


def find_spacing(header: DicomHeader, path: Path) -> tuple[float, float] | None:
    """Return the (vertical, horizontal) distance of pixels in mm, None if the file doesn't say.

    It is PixelSpacing, else ImagerPixelSpacing (at the detector, divided by the magnification if that is
    given), else NominalScannedPixelSpacing. Raises InputError if it isn't from 0.01 to 20 mm.
    """
    if header.spacing is None:
        return None
    tag, values = header.spacing
    low, high = _SPACING_RANGE
    if len(values) != 2 or not all(low <= value <= high for value in values):
        shown = " x ".join(f"{value:g}" for value in values)
        raise InputError(
            f"{path} has a {tag} of {shown} mm, which can't be true: correct the tag, or give spacing_mm"
        )
    return values[0], values[1]


def read_tags(path: Path, with_pixels: bool) -> FileDataset:
    """Read a file by pydicom. Raises InputError if that can't be."""
    pydicom = _load_pydicom(path)
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
    if start[_MAGIC_AT:] != _MAGIC:
        raise InputError(
            f"{path} has no DICOM header (DICM at byte {_MAGIC_AT}), or is encrypted: export it again as a "
            "plain DICOM file"
        )
    try:
        return pydicom.dcmread(path, stop_before_pixels=not with_pixels)
    except MemoryError:
        raise
    except Exception:  # as in `make_header`
        raise say_damaged(path) from None


def explain_missing_pixels(dataset: FileDataset, path: Path) -> InputError:
    """Return the error for a file without a picture: it is encrypted, cut, or of another kind."""
    if "EncryptedAttributesSequence" in dataset:
        return InputError(f"{path} is encrypted and shows no picture: decrypt it first")
    return InputError(f"{path} holds no pixels, as if it were truncated: copy it again, or remove it")


def say_damaged(path: Path) -> InputError:
    """Return the error for a file that can't be decoded."""
    return InputError(f"{path} is a truncated or damaged DICOM file: copy it again or remove it")


def _require_radiograph(dataset: FileDataset, path: Path) -> None:
    if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        raise InputError(f"{path} is a list of DICOM files and no picture: name the pictures or their folder")
    modality = _read_text(dataset, "Modality")
    by_class = _MODALITY_OF_CLASS.get(str(dataset.get("SOPClassUID") or "").removeprefix(_CLASS))
    if by_class is not None and modality in _RADIOGRAPHS:
        modality = by_class
    if modality not in _RADIOGRAPHS:
        shown = modality if re.fullmatch(r"[A-Z0-9_]{1,16}", modality) else "of another kind"
        what = _MODALITIES.get(modality, f"of modality {shown}")
        raise InputError(f"{path} is {what} by its tags, and no radiograph: remove it")


def _require_picture(dataset: FileDataset, size: tuple[int, int], path: Path) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InputError(f"{path} holds {frames} frames: save the one to be used as a file of its own")
    if _is_lateral(dataset):
        raise InputError(
            f"{path} is a lateral view by its tags, and lungs are found in frontal ones: remove it"
        )
    if 0 in size:
        raise explain_missing_pixels(dataset, path)
    require_picture_size(path, size[1], size[0])
    for tag in _NEEDED:
        if dataset.get(tag) in (None, ""):
            raise InputError(f"{path} lacks the tag {tag}: export it again")
    bits = int(dataset.BitsStored)
    if bits > _MOST_BITS or int(dataset.get("HighBit") or bits - 1) != bits - 1:
        raise InputError(
            f"{path} has {bits} bits up to bit {dataset.get('HighBit')}, and at most {_MOST_BITS} from bit 0 "
            "on are read: export it again"
        )


def _is_lateral(dataset: FileDataset) -> bool:
    """Whether a picture was taken from the side, by its tags."""
    view = _read_text(dataset, "ViewPosition")
    codes = [str(code.get("CodeMeaning") or "") for code in dataset.get("ViewCodeSequence") or []]
    words = [view, *codes]
    if view in _LATERAL_VIEWS or any(_LATERAL.search(each) and not _DECUBITUS.search(each) for each in words):
        return True
    # Towards the right of the picture lies the front or the back, and not a side of the body.
    return _read_orientation(dataset)[:1] in ("A", "P")


def _read_orientation(dataset: FileDataset) -> str:
    """Where the rows and the columns lead, by the first letter of each, such as "LF" (left, feet)."""
    return "".join(str(each).strip().upper()[:1] for each in _as_list(dataset.get("PatientOrientation")))


def _make_header(dataset: FileDataset, size: tuple[int, int]) -> DicomHeader:
    centre, width = (_as_list(dataset.get(tag)) for tag in ("WindowCenter", "WindowWidth"))
    window = (float(centre[0]), float(width[0])) if centre and width else None
    padding = _as_list(dataset.get("PixelPaddingValue")) + _as_list(dataset.get("PixelPaddingRangeLimit"))
    return DicomHeader(
        size,
        patient_id="\\".join(str(each).strip() for each in _as_list(dataset.get("PatientID"))),
        spacing=_read_spacing(dataset),
        mirrored=_read_orientation(dataset) == "RF",
        cautions=tuple(_list_cautions(dataset)),
        photometric=_read_text(dataset, "PhotometricInterpretation"),
        bits=int(dataset.BitsStored),
        slope=float(_as_list(dataset.get("RescaleSlope"))[0]) if dataset.get("RescaleSlope") else 1.0,
        window=window,
        function=_read_text(dataset, "VOILUTFunction") or "LINEAR",
        padding=(min(map(int, padding)), max(map(int, padding))) if padding else None,
    )


def _list_cautions(dataset: FileDataset) -> Iterator[str]:
    part = _read_text(dataset, "BodyPartExamined")
    if _OTHER_PARTS.fullmatch(part):
        yield f"is of the {part.lower()} by its tag BodyPartExamined"
    if _read_text(dataset, "ViewPosition") in _OBLIQUE_VIEWS:
        yield "is an oblique view by its tag ViewPosition"
    orientation = _read_orientation(dataset)
    if orientation == "RF":
        yield "is mirrored by its tag PatientOrientation"
    elif orientation not in ("", "LF"):
        yield "is turned by its tag PatientOrientation"


def _read_spacing(dataset: FileDataset) -> tuple[str, tuple[float, ...]] | None:
    for tag in _SPACINGS:
        values = tuple(float(value) for value in _as_list(dataset.get(tag)))
        if values and tag == "ImagerPixelSpacing":
            factor = float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
            values = tuple(value / factor if factor > 0 else 0.0 for value in values)
        if values:
            return tag, values
    return None


def _read_text(dataset: FileDataset, tag: str) -> str:
    return str(dataset.get(tag) or "").strip().upper()


def _as_list(value: Any) -> list[Any]:
    """The values of a tag: none, one or several."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _load_pydicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{path} is a DICOM file, which needs a further package: pip install 'lungseg[dicom]'"
        ) from error
    # What these packages notice in a file they print with the value, which may be a person's name.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return pydicom
