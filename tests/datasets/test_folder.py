"""A user's own folder: which mask belongs to which image, in every arrangement of names, and what is said where it is not clear."""

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segpipe.datasets import folder
from segpipe.layout import WARNING
from segpipe.params import read_params
from tests.imports import ROOT

NAMES = ("7", "8", "13")
TABLE = ["a", "b", "c", "d"]


def labels_of(name: str) -> np.ndarray:
    """uint8 (6, 8): different for each name."""
    return ((np.arange(48) + int(name)) // 5 % 4).astype(np.uint8).reshape(6, 8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"truth": {"Segmentation": pixels, "Count": 3}})
    else:
        Image.fromarray(pixels).save(path)


def make(raw: Path, image: str, mask: str, names: tuple[str, ...] = NAMES) -> Path:
    for name in names:
        write(raw / image.replace("7", name), np.full((6, 8, 3), int(name), np.uint8))
        write(raw / mask.replace("7", name), labels_of(name))
    return raw


@pytest.mark.parametrize(
    ("image", "mask", "split"),
    [
        ("images/7.jpg", "masks/7.png", None),
        ("Images/7.PNG", "Labels/7.PNG", None),
        ("image/7.jpg", "groundTruth/7.mat", None),
        ("img_dir/7.png", "ann_dir/7.png", None),
        ("imgs/7.bmp", "gt/7.gif", None),
        ("JPEGImages/7.jpg", "SegmentationClass/7.png", None),
        ("images_cut/7.png", "labels_cut/7.png", None),
        ("some/where/deep/images/7.png", "some/where/deep/masks/7.tif", None),
        ("photos of mine/7.jpg", "masks/7.npy", None),
        ("train/images/7.png", "train/masks/7.png", "train"),
        ("dataset/images/valid/7.png", "dataset/labels/valid/7.png", "val"),
        ("images/testing/7.jpg", "annotations/testing/7.png", "test"),
        ("train/7.png", "trainannot/7.png", "train"),
        ("val_img/7.png", "val_label/7.png", "val"),
        ("images/train/7.png", "masks/7.png", "train"),
        ("images/7_image.png", "annotations/7_annotation.png", None),
        ("images/img7.png", "labels/label7.png", None),
        ("7.png", "7_mask.png", None),
        ("Demo/Data/7.jpg", "Demo/Data/7-mask.png", None),
        ("test/7.png", "test/7_gt.png", "test"),
        ("image_7.png", "mask_7.png", None),
        ("7.jpg", "7.png", None),
        ("images/7.jpg", "images/7.png", None),
        ("images/7.png", "images/7_label.png", None),
    ],
)
def test_arrangements_found_by_themselves(tmp_path: Path, image: str, mask: str, split: str | None) -> None:
    make(tmp_path, image, mask)
    scan = folder.scan(tmp_path, classes=TABLE)
    assert sorted(item.id for item in scan.items) == sorted(NAMES)
    assert {item.split for item in scan.items} == {split} and not scan.faults
    for item in scan.items:
        assert (tmp_path / item.source).samefile(item.image) and item.group == item.id
        raw = folder.load(item)
        assert raw.image == item.image.read_bytes() and (raw.labels == labels_of(item.id)).all()
        pixels = np.asarray(Image.open(io.BytesIO(raw.image)).convert("RGB"))
        assert abs(pixels.mean() - int(item.id)) < 2, "the image is the grey that was written for this name"


def test_equal_names_in_two_splits_and_folders_get_ids_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make(tmp_path, f"{split}/images/7.png", f"{split}/masks/7.png")
        make(tmp_path, f"{split}/images/north/7.png", f"{split}/masks/north/7.png")
    items = folder.scan(tmp_path, classes=TABLE).items
    assert len({item.id for item in items}) == len(items) == 12
    assert {"train/7", "test/north/13"} <= {item.id for item in items}
    assert {item.split for item in items} == {"train", "test"}
    for item in items:
        assert item.mask is not None and item.mask.relative_to(tmp_path).as_posix() == item.source.replace("images", "masks")


def test_masks_that_lie_among_the_images_are_no_images(tmp_path: Path) -> None:
    """With 7.png and 7_mask.png in images/ and 7_mask.png in masks/, equal names would pair the mask with itself."""
    make(tmp_path, "images/7.png", "masks/7_mask.png")
    for name in NAMES:
        write(tmp_path / "images" / f"{name}_mask.png", labels_of("0"))
    make(tmp_path, "preview/7.png", "preview/7_mask.png")
    scan = folder.scan(tmp_path, classes=TABLE)
    assert sorted(item.source for item in scan.items) == ["images/13.png", "images/7.png", "images/8.png"]
    assert all(item.mask is not None and item.mask.parent.name == "masks" for item in scan.items)
    assert [fault.kind for fault in scan.faults] == ["spare_mask"] * 3


def test_of_two_folders_of_masks_none_is_guessed(tmp_path: Path) -> None:
    make(tmp_path, "images/7.png", "masks/7.png")
    make(tmp_path, "images/7.png", "labels/7.png")
    with pytest.raises(ValueError, match=r'images with labels \(3 pairs\); images with masks \(3 pairs\).*masks: "labels"'):
        folder.scan(tmp_path, classes=TABLE)
    items = folder.scan(tmp_path, masks="labels", classes=TABLE).items
    assert {item.mask.parent.name for item in items if item.mask} == {"labels"} and len(items) == 3


@pytest.mark.parametrize(
    ("image", "mask", "options", "group"),
    [
        ("photos/7_rgb.png", "truth/x_7.png", {"images": "photos/{id}_rgb.png", "masks": "truth/x_{id}.png"}, None),
        ("raw/a7.png", "out/a7_seg.png", {"images": "raw/{id}", "masks": "out/{id}_seg"}, None),
        ("p1/im/7.png", "p1/7/lab.png", {"images": "{group}/im/{id}.png", "masks": "{group}/{id}/lab.png"}, "p1"),
        ("images/7_image.png", "ann/7_a.png", {"images": "images/{id}_image", "masks": "ann/{id}_a"}, None),
        ("x/y/7.png", "z/a_7.png", {"images": "**/y/{id}.png", "masks": "z/*_{id}.png"}, None),
    ],
)
def test_patterns(tmp_path: Path, image: str, mask: str, options: dict[str, str], group: str | None) -> None:
    make(tmp_path, image, mask)
    for path in list(tmp_path.rglob("*.png")):
        path.with_suffix(".yaml").write_text("polygons")
    items = folder.scan(tmp_path, classes=TABLE, **options).items
    assert len(items) == 3 and all(item.group == (group or item.id) for item in items)
    for item in items:
        assert (folder.load(item).labels == labels_of(item.image.stem.strip("a").split("_")[0])).all()


def test_a_pattern_can_hold_the_split(tmp_path: Path) -> None:
    for split, name in (("train", "7"), ("Valid", "8")):
        make(tmp_path, f"7_{split}.png", f"truth/7_{split}.png", (name,))
    items = folder.scan(tmp_path, images="{id}_{split}.png", masks="truth/{id}_{split}.png", classes=TABLE).items
    assert [(item.id, item.split) for item in items] == [("7", "train"), ("8", "val")]


def test_groups_are_found_in_the_id(tmp_path: Path) -> None:
    make(tmp_path, "images/p1_7.png", "masks/p1_7.png")
    for rule in ("{group}_*", "{group}_{id}", r"(p\d+)_", r"([a-z]\d)"):
        assert {item.group for item in folder.scan(tmp_path, group=rule, classes=TABLE).items} == {"p1"}
    with pytest.raises(ValueError, match=r"group: 'q\(\.\)' finds no group in the id 'p1_13'"):
        folder.scan(tmp_path, group="q(.)", classes=TABLE)
    with pytest.raises(ValueError, match=r"group: 'p1'; write a pattern such as"):
        folder.scan(tmp_path, group="p1", classes=TABLE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "{name}.png"}, r"images: '\{name\}.png' holds \{name\}; the placeholders are \{id\}"),
        ({"masks": "truth/{id}.png"}, r"no image with a mask is named by masks: 'truth/\{id\}.png'. The folder holds a/7.xyz"),
        ({}, r"Looked for a folder images.*7_mask.png.*The folder holds a/7.xyz, b/7.txt and 1 more. Say how.*\{id\}"),
    ],
)
def test_nothing_found_says_what_was_looked_for(tmp_path: Path, options: dict[str, str], message: str) -> None:
    for name in ("a/7.xyz", "b/7.txt", "b/8.txt", ".hidden/images/7.png", "__MACOSX/images/7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message) as caught:
        folder.scan(tmp_path, **options)
    assert str(tmp_path) in str(caught.value) or "placeholders" in message


def test_files_without_a_partner_are_left_out_and_said(tmp_path: Path) -> None:
    make(tmp_path, "images/7.png", "masks/7.png")
    write(tmp_path / "images" / "99.png", np.zeros((6, 8, 3), np.uint8))
    write(tmp_path / "masks" / "98.png", labels_of("7"))
    write(tmp_path / "masks" / "8.tif", labels_of("7"))
    scan = folder.scan(tmp_path, classes=TABLE)
    assert [item.id for item in scan.items] == ["13", "7"]
    told = {(fault.kind, fault.severity, fault.example) for fault in scan.faults}
    several = ("two_masks", "error", "images/8.png: masks/8.png, masks/8.tif")
    assert told == {("no_mask", WARNING, "images/99.png"), ("no_image", WARNING, "masks/98.png"), several}


def test_lists_tell_the_split(tmp_path: Path) -> None:
    make(tmp_path, "images/7.png", "masks/7.png")
    write(tmp_path / "images" / "99.png", np.zeros((6, 8, 3), np.uint8))
    (tmp_path / "train.txt").write_text("/home/else/images/7.png /home/else/masks/7.png\n99\n\n")
    (tmp_path / "valid.txt").write_text("8\n")
    scan = folder.scan(tmp_path, classes=TABLE)
    assert [(item.id, item.split) for item in scan.items] == [("7", "train"), ("8", "val")]
    assert {(fault.kind, fault.example) for fault in scan.faults} == {("no_split", "images/13.png"), ("no_mask", "images/99.png")}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train.txt": "7\nnine\n"}, r"train.txt, line 2: 'nine'; no image is called that"),
        ({"train.txt": "7\n", "val.txt": "8\n7\n"}, r"val.txt, line 2: '7'; another list has it in train"),
        ({"a/train.txt": "7\n", "b/train.txt": "7\n"}, r"lists of splits in several folders, a, b; keep those of one"),
    ],
)
def test_wrong_lists(tmp_path: Path, lists: dict[str, str], message: str) -> None:
    make(tmp_path, "images/7.png", "masks/7.png")
    for name, text in lists.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        folder.scan(tmp_path, classes=TABLE)


def test_a_list_of_voc_is_that_of_its_segmentation_task(tmp_path: Path) -> None:
    make(tmp_path, "JPEGImages/7.jpg", "SegmentationClass/7.png")
    for task, text in (("Main", "13\n"), ("Segmentation", "7\n8\n")):
        (tmp_path / "ImageSets" / task).mkdir(parents=True)
        (tmp_path / "ImageSets" / task / "train.txt").write_text(text)
    assert [item.id for item in folder.scan(tmp_path, classes=TABLE).items] == ["7", "8"]


def test_preset_is_complete_and_valid() -> None:
    params = read_params(ROOT / "presets" / "folder.yaml")
    assert params.datasets["mine"].format == "folder" and params.datasets["mine"].source
    assert len({e.architecture for e in params.experiments.values()}) >= 2


def test_every_option_in_the_preset_is_one(tmp_path: Path) -> None:
    """The keys that are written as comments, uncommented."""
    lines = (ROOT / "presets" / "folder.yaml").read_text().splitlines()
    (tmp_path / "params.yaml").write_text("\n".join(line.replace("    # ", "    ", 1) for line in lines))
    options = read_params(tmp_path / "params.yaml").datasets["mine"].options
    assert set(options) == {"images", "masks", "group", "classes", "ignore"}
    make(tmp_path, "photos/p1_7_rgb.png", "labels/p1_7_label.png")
    scan = folder.scan(tmp_path, **options)
    assert {item.group for item in scan.items} == {"p1"} and [c.name for c in scan.classes] == ["background", "crack"]
    assert scan.labels == {0: 0, 255: 1, 128: 255}
