"""Write the lungs in a DICOM picture as a DICOM Segmentation that refers to it."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lungseg.data.files.dicom import is_dicom, make_header, read_tags
from lungseg.prediction.measures import divide_lungs
from lungseg.prediction.pictures import Picture
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.machine import describe_version

if TYPE_CHECKING:
    from lungseg.prediction.models import Model

SERIES_NUMBER = 900  # beyond those that devices give
NO_SEGMENTATION = "no DICOM SEG"  # so a warning begins

# Tags that every object must have, though they may be empty; programs that remove names remove some of them.
_MAY_BE_EMPTY = {
    **dict.fromkeys(("PatientID", "PatientName", "PatientSex", "AccessionNumber", "StudyID"), ".*"),
    "ReferringPhysicianName": ".*",
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), r"\d{8}"),
    "StudyTime": r"\d{2,6}(\.\d{1,6})?",
}


def require_dicom(pictures: Sequence[Picture]) -> None:
    """Raise InputError if highdicom isn't installed, or no picture is DICOM."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--dicom-seg needs further packages ({error}): pip install 'lungseg[dicom]'"
        ) from error
    if not any(is_dicom(picture.file) for picture in pictures):
        raise InputError("no picture is DICOM, and a DICOM SEG refers to one: leave --dicom-seg out")


def write_segmentation(path: Path, picture: Path, mask: np.ndarray, model: Model, sha256: str) -> str:
    """Write a DICOM SEG with a segment for the right lung and one for the left.

    It names the patient and the study as its picture does, since viewers and archives file it by them. The
    same picture and mask give an object of the same identifiers.

    Args:
        path: the file to be written.
        picture: the DICOM file.
        mask: bool, H x W, the picture's size.
        model: what predicted it.
        sha256: of the picture's file.

    Returns:
        A warning, "" if the file was written.

    Raises:
        InputError: the picture or `path` can't be read or written.
    """
    path.unlink(missing_ok=True)
    if not mask.any():
        return f"{NO_SEGMENTATION}, which can't be empty"
    source = read_tags(picture, with_pixels=False)
    mirrored = make_header(source, picture).mirrored
    buffer = io.BytesIO()
    try:
        _fill_in(source)
        made = _segment(source, mask, mirrored, model, (sha256, model.sha256, str(model.threshold)))
        made.save_as(buffer)
    except MemoryError:
        raise
    except Exception as error:  # of a dozen types, with texts that may hold what the file says of a person
        lacking = re.search(r"has no attribute '([A-Za-z]+)'", str(error))
        why = f"lacks {lacking[1]}" if lacking else "has a tag with a wrong value, or lacks one"
        return f"{NO_SEGMENTATION}, for the picture {why}"
    write_atomically(path, buffer.getvalue())
    return ""


def _fill_in(source: Any) -> None:
    """Give a picture that was read the tags that may be empty, and empty those that are no date or time."""
    for tag, form in _MAY_BE_EMPTY.items():
        if tag not in source or not re.fullmatch(form, str(source.get(tag) or "")):
            setattr(source, tag, "")


def _segment(source: Any, mask: np.ndarray, mirrored: bool, model: Model, origin: tuple[str, ...]) -> Any:
    """The object, not written yet."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    version = describe_version()
    algorithm = hd.AlgorithmIdentificationSequence(
        name=model.name[:64], family=codes.DCM.ArtificialIntelligence, version=version[:64]
    )
    left, right = divide_lungs(mask, mirrored)
    lungs = {
        "Right lung": (right, hd.sr.CodedConcept("3341006", "SCT", "Right lung")),
        "Left lung": (left, hd.sr.CodedConcept("44029006", "SCT", "Left lung")),
    }
    lungs = {label: pair for label, pair in lungs.items() if pair[0].any()}
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=code,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, (label, (_, code)) in enumerate(lungs.items(), 1)
    ]
    pixels = np.stack([lung for lung, _ in lungs.values()], axis=-1)[None]
    measures = None
    if source.get("PixelSpacing"):  # a projection has no thickness, but highdicom reads no file without one
        measures = hd.PixelMeasuresSequence(source.PixelSpacing, slice_thickness=1.0)
    return hd.seg.Segmentation(
        source_images=[source],
        pixel_array=pixels.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=_make_identifier("series", origin),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_make_identifier("instance", origin),
        instance_number=1,
        manufacturer="lungseg",
        manufacturer_model_name=model.name[:64],
        software_versions=version[:64],
        device_serial_number=model.sha256[:16],
        pixel_measures=measures,
        series_description=f"Lungs by {model.name}"[:64],
    )


def _make_identifier(what: str, origin: tuple[str, ...]) -> str:
    """An identifier that the origin alone decides, as DICOM PS3.5, B.2, makes one of a UUID."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(('lungseg', what, *origin))).int}"
