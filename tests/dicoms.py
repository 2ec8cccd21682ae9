"""Chest X-rays as DICOM files, made of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

PATIENT, NAME = "MRN-4711", "Roe^Richard"
FORMS = {
    "MONOCHROME2": {},
    "MONOCHROME1": {"photometric": "MONOCHROME1"},
    "12 bit": {"bits": 12},
    "16 bit": {"bits": 16},
    "16 bit signed": {"bits": 16, "signed": True},
    "JPEG lossless": {"bits": 12, "syntax": JPEGLosslessSV1},
    "JPEG-LS": {"bits": 12, "syntax": JPEGLSLossless},
    "JPEG 2000": {"bits": 12, "syntax": JPEG2000Lossless},
    "RLE": {"bits": 16, "syntax": RLELossless},
    "window": {"WindowCenter": 128, "WindowWidth": 256},
}


def make_dicom(
    path: Path,
    image: np.ndarray,
    bits: int = 8,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> Path:
    """Write an image (H x W, in [0, 1]) so that its darkest value is the smallest that the bits can hold."""
    top = 2**bits - 1
    values = np.round(image * top).astype(np.int64)
    values = top - values if photometric == "MONOCHROME1" else values
    values = values - 2 ** (bits - 1) if signed else values
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    return write_values(path, values.astype(f"<{kind}"), bits, photometric, syntax, **tags)


def write_values(
    path: Path,
    values: np.ndarray,
    bits: int,
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> Path:
    """Write stored values; a tag that is None is left out."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = PATIENT, NAME, "CR"
    for tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(dataset, tag, "")
    dataset.ReferringPhysicianName = ""
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * values.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for tag, value in tags.items():
        if value is None:
            delattr(dataset, tag)
        else:
            setattr(dataset, tag, value)
    if syntax == JPEGLosslessSV1:  # which pydicom can't write
        dataset.PixelData = encapsulate([encode_lossless_jpeg(values, bits)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def encode_lossless_jpeg(values: np.ndarray, bits: int) -> bytes:
    """Encode as ITU-T T.81, process 14, with the left neighbour as prediction (selection value 1)."""
    before = np.empty(values.shape, np.int64)
    before[:, 1:], before[1:, 0], before[0, 0] = values[:, :-1], values[:-1, 0], 2 ** (bits - 1)
    code = "".join(_encode_difference(int(each)) for each in (values - before).ravel())
    code += "1" * (-len(code) % 8)
    body = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    height, width = values.shape
    frame = bytes([bits]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    # A Huffman table with 16 codes of 5 bits: the code of a category is its number.
    table = b"\x00" + bytes([0, 0, 0, 0, 16]) + bytes(11) + bytes(range(16))
    scan = b"\x01\x01\x00\x01\x00\x00"
    parts = [(b"\xc3", frame), (b"\xc4", table), (b"\xda", scan)]
    head = b"".join(b"\xff" + kind + (len(data) + 2).to_bytes(2, "big") + data for kind, data in parts)
    return b"\xff\xd8" + head + body + b"\xff\xd9"


def _encode_difference(difference: int) -> str:
    category = abs(difference).bit_length()
    rest = difference if difference > 0 else difference + 2**category - 1
    return f"{category:05b}" + (f"{rest:0{category}b}" if category else "")
