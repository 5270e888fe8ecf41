#!/usr/bin/env python3
"""Makes the small DICOM series of crates/dcformer-volume/tests/data/dicom and their expected.json.

    pip install pydicom==3.0.2 numpy pylibjpeg pylibjpeg-openjpeg pillow
    python scripts/crop_dicom.py ORIGINALS OUT

ORIGINALS holds the series named in SERIES (README.md of OUT says where they come from). Every slice is cropped, and keeps
only the attributes that a reader of volumes looks at. Expected values are pydicom's and numpy's, not ours.
"""

import hashlib
import io
import json
import pathlib
import sys

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

# Folder, side of the crop, its first row and column, slices.
SERIES = [
    ("lungpetctdx_A0002_B40f", 48, (200, 300), slice(None)),
    ("lungpetctdx_A0002_B70f_3slices", 48, (200, 300), slice(None)),
    ("ge_head_tilt_varspacing", 48, (180, 230), slice(None)),
    ("totalseg_body_j2k", 48, (250, 250), slice(0, 5)),
]

KEPT = """SOPClassUID SOPInstanceUID ImageType Modality Manufacturer SeriesDescription StudyInstanceUID SeriesInstanceUID
SeriesNumber AcquisitionNumber InstanceNumber FrameOfReferenceUID ImagePositionPatient ImageOrientationPatient
SliceThickness SpacingBetweenSlices GantryDetectorTilt PixelSpacing SamplesPerPixel PhotometricInterpretation Rows Columns
BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue RescaleIntercept RescaleSlope RescaleType""".split()


def normal(slice_):
    row, column = np.split(np.array(slice_.ImageOrientationPatient, float), 2)
    return np.cross(row, column)


def ordered(slices):
    return sorted(slices, key=lambda s: normal(s) @ np.array(s.ImagePositionPatient, float))


def crop(path, side, corner):
    original = pydicom.dcmread(path)
    row, column = corner
    pixels = original.pixel_array[row : row + side, column : column + side]
    small = pydicom.Dataset()
    for name in KEPT:
        if name in original:
            small[name] = original[name]
    small.file_meta = pydicom.dataset.FileMetaDataset()
    small.file_meta.TransferSyntaxUID = original.file_meta.TransferSyntaxUID
    orientation = np.array(original.ImageOrientationPatient, float)
    between_rows, between_columns = map(float, original.PixelSpacing)
    moved = np.array(original.ImagePositionPatient, float)
    moved += column * between_columns * orientation[:3] + row * between_rows * orientation[3:]
    small.ImagePositionPatient = [f"{value:.6f}" for value in moved]
    small.Rows, small.Columns = pixels.shape
    if small.file_meta.TransferSyntaxUID == JPEG2000Lossless:
        # No 30-odd kB of lossy copies: the same coding as the original's.
        small.PixelData = pixels.tobytes()
        small.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        small.compress(JPEG2000Lossless, pixels, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    else:
        small.PixelData = np.ascontiguousarray(pixels).tobytes()
        small["PixelData"].VR = "OW"
    # TotalSegmentator's files have them here only.
    small.file_meta.MediaStorageSOPClassUID = original.file_meta.MediaStorageSOPClassUID
    small.file_meta.MediaStorageSOPInstanceUID = original.file_meta.MediaStorageSOPInstanceUID
    return small


def describe(paths):
    """What the slices are, as pydicom reads them."""
    slices = ordered([pydicom.dcmread(path) for path in paths])
    values = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    assert (values == np.rint(values)).all() and abs(values).max() < 32768
    values = values.astype("<i2")
    positions = np.array([s.ImagePositionPatient for s in slices], float)
    first = slices[0]
    row, column = np.split(np.array(first.ImageOrientationPatient, float), 2)
    affine = np.eye(4)
    affine[:3, 0] = row * float(first.PixelSpacing[1])
    affine[:3, 1] = column * float(first.PixelSpacing[0])
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    return {
        "shape_zyx": list(values.shape),
        "affine_LPS_ijk": affine.tolist(),
        "slice_gaps": np.diff(positions @ normal(first)).tolist(),
        "min": int(values.min()),
        "max": int(values.max()),
        "sha256_i16le_zyx": hashlib.sha256(values.tobytes()).hexdigest(),
    }


def jpeg_baseline(path, out):
    """One slice with eight bits and JPEG's lossy baseline, and what Pillow's libjpeg makes of it."""
    from PIL import Image

    small = pydicom.dcmread(path)
    pixels = small.pixel_array.astype(float)
    grey = np.clip((pixels - pixels.min()) / (np.ptp(pixels) / 255), 0, 255).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(grey).save(coded, "JPEG", quality=90)
    small.BitsAllocated = small.BitsStored = 8
    small.HighBit, small.PixelRepresentation = 7, 0
    small.RescaleSlope, small.RescaleIntercept = "1", "0"
    small.pop("PixelPaddingValue", None)
    small.PixelData = encapsulate([coded.getvalue()])
    small["PixelData"].VR = "OB"
    small["PixelData"].is_undefined_length = True
    small.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    small.save_as(out / "jpeg_baseline.dcm", enforce_file_format=True)
    coded.seek(0)
    (out / "jpeg_baseline.raw").write_bytes(np.array(Image.open(coded)).tobytes())


def main(originals, out):
    expected = {}
    for name, side, corner, which in SERIES:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        paths = sorted((originals / name).iterdir())
        by_place = ordered([pydicom.dcmread(path, stop_before_pixels=True) for path in paths])
        chosen = {pathlib.Path(s.filename).name for s in by_place[which]}
        for path in paths:
            if path.name in chosen:
                crop(path, side, corner).save_as(folder / path.name, enforce_file_format=True)
        expected[name] = describe(sorted(folder.iterdir()))
    expected["ibsi2_orientation"] = describe(sorted((out / "ibsi2_orientation").iterdir()))
    jpeg_baseline(sorted((out / "ge_head_tilt_varspacing").iterdir())[3], out)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
