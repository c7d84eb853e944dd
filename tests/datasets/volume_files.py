"""What the tests of volumes write and read."""

import io
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from segpipe.datasets import volumes
from segpipe.layout import Item

SHAPE = (5, 6, 7)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 4000, SHAPE).astype(np.uint16)
LABEL = RNG.integers(0, 3, SHAPE).astype(np.uint8)
NAMES = ["background", "organ", "tumour"]


def write(path: Path, array: np.ndarray, *, spacing: tuple[float, float, float] = (3.0, 0.5, 0.25)) -> Path:
    """The volume (D, H, W) in the format of the path's ending; a NIfTI with `spacing` along (D, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([*spacing[::-1], 1.0])), path)
    elif path.suffix in (".tif", ".tiff"):
        pages = [Image.fromarray(page) for page in array]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    elif path.suffix == ".npy":
        np.save(path, array)
    return path


def write_hdf5(path: Path, *, image: np.ndarray = IMAGE, label: np.ndarray = LABEL, **names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(names.get("image_key", "image"), data=image, compression="gzip")
        file.create_dataset(names.get("label_key", "label"), data=label, compression="gzip")
    return path


def fill(raw: Path, names: list[str]) -> Path:
    """Files in `raw`; a name with seg, label, mask, ann or gt in it holds labels."""
    for name in names:
        if name.endswith(".h5"):
            write_hdf5(raw / name)
        else:
            write(raw / name, LABEL if any(word in name for word in ("seg", "label", "mask", "ann", "gt")) else IMAGE)
    return raw


def volume(encoded: bytes) -> np.ndarray:
    return np.load(io.BytesIO(encoded), allow_pickle=False)


def picture(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def error_of(item: Item) -> str:
    with pytest.raises(ValueError) as caught:
        volumes.load(item)
    return str(caught.value)
