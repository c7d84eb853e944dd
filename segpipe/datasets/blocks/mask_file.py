"""One mask file of any kind becomes label values: PNG, GIF, BMP and TIFF, MATLAB's .mat, and .npy.

A palette picture gives its indices, never its colours, unless colours are asked for. Messages hold no file name: whoever reads the
file knows it.
"""

from pathlib import Path
from tokenize import TokenError

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import colours, matlab, matlab_index

SUFFIXES = (".png", ".gif", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".ppm", ".pgm", ".mat", ".npy")
LABEL_NAMES = (
    "segmentation",
    "labelmap",
    "labels",
    "label",
    "mask",
    "masks",
    "groundtruth",
    "gt",
    "classes",
    "truth",
    "annotation",
)
"""What a .mat file may call its labels where it holds several arrays of the image's size."""


def read(
    path: Path,
    *,
    packed: bool = False,
    threshold: float | None = None,
    mat_key: str | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The label values (H, W) of one mask, an integer array; or uint8 (H, W, 3) if the file is a colour picture.

    With `packed` every pixel is its packed colour (int32, see `blocks.colours`), also in a grey or palette picture. With a
    `threshold` the values are 1 where the file's grey value is that or more, else 0. A colour picture with R = G = B everywhere is
    read as grey. `mat_key` names the array in a .mat file, as in "groundTruth.Segmentation"; without it the one array of the
    image's `size` (height, width) is taken.

    Raises:
        OSError, SyntaxError, ValueError, EOFError, zlib.error: the file is damaged or holds no labels.
    """
    if path.suffix.lower() in (".mat", ".npy"):
        array = np.squeeze(_matlab(path, mat_key, size) if path.suffix.lower() == ".mat" else _numpy(path))
    else:
        array = _picture(path, packed=packed, grey=threshold is not None)
    if threshold is not None and array.ndim == 2:
        return (array if array.dtype == bool else array >= threshold).astype(np.uint8)
    if array.dtype.kind == "f":
        array = _whole(array)
    if array.dtype.kind not in "uib" or array.ndim not in (2, 3):
        raise ValueError(f"the mask is {array.dtype} {array.shape}; should hold one whole number per pixel, (height, width)")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 2:
        return colours.pack(np.repeat(array[..., None], 3, -1)) if packed and path.suffix.lower() in (".mat", ".npy") else array
    if array.shape[-1] not in (3, 4) or array.dtype != np.uint8:
        raise ValueError(f"the mask is {array.dtype} {array.shape}; one number per pixel is needed, e.g. mask.argmax(axis=...)")
    if packed:
        return colours.pack(array)
    same = (array[..., 0] == array[..., 1]).all() and (array[..., 0] == array[..., 2]).all()
    return array[..., 0] if same else array[..., :3]


def _numpy(path: Path) -> np.ndarray:
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped: a damaged size asks for no memory
    except (TokenError, OverflowError) as error:  # raised by numpy for a damaged header
        raise ValueError(f"the .npy file's header is damaged ({error})") from error


def _picture(path: Path, *, packed: bool, grey: bool) -> np.ndarray:
    try:
        return _pixels(path, packed=packed, grey=grey)
    except TypeError as error:  # raised by Pillow for a TIFF without a size
        raise ValueError(f"the picture is damaged ({error})") from error


def _pixels(path: Path, *, packed: bool, grey: bool) -> np.ndarray:
    with Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ValueError(f"the mask holds {frames} pages or frames; one is needed, or format volumes for a stack")
        if packed:
            return np.asarray(image.convert("RGB"))
        if grey and image.mode != "F" and not image.mode.startswith("I"):
            return np.asarray(image.convert("L"))  # a 1-bit picture becomes 0 and 255
        if image.mode in ("LA", "PA"):
            return np.asarray(image)[..., 0]
        if image.mode not in ("1", "L", "P", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
            raise ValueError(f"the mask is a picture of mode {image.mode}; save it as a grey, palette or RGB PNG")
        return np.asarray(image)


def _whole(array: np.ndarray) -> np.ndarray:
    """The numbers of a float array as int64, if all of them are whole (MATLAB's own number is a float)."""
    if not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        low, high = np.nanmin(array), np.nanmax(array)
        raise ValueError(f"the mask holds {array.dtype} values {low:.4g} to {high:.4g}; save whole numbers, or set `threshold`")
    return array.astype(np.int64)


def _matlab(path: Path, key: str | None, size: tuple[int, int] | None) -> np.ndarray:
    if key is not None:
        return matlab.labels(path, *key.split("."))
    shapes = matlab_index.matrices(path)
    fitting = [names for names, shape in shapes.items() if size is None or shape == size] or list(shapes)
    called = [names for names in fitting if names[-1].lower() in LABEL_NAMES]
    chosen = called if len(fitting) > 1 else fitting
    if len(chosen) != 1:
        listed = ", ".join(f"{'.'.join(names)} {shape}" for names, shape in list(shapes.items())[:12]) or "no matrix of numbers"
        hint = f"; say which is the labels, e.g. mat_key: {'.'.join(fitting[0])}" if fitting else ""
        raise ValueError(f"the .mat file holds {listed}{hint}")
    return matlab.labels(path, *chosen[0])
