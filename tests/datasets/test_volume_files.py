"""Files of volumes: values, axes and spacing of every format; what is wrong with a file is said with its name."""

import gzip
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from segpipe.datasets import volumes
from tests.datasets.volume_files import IMAGE, LABEL, NAMES, SHAPE, error_of, fill, volume, write, write_hdf5


@pytest.mark.parametrize("end", ["nii", "nii.gz", "npy", "tif"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float32"])
def test_values_axes_and_spacing(tmp_path: Path, end: str, kind: str) -> None:
    image = (IMAGE / 16 if kind == "uint8" else IMAGE).astype(kind)
    write(tmp_path / f"v.{end}", image)
    write(tmp_path / f"v_seg.{end}", LABEL)
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    raw = volumes.load(item)
    decoded = volume(raw.image)
    assert decoded.dtype == image.dtype and decoded.shape == SHAPE and (decoded == image).all()
    assert raw.labels.dtype == np.uint8 and (raw.labels == LABEL).all()
    assert raw.spacing == ((3.0, 0.5, 0.25) if end.startswith("nii") else None)
    (item,) = volumes.scan(tmp_path, classes=NAMES, spacing=[2, 1, 4]).items
    assert volumes.load(item).spacing == ((3.0, 0.5, 0.25) if end.startswith("nii") else (2, 1, 4)), "the header comes first"


def test_hdf5_names_and_spacing(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "v.h5", image=IMAGE.astype(np.float64), image_key="raw", label_key="truth")
    with h5py.File(tmp_path / "v.h5", "a") as file:
        file["raw"].attrs["spacing"] = [5.0, 0.5, 0.5]
    (item,) = volumes.scan(tmp_path, classes=NAMES, image_key="raw", label_key="truth").items
    raw = volumes.load(item)
    assert volume(raw.image).dtype == np.float32 and (volume(raw.image) == IMAGE).all() and (raw.labels == LABEL).all()
    assert raw.spacing == (5.0, 0.5, 0.5) and item.image == item.mask
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    assert "v.h5: no readable volume: no dataset 'image'; it has raw, truth" in error_of(item)


def test_nifti_scale_and_units(tmp_path: Path) -> None:
    """A slope and an offset are applied, as in CT; micrometres become millimetres."""
    image = nibabel.Nifti1Image(IMAGE.astype(np.int16).T, np.diag([250, 500, 3000, 1.0]))
    image.header.set_slope_inter(2, -1024)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "v.nii.gz")
    write(tmp_path / "v_seg.nii.gz", LABEL.astype(np.float64))
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    raw = volumes.load(item)
    assert volume(raw.image).dtype == np.float32
    assert (volume(raw.image) == nibabel.load(tmp_path / "v.nii.gz").get_fdata().T).all()
    assert raw.spacing == (3.0, 0.5, 0.25)
    assert raw.labels.dtype == np.int32 and (raw.labels == LABEL).all(), "whole numbers in floats are labels"


def test_a_fourth_axis_needs_a_choice(tmp_path: Path) -> None:
    four = np.stack([IMAGE.T, IMAGE.T + 1], axis=-1)
    nibabel.save(nibabel.Nifti1Image(four, np.eye(4)), tmp_path / "a.nii.gz")
    write(tmp_path / "a_seg.nii.gz", LABEL)
    assert "a.nii.gz: no readable volume: its shape is (7, 6, 5, 2)" in error_of(volumes.scan(tmp_path, classes=NAMES).items[0])
    (item,) = volumes.scan(tmp_path, classes=NAMES, channel=1).items
    assert (volume(volumes.load(item).image) == IMAGE + 1).all()
    assert "channel: 2; it has 2" in error_of(volumes.scan(tmp_path, classes=NAMES, channel=2).items[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": "a.npy", "labels": "a_seg.npy"}, r"images: 'a.npy'; should be a path inside the folder with \{id\}"),
        ({"images": "../{id}.npy", "labels": "{id}_seg.npy"}, "images: '../{id}.npy'; should be"),
        ({"images": "{id}.npy"}, "labels: missing"),
        ({"labels": "{id}_seg.npy"}, "give `images` too"),
        ({"images": "ct/{id}.npy", "labels": "{id}_seg.npy"}, r"images: 'ct/\{id\}.npy'; fits no volume file in .* There is a.npy"),
        ({"slices": 3}, "slices: 3; choices: 0, 1 or 2"),
        ({"slices": True}, "slices: True"),
        ({"spacing": [1, 2]}, r"spacing: \[1, 2\]; should be three"),
        ({"spacing": [1, 2, 0]}, "spacing"),
        ({"window": [5, 5]}, r"window: \[5, 5\]; should be \[low, high\]"),
        ({"classes": []}, "classes"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        volumes.scan(fill(tmp_path, ["a.npy", "a_seg.npy"]), **options)


def test_labels_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", IMAGE)
    write(tmp_path / "a_seg.npy", LABEL * np.float32(0.5))
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    assert "a_seg.npy: holds the label value 0.5; labels are whole numbers" in error_of(item)
    with pytest.raises(ValueError, match="no label volume can be read. a_seg.npy: holds the label value 0.5"):
        volumes.scan(tmp_path)
    write(tmp_path / "a_seg.npy", LABEL * 1j)
    assert "a_seg.npy: no readable volume: its values are complex128" in error_of(item)
    write(tmp_path / "a_seg.npy", LABEL[:, :, :-1])
    assert "a_seg.npy: is (5, 6, 6), but the image a.npy is (5, 6, 7)" in error_of(
        volumes.scan(tmp_path, classes=NAMES, slices=0).items[0]
    )
    raw = volumes.load(item)
    assert raw.labels.shape == (5, 6, 6), "of whole volumes convert says it"


def test_labels_that_lie_elsewhere_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", IMAGE)
    nibabel.save(nibabel.Nifti1Image(LABEL.T, np.diag([-1.0, 1, 1, 1])), tmp_path / "a_seg.nii.gz")
    (fault,) = volumes.load(volumes.scan(tmp_path, classes=NAMES).items[0]).faults
    assert (fault.kind, fault.severity, fault.example) == ("orientation", "warning", "a.nii.gz")
    assert "RAS" in fault.what and "LAS" in fault.what
    said = [len(volumes.load(item).faults) for item in volumes.scan(tmp_path, classes=NAMES, slices=0).items]
    assert said == [1, 0, 0, 0, 0], "once for a volume"


@pytest.mark.parametrize("end", ["nii", "nii.gz", "npy", "tif", "h5"])
def test_broken_files_are_named(tmp_path: Path, end: str) -> None:
    fill(tmp_path, ["v.h5"] if end == "h5" else [f"v.{end}", f"v_seg.{end}"])
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    (first, *_) = volumes.scan(tmp_path, classes=NAMES, slices=0).items
    whole = item.image.read_bytes()
    for content in (
        b"",
        whole[:10],
        whole[: len(whole) // 2],
        whole[:-30],
        b"<html><body>404 Not Found</body></html>" * 9,
        b"\0" * len(whole),
    ):
        item.image.write_bytes(content)
        assert error_of(item).startswith(f"v.{end}: ") and error_of(first).startswith(f"v.{end}: "), content[:40]
    found = volumes.scan(tmp_path, classes=NAMES, slices=0)
    assert not found.items and [f.kind for f in found.faults] == ["unreadable"] and f"v.{end}: " in found.faults[0].example


@pytest.mark.filterwarnings("ignore:Metadata Warning")
@pytest.mark.parametrize("end", ["nii", "nii.gz", "npy", "tif", "h5"])
def test_damage_is_a_value_error_or_nothing(tmp_path: Path, end: str) -> None:
    """80 seeded damages each: no other exception escapes. What is compressed holds a checksum, so there nothing passes at all."""
    fill(tmp_path, ["v.h5"] if end == "h5" else [f"v.{end}", f"v_seg.{end}"])
    (item,) = volumes.scan(tmp_path, classes=NAMES).items
    whole = item.image.read_bytes()
    named = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        if seed % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for place in rng.integers(10 if end == "nii.gz" else 0, len(whole), 1 + seed % 7):
                damaged[place] ^= 1 << int(rng.integers(8))
        item.image.write_bytes(damaged)
        try:
            raw = volumes.load(item)
        except ValueError as error:
            assert str(error).startswith(f"v.{end}: "), error
            named += 1
        else:
            assert seed % 2 == 0 and end != "nii.gz", f"{end}, seed {seed}: passes"
            assert volume(raw.image).ndim == 3
    assert named >= 40


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    for end in ("nii", "nii.gz"):
        write(tmp_path / f"{end}.d" / f"v.{end}", IMAGE)
        write(tmp_path / f"{end}.d" / f"v_seg.{end}", LABEL)
    for end in ("nii", "nii.gz"):
        header = nibabel.load(tmp_path / "nii.d" / "v.nii").header
        header["dim"][1:4] = 30000
        huge = header.binaryblock + b"\0" * 500
        (tmp_path / f"{end}.d" / f"v.{end}").write_bytes(gzip.compress(huge) if end.endswith("gz") else huge)
        assert "promises (30000, 30000, 30000) voxels" in error_of(volumes.scan(tmp_path / f"{end}.d", classes=NAMES).items[0])


def test_a_single_page_is_one_slice_and_colours_are_no_volume(tmp_path: Path) -> None:
    Image.fromarray(IMAGE[0]).save(tmp_path / "img.tif")
    Image.fromarray(LABEL[0]).save(tmp_path / "mask.tif")
    raw = volumes.load(volumes.scan(tmp_path, classes=NAMES).items[0])
    assert volume(raw.image).shape == (1, 6, 7) and raw.labels.shape == (1, 6, 7)
    (item,) = volumes.scan(tmp_path, classes=NAMES, slices=0).items
    assert item.id == "img-0000" and (volumes.load(item).labels == LABEL[0]).all()
    Image.new("RGB", (7, 6)).save(tmp_path / "img.tif")
    assert "img.tif: no readable volume: its pages are RGB" in error_of(volumes.scan(tmp_path, classes=NAMES).items[0])


def test_an_empty_folder_and_only_strangers(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(ValueError, match=f"{tmp_path}: no volumes here"):
        volumes.scan(tmp_path)
