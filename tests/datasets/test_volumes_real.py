"""Volumes: the real samples, whole and in slices, against nibabel, h5py and Pillow."""

from collections import Counter
from pathlib import Path

import h5py
import nibabel
import numpy as np
from PIL import Image, ImageSequence

from segpipe.convert import convert
from segpipe.datasets import volumes
from segpipe.shards import Split
from tests.datasets.volume_files import volume


def test_real_nifti(samples: Path, tmp_path: Path) -> None:
    """35 slices across z: nibabel's own arrays, transposed to (z, y, x), against the shards; then the whole volume."""
    folder = samples / "nifti_sample"
    image, label = (nibabel.load(folder / f"biomedical{end}.nii.gz").get_fdata().transpose(2, 1, 0) for end in ("", "_ann"))
    found = volumes.scan(folder, slices=0)
    assert len(found.items) == 35 and found.labels == {0: 0, 1: 1, 2: 2, 255: 255}
    splits = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
    info, _ = convert(folder, tmp_path / "out", name="nifti", scan=found, load=volumes.load, splits=splits)
    assert sum(info.splits.values()) == 35 and min(info.splits.values()) > 0
    for split in info.splits:
        rows = Split(tmp_path / "out", split)
        for i in range(len(rows)):
            index = int(rows[i].id.removeprefix("biomedical-"))
            pixels, mask = rows.arrays(i)
            assert (mask == label[index]).all() and (pixels == image[index][..., None]).all()
            assert rows[i].group == "biomedical" and rows[i].spacing == [1.0, 1.0]
    whole = volumes.load(volumes.scan(folder).items[0])
    assert (volume(whole.image) == image).all() and (whole.labels == label).all() and whole.spacing == (1.0, 1.0, 1.0)


def test_real_left_atria(samples: Path, tmp_path: Path) -> None:
    """Both volumes, whole: the shards against h5py. train.list holds both, so two splits stay empty."""
    folder = samples / "la2018"
    found = volumes.scan(folder, classes=["background", "atrium"])
    assert {i.id: i.split for i in found.items} == {"06SR5RBREL16DQ6M8LWS": "train", "0RZDK210BSMWAA6467LU": "train"}
    info, _ = convert(folder, tmp_path / "out", name="la", scan=found, load=volumes.load, complete=False)
    assert info.splits == {"train": 2, "val": 0, "test": 0} and info.dimensions == 3
    rows = Split(tmp_path / "out", "train")
    for i in range(2):
        with h5py.File(folder / "data" / "2018LA_Seg_Training Set" / rows[i].id / "mri_norm2.h5") as file:
            image, label = file["image"][()], file["label"][()]
        pixels, mask = rows.arrays(i)
        assert pixels.dtype == np.float32 and pixels.shape == image.shape and (pixels == image).all()
        assert (mask == label).all() and label.max() == 1 and (rows[i].depth, rows[i].height, rows[i].width) == image.shape
    (last, *_) = reversed(volumes.scan(folder, classes=["background", "atrium"], slices=2).items)
    assert last.id == "0RZDK210BSMWAA6467LU-0087" and volumes.load(last).labels.shape == (199, 143)


def test_real_nuclei(samples: Path, tmp_path: Path) -> None:
    """31 slices of a 16-bit stack with 51 nuclei, and one 2D image: masks and every instance against the pages of the TIFF."""
    folder = samples / "stardist_samples" / "stardist" / "data" / "images"
    with Image.open(folder / "mask3d.tif") as pages:
        numbers = np.stack([np.array(page) for page in ImageSequence.Iterator(pages)])
    with Image.open(folder / "img3d.tif") as pages:
        image = np.stack([np.array(page) for page in ImageSequence.Iterator(pages)])
    assert len(np.unique(numbers)) == 52 and numbers.max() > 51
    found = volumes.scan(folder.parents[2], instances=True, slices=0, classes=["background", "nucleus"])
    assert Counter(i.group for i in found.items) == {"img3d": 31, "img2d": 1}
    splits = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
    info, _ = convert(folder, tmp_path / "out", name="nuclei", scan=found, load=volumes.load, splits=splits)
    assert sum(info.splits.values()) == 32
    shift = int(image.max()).bit_length() - 8
    for split in info.splits:
        rows = Split(tmp_path / "out", split)
        for i in range(len(rows)):
            name, index = rows[i].id.rsplit("-", 1)
            truth = numbers[int(index)] if name == "img3d" else np.array(Image.open(folder / "mask2d.tif"))
            pixels, mask = rows.arrays(i)
            assert (mask == (truth > 0)).all()
            if name == "img3d":
                assert (pixels == (image[int(index)] >> shift)[..., None]).all(), "one scale for the whole stack"
            areas = sorted((truth == number).sum() for number in np.unique(truth[truth > 0]))
            assert sorted(row["area"] for row in rows[i].instances) == areas
            assert name == "img3d" or len(areas) == 125
