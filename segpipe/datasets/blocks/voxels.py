"""Files of volumes as arrays (D, H, W): NIfTI, HDF5, .npy and multi-page TIFF. A 2D array counts as a volume of one slice.

NIfTI arrays are stored (x, y, z) and come out transposed, (z, y, x), in the order of the file: they are not turned into any
anatomical orientation. HDF5, .npy and TIFF come out as they are stored; the pages of a TIFF are the first axis.
"""

import gzip
import struct
import tokenize
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image, ImageSequence

ENDINGS = (".nii.gz", ".nii", ".hdf5", ".h5", ".npy", ".tiff", ".tif")
HDF5 = (".hdf5", ".h5")
TIFF_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F")
MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
MOST_DEFLATED = 1032
"""No byte of a gzip stream stands for more bytes than this."""
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    RuntimeError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    UserWarning,
    Image.DecompressionBombError,
)
"""All that the readers raise for files that are cut off, damaged or something else."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its volume: shape (D, H, W), voxel spacing in mm along the same axes, and a NIfTI's axes, e.g. RAS."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    axes: str | None = None


def ending(path: Path) -> str | None:
    """The ending of a volume file in lower case, None for any other file."""
    return next((e for e in ENDINGS if path.name.lower().endswith(e)), None)


def header(path: Path, *, key: str = "image", channel: int | None = None) -> Header:
    """Read a file's header alone. `key` is the dataset inside an HDF5 file, `channel` the place on the fourth axis of a NIfTI.

    Raises:
        ValueError: the file cannot be read, or holds no single volume; the message names it.
    """
    with _naming(path):
        match ending(path):
            case ".nii" | ".nii.gz":
                image = _nifti(path)
                return Header(shape=_three(image.shape, channel)[::-1], spacing=_zooms(image), axes=_axes(image))
            case ".h5" | ".hdf5":
                with h5py.File(path, "r") as file:
                    data = _dataset(file, key)
                    spacing = data.attrs.get("spacing", file.attrs.get("spacing"))
                    shape = _three(data.shape, None, first=True)
                    return Header(shape=shape, spacing=None if spacing is None else tuple(float(s) for s in np.ravel(spacing)))
            case ".npy":
                return Header(shape=_three(np.load(path, mmap_mode="r", allow_pickle=False).shape, None, first=True))
            case _:
                with Image.open(path) as pages:
                    return Header(shape=(getattr(pages, "n_frames", 1), pages.height, pages.width))


def read(path: Path, *, key: str = "image", channel: int | None = None) -> np.ndarray:
    """The volume (D, H, W) in the file's own type: uint8..int64, or float32 for floats and for NIfTI with a scale factor.

    Raises:
        ValueError: the file cannot be read, or holds no single volume of real numbers; the message names it.
    """
    with _naming(path):
        match ending(path):
            case ".nii" | ".nii.gz":
                array = _nifti_array(path, channel)
            case ".h5" | ".hdf5":
                with h5py.File(path, "r") as file:
                    array = _dataset(file, key)[()]
            case ".npy":
                array = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
            case _:
                array = _tiff(path)
        array = array.reshape(_three(array.shape, None, first=True))
        if array.dtype.kind not in "buif":
            raise ValueError(f"its values are {array.dtype}, not one real number per voxel")
        dtype = np.float32 if array.dtype.kind == "f" else np.uint8 if array.dtype == bool else array.dtype.newbyteorder("=")
        return np.ascontiguousarray(array, dtype)


def read_labels(path: Path, *, key: str = "label") -> np.ndarray:
    """A volume of label values (D, H, W) of an integer type; whole numbers stored as floats become int32.

    Raises:
        ValueError: as `read`, or a value is no whole number.
    """
    labels = read(path, key=key)
    if labels.dtype.kind != "f":
        return labels
    whole = np.isfinite(labels) & (labels == np.rint(labels)) & (np.abs(labels) < 2**31)
    if not whole.all():
        value = labels[~whole][0]
        raise ValueError(f"{path.name}: holds the label value {value}; labels are whole numbers. Was it resampled smoothly?")
    return labels.astype(np.int32)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?i).*truncated")  # all that Pillow says of some TIFF that were cut off
            yield
    except BROKEN as error:
        said = " ".join(str(part) for part in error.args) or type(error).__name__
        raise ValueError(f"{path.name}: no readable volume: {said.replace(str(path), path.name)}") from error


def _three(shape: tuple[int, ...], channel: int | None, *, first: bool = False) -> tuple[int, int, int]:
    """`shape` as three sizes. The depth of a 2D array is put `first`, or last. A fourth axis needs a `channel`."""
    sides = list(shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) == 4 and channel is not None:
        if not 0 <= channel < sides[3]:
            raise ValueError(f"channel: {channel}; it has {sides[3]}, counted from 0")
        sides.pop()
    if len(sides) == 2:
        sides = [1, *sides] if first else [*sides, 1]
    if len(sides) != 3 or min(sides) < 1:
        hint = " Choose one with the option `channel`." if len(sides) == 4 and not first else ""
        raise ValueError(f"its shape is {tuple(shape)}, not three axes.{hint}")
    return sides[0], sides[1], sides[2]


def _nifti(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    wanted = int(np.prod(image.shape, dtype=np.float64)) * image.get_data_dtype().itemsize
    # A damaged header may promise more than any memory holds; the file's size bounds what can be true.
    if wanted > path.stat().st_size * (MOST_DEFLATED if path.name.lower().endswith(".gz") else 1):
        raise ValueError(f"its header promises {image.shape} voxels, more than {path.stat().st_size} bytes can hold")
    return image


def _nifti_array(path: Path, channel: int | None) -> np.ndarray:
    image = _nifti(path)
    shape = _three(image.shape, channel)
    if path.name.lower().endswith(".gz"):
        wanted = image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
        with gzip.open(path) as file:
            image = type(image).from_bytes(file.read(wanted))
            while file.read(2**20):  # to the end, because the checksum stands there, which nibabel itself does not reach
                pass
    data = image.dataobj
    # Without the type nibabel would scale in float64, eight bytes for each voxel of two.
    array = data.get_unscaled() if data.slope == 1 and data.inter == 0 else np.asarray(data, dtype=np.float32)
    several = array.size > np.prod(shape)
    array = np.asarray(array).reshape(*shape, -1)[..., channel if several else 0]
    return np.ascontiguousarray(array.T)


def _zooms(image: nibabel.Nifti1Image) -> tuple[float, ...] | None:
    zooms = [float(z) for z in image.header.get_zooms()[:3]] + [1.0] * (3 - len(image.shape))
    known = all(np.isfinite(z) and z > 0 for z in zooms)
    factor = MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    return tuple(z * factor for z in reversed(zooms)) if known else None


def _axes(image: nibabel.Nifti1Image) -> str | None:
    if not np.isfinite(image.affine).all():
        return None
    return "".join(letter or "?" for letter in nibabel.aff2axcodes(image.affine))


def _dataset(file: h5py.File, key: str) -> h5py.Dataset:
    if not isinstance(file.get(key), h5py.Dataset):
        raise ValueError(f"no dataset {key!r}; it has {', '.join(sorted(file)) or 'none'}. Name it with image_key or label_key")
    return file[key]


def _tiff(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        if opened.mode not in TIFF_MODES:
            raise ValueError(f"its pages are {opened.mode}, not one value per pixel")
        pages = [np.array(page) for page in ImageSequence.Iterator(opened)]
    if len({(page.shape, page.dtype) for page in pages}) != 1:
        raise ValueError(f"its pages differ in size or type: {sorted({page.shape for page in pages})}")
    return np.stack(pages)
