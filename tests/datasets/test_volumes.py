"""Volumes: every way to find labels, whole and in slices, classes, splits and instances."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.datasets import volumes
from segpipe.datasets.blocks import voxels
from tests.datasets.volume_files import IMAGE, LABEL, NAMES, SHAPE, error_of, fill, picture, volume, write


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["imagesTr/la_003_0000.nii.gz", "labelsTr/la_003.nii.gz"], {"la_003": None}),
        (["Task02/imagesTr/la_3.nii.gz", "Task02/labelsTr/la_3.nii.gz", "Task02/imagesTs/la_4.nii.gz"], {"la_3": None}),
        (
            ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz"],
            {"a": "train", "b": "test"},
        ),
        (["images/1.npy", "labels/1.npy", "images/2.npy", "labels/2.npy"], {"1": None, "2": None}),
        (
            ["train/images/1.npy", "train/labels/1.npy", "val/images/1.npy", "val/labels/1.npy"],
            {"train_images_1": "train", "val_images_1": "val"},
        ),
        (["images/test/7.tif", "masks/test/7.tif"], {"7": "test"}),
        (["a.nii.gz", "a_ann.nii.gz", "b.nii", "b_seg.nii.gz", "c.nii", "c-label.nii"], {"a": None, "b": None, "c": None}),
        (["data/images/img3d.tif", "data/images/mask3d.tif"], {"img3d": None}),
        (["volume-0.nii", "segmentation-0.nii", "volume-10.nii", "segmentation-10.nii"], {"volume-0": None, "volume-10": None}),
        (["case_1/imaging.nii.gz", "case_1/segmentation.nii.gz"], {"imaging": None}),
        (
            ["case_1/imaging.nii.gz", "case_1/segmentation.nii.gz", "case_2/imaging.nii.gz", "case_2/segmentation.nii.gz"],
            {"case_1": None, "case_2": None},
        ),
        (["x/volume_1.h5", "x/volume_2.h5"], {"volume_1": None, "volume_2": None}),
        (["scans/A.tiff", "gt/A.npy"], {"A": None}),
    ],
)
def test_labels_are_found_by_name(tmp_path: Path, names: list[str], ids: dict[str, str | None]) -> None:
    found = volumes.scan(fill(tmp_path, names), classes=NAMES)
    assert {item.id: item.split for item in found.items} == ids and not found.faults
    for item in found.items:
        assert item.group == item.id and (tmp_path / item.source).samefile(item.image)
        raw = volumes.load(item)
        assert (volume(raw.image) == IMAGE).all() and (raw.labels == LABEL).all()
    assert found.dimensions == 3 and [c.name for c in found.classes] == NAMES


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", ["nii.gz", "h5", "npy", "tif"])
def test_slices(tmp_path: Path, axis: int, end: str) -> None:
    fill(tmp_path, ["p/v.h5"] if end == "h5" else [f"p/v.{end}", f"p/v_seg.{end}"])
    found = volumes.scan(tmp_path, classes=NAMES, slices=axis, spacing=[3, 0.5, 0.25])
    assert [i.id for i in found.items] == [f"v-{n:04d}" for n in range(SHAPE[axis])]
    assert {i.group for i in found.items} == {"v"} and found.dimensions == 2
    for index, item in enumerate(found.items):
        raw = volumes.load(item)
        assert (raw.labels == LABEL.take(index, axis)).all() and raw.labels.shape == SHAPE[:axis] + SHAPE[axis + 1 :]
        assert (picture(raw.image) == IMAGE.take(index, axis) >> 4).all(), "12 bits are in use in the volume"
        assert raw.spacing == [(0.5, 0.25), (3, 0.25), (3, 0.5)][axis]


def test_all_slices_share_one_scale(tmp_path: Path) -> None:
    dark = np.stack([np.full((4, 4), level, np.uint16) for level in (3, 300, 60000)])
    for name, image in (("u16", dark), ("i16", dark.astype(np.int32) - 1000), ("f32", dark / np.float32(7))):
        write(tmp_path / name / "v.npy", image)
        write(tmp_path / name / "v_seg.npy", np.zeros((3, 4, 4), np.uint8))
        items = volumes.scan(tmp_path / name, classes=["all"], slices=0).items
        levels = [np.unique(picture(volumes.load(item).image)).tolist() for item in items]
        assert levels == [[0], [1], [234 if name == "u16" else 255]], name


def test_windows(tmp_path: Path) -> None:
    """Without `window` the percentiles of the whole volume are 0 and 255; values that are not finite are dark, or bright."""
    image = np.linspace(-1000, 3000, 4 * 50 * 50).reshape(4, 50, 50).astype(np.float32)
    low, high = np.percentile(image, (0.5, 99.5))
    image[0, 0, :3], image[3, 3, 3] = (np.nan, -np.inf, np.inf), 1e9
    write(tmp_path / "v.npy", image)
    write(tmp_path / "v_seg.npy", np.zeros(image.shape, np.uint8))
    for window, (bottom, top) in ((None, (low, high)), ([-160, 240], (-160, 240))):
        items = volumes.scan(tmp_path, classes=["all"], slices=0, window=window).items
        got = np.stack([picture(volumes.load(item).image) for item in items]).astype(float)
        wanted = np.clip((np.nan_to_num(image, nan=-1e9, neginf=-1e9) - bottom) / (top - bottom), 0, 1) * 255
        assert np.abs(got - wanted).max() <= 1 and got.min() == 0 and got.max() == 255 and got.dtype == float
    write(tmp_path / "v.npy", np.full(image.shape, np.nan, np.float32))
    assert "v.npy: holds no finite value" in error_of(volumes.scan(tmp_path, classes=["all"], slices=0).items[0])


def test_8_bit_volumes_stay_as_they_are_but_for_a_window(tmp_path: Path) -> None:
    image = (IMAGE % 40).astype(np.uint8)
    write(tmp_path / "v.npy", image)
    write(tmp_path / "v_seg.npy", LABEL)
    raw = volumes.load(volumes.scan(tmp_path, classes=NAMES, slices=0).items[2])
    assert (picture(raw.image) == image[2]).all()
    raw = volumes.load(volumes.scan(tmp_path, classes=NAMES, slices=0, window=[0, 51]).items[2])
    assert (picture(raw.image) == image[2] * 5).all()


def test_a_volume_is_decoded_once_for_all_its_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz"])
    items = volumes.scan(tmp_path, classes=NAMES, slices=0).items
    decoded: Counter[str] = Counter()
    real = voxels.read

    def counting(path: Path, **options: Any) -> np.ndarray:
        decoded[path.name] += 1
        return real(path, **options)

    monkeypatch.setattr(voxels, "read", counting)
    for item in items:
        volumes.load(item)
    assert len(items) == 10 and set(decoded.values()) == {1} and len(decoded) == 4
    write(tmp_path / "b_seg.nii.gz", 2 - LABEL)
    assert (volumes.load(items[-1]).labels == 2 - LABEL[-1]).all(), "a changed file is read again"


def test_instances(tmp_path: Path) -> None:
    numbers = np.zeros(SHAPE, np.uint16)
    numbers[1:4, :2, :3], numbers[2, 4:, 4:], numbers[2, 4, 0] = 7, 40000, 7
    write(tmp_path / "img.tif", IMAGE)
    write(tmp_path / "mask.tif", numbers)
    found = volumes.scan(tmp_path, instances=True, slices=0)
    assert [(c.name, c.thing) for c in found.classes] == [("background", False), ("object", True)]
    for index, item in enumerate(found.items):
        raw = volumes.load(item)
        assert (raw.labels == (numbers[index] > 0)).all()
        assert [(r["category"], r["iscrowd"]) for r in raw.instances] == [(1, False)] * len(set(np.unique(numbers[index])) - {0})
        for row, number in zip(raw.instances, (7, 40000), strict=False):
            assert (row["mask"] == (numbers[index] == number)).all()
    assert not found.faults
    whole = volumes.scan(tmp_path, instances=True, classes=["rest", "nucleus"])
    raw = volumes.load(whole.items[0])
    assert (raw.labels == (numbers > 0)).all() and raw.instances == []
    assert [(f.kind, f.severity) for f in whole.faults] == [("not_read", "warning")] and "`slices`" in whole.faults[0].fix
    with pytest.raises(ValueError, match="classes: .*with `instances` there are two"):
        volumes.scan(tmp_path, instances=True, classes=NAMES)


def test_classes_that_are_given(tmp_path: Path) -> None:
    fill(tmp_path, ["a.npy", "a_seg.npy"])
    found = volumes.scan(tmp_path, classes={0: "rest", 4: "tumour"})
    assert [c.name for c in found.classes] == ["rest", "tumour"] and found.labels == {0: 0, 4: 1, 255: 255}
    assert volumes.scan(tmp_path, classes={0: "rest", 255: "tumour"}).labels == {0: 0, 255: 1}
    with pytest.raises(ValueError, match="classes: .*whole numbers"):
        volumes.scan(tmp_path, classes={"rest": [0, 0, 0], "tumour": [255, 0, 0]})


@pytest.mark.parametrize(
    ("labels", "names", "values"),
    [
        ({"background": 0, "liver": 1, "tumour": 2}, ["background", "liver", "tumour"], {0: 0, 1: 1, 2: 2, 255: 255}),
        ({"background": 0, "liver": 1, "ignore": 2}, ["background", "liver"], {0: 0, 1: 1, 2: 255, 255: 255}),
        ({"0": "background", "1": "liver", "2": "tumour"}, ["background", "liver", "tumour"], {0: 0, 1: 1, 2: 2, 255: 255}),
        ({"background": 0, "whole": [1, 2], "core": 2}, ["class 0", "class 1", "class 2"], {0: 0, 1: 1, 2: 2, 255: 255}),
    ],
)
def test_classes_of_dataset_json(tmp_path: Path, labels: dict[str, Any], names: list[str], values: dict[int, int]) -> None:
    fill(tmp_path, ["Task/imagesTr/a_0000.nii.gz", "Task/labelsTr/a.nii.gz"])
    (tmp_path / "Task" / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}}))
    found = volumes.scan(tmp_path)
    assert [c.name for c in found.classes] == names and found.labels == values
    (tmp_path / "Task" / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json: not valid JSON"):
        volumes.scan(tmp_path)


@pytest.mark.parametrize(
    ("values", "names", "labels", "kind"),
    [
        ([0, 1, 2], ["class 0", "class 1", "class 2"], {0: 0, 1: 1, 2: 2, 255: 255}, "made_up_classes"),
        ([0, 1, 4, 255], ["class 0", "class 1", "class 4"], {0: 0, 1: 1, 4: 2, 255: 255}, "made_up_classes"),
        ([0, 255], ["class 0", "class 255"], {0: 0, 255: 1}, "binary_mask"),
        ([-1, 0, 1], ["class 0", "class 1"], {0: 0, 1: 1, 255: 255}, "made_up_classes"),
    ],
)
def test_classes_that_are_found(tmp_path: Path, values: list[int], names: list[str], labels: dict[int, int], kind: str) -> None:
    for number, value in enumerate(values):
        write(tmp_path / "images" / f"{number}.npy", IMAGE)
        write(tmp_path / "labels" / f"{number}.npy", np.full(SHAPE, value, np.int16))
    found = volumes.scan(tmp_path)
    assert [c.name for c in found.classes] == names and found.labels == labels
    (fault,) = found.faults
    assert (fault.kind, fault.severity) == (kind, "warning") and "classes: {0: " in fault.fix


def test_too_many_values_are_instances(tmp_path: Path) -> None:
    write(tmp_path / "img.npy", np.zeros((7, 6, 7), np.uint8))
    write(tmp_path / "mask.npy", np.arange(7 * 6 * 7).reshape(7, 6, 7))
    with pytest.raises(ValueError, match="294 different label values in 1 volumes, 0 to 293. .*`instances: true`"):
        volumes.scan(tmp_path)


def test_lists_settle_splits_and_names(tmp_path: Path) -> None:
    """The tree of the left-atrium data: equal file names, and lists of the folders' names beside them."""
    fill(tmp_path, [f"data/Training Set/{name}/mri_norm2.h5" for name in ("A1", "B2", "C3")])
    (tmp_path / "data" / "train.list").write_text("B2\nA1\n\n")
    (tmp_path / "data" / "test.list").write_text("C3")
    found = volumes.scan(tmp_path, classes=NAMES)
    assert {i.id: i.split for i in found.items} == {"A1": "train", "B2": "train", "C3": "test"} and not found.faults
    (tmp_path / "data" / "test.list").unlink()
    found = volumes.scan(tmp_path, classes=NAMES)
    assert {i.id: i.split for i in found.items} == {"A1": "train", "B2": "train"}
    assert [(f.kind, f.example) for f in found.faults] == [("no_split", "data/Training Set/C3/mri_norm2.h5")]
    (tmp_path / "data" / "val.list").write_text("C3\nD4\n")
    with pytest.raises(ValueError, match=r"val\.list, line 2: no volume 'D4'"):
        volumes.scan(tmp_path, classes=NAMES)
    (tmp_path / "data" / "val.list").write_text("C3\nB2\n")
    with pytest.raises(ValueError, match=r"val\.list, line 2: 'B2' is in train\.list, line 1"):
        volumes.scan(tmp_path, classes=NAMES)


def test_one_listed_volume_has_the_name_of_the_list(tmp_path: Path) -> None:
    fill(tmp_path, ["A1/mri_norm2.h5"])
    (tmp_path / "train.txt").write_text("A1\n")
    assert [(i.id, i.split) for i in volumes.scan(tmp_path, classes=NAMES).items] == [("A1", "train")]


def test_files_without_a_partner(tmp_path: Path) -> None:
    names = ["images/1.npy", "labels/1.npy", "images/2.npy", "labels/3.npy", "images/4.npy", "images/4.tif", "labels/4.npy"]
    found = volumes.scan(fill(tmp_path, names), classes=NAMES)
    assert [i.id for i in found.items] == ["1"]
    assert [(f.kind, f.example, f.severity) for f in found.faults] == [
        ("no_mask", "images/2.npy", "error"),
        ("duplicate_id", "images/4.npy, images/4.tif, labels/4.npy", "error"),
        ("no_image", "labels/3.npy", "error"),
    ]


def test_channels_of_nnunet(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "imagesTr" / f"a_000{number}.nii.gz", IMAGE + np.uint16(number))
    write(tmp_path / "labelsTr" / "a.nii.gz", LABEL)
    found = volumes.scan(tmp_path, classes=NAMES)
    assert [(f.kind, f.severity, f.example) for f in found.faults] == [("not_read", "warning", "imagesTr/a_0001.nii.gz")]
    assert (volume(volumes.load(found.items[0]).image) == IMAGE).all() and [i.id for i in found.items] == ["a"]
    found = volumes.scan(tmp_path, classes=NAMES, channel=1)
    assert not found.faults and (volume(volumes.load(found.items[0]).image) == IMAGE + 1).all()


def test_patterns(tmp_path: Path) -> None:
    names = [f"{case}/{case}_{what}.nii.gz" for case in ("B1", "B2") for what in ("flair", "t1", "seg")]
    fill(tmp_path, names)
    found = volumes.scan(tmp_path, classes=NAMES, images="{id}/{id}_t1.nii.gz", labels="{id}/{id}_seg.nii.gz")
    assert [(i.id, i.source) for i in found.items] == [("B1", "B1/B1_t1.nii.gz"), ("B2", "B2/B2_t1.nii.gz")] and not found.faults
    (tmp_path / "B2" / "B2_seg.nii.gz").unlink()
    found = volumes.scan(tmp_path, classes=NAMES, images="*/{id}_t1.nii.gz", labels="*/{id}_seg.nii.gz")
    assert [i.id for i in found.items] == ["B1"] and [(f.kind, f.example) for f in found.faults] == [("no_mask", "B2/B2_t1.nii.gz")]


def test_a_file_that_fits_both_patterns_belongs_to_the_longer_one(tmp_path: Path) -> None:
    fill(tmp_path, ["a.nii.gz", "a_ann.nii.gz", "b.nii.gz", "b_ann.nii.gz"])
    found = volumes.scan(tmp_path, classes=NAMES, images="{id}.nii.gz", labels="{id}_ann.nii.gz")
    assert [i.id for i in found.items] == ["a", "b"] and not found.faults
