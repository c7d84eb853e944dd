"""Cityscapes: the official tree in small, its polygons, the real frames where this machine has them, and the preset."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import cityscapes
from segpipe.layout import Item
from segpipe.params import read_params
from segpipe.shards import Split
from tests.imports import ROOT

HEIGHT, WIDTH = 12, 20
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9}
TRAIN_IDS |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
"""Written down again, from the paper's table, on purpose."""


def add(
    folder: Path,
    split: str,
    name: str,
    *,
    images: str = "leftImg8bit",
    truth: str = "gtFine",
    files: Mapping[str, np.ndarray | dict[str, Any]],
) -> None:
    """One frame of the official tree; `files` holds what to write, by the end of its name."""
    city, kind = name.split("_")[0], Path(truth).name
    for place in (folder / images / split / city, folder / truth / split / city):
        place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 80, 70)).save(folder / images / split / city / f"{name}_leftImg8bit.png")
    for ending, content in files.items():
        path = folder / truth / split / city / f"{name}_{kind}_{ending}"
        if isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            Image.fromarray(content).save(path)


def all_ids() -> np.ndarray:
    return np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 34


def only(folder: Path, **options: str) -> Item:
    (item,) = cityscapes.scan(folder, **options).items
    return item


def objects(*rows: tuple[str, list[list[int]]], **more: Any) -> dict[str, Any]:
    return {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [{"label": label, "polygon": p} | more for label, p in rows]}


@pytest.mark.parametrize(
    "inside", [("leftImg8bit", "gtFine"), ("leftImg8bit_trainvaltest/leftImg8bit", "a/gtFine_trainvaltest/gtFine")]
)
def test_splits_ids_and_groups(tmp_path: Path, inside: tuple[str, str]) -> None:
    for split, name in (("train", "ulm_000001_000019"), ("train", "bochum_000000_000313"), ("val", "lindau_000004_000019")):
        add(tmp_path, split, name, images=inside[0], truth=inside[1], files={"labelIds.png": all_ids()})
    dummy = np.full((HEIGHT, WIDTH), 3, np.uint8)
    add(tmp_path, "test", "berlin_000000_000019", images=inside[0], truth=inside[1], files={"labelIds.png": dummy})
    scan = cityscapes.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("bochum_000000_000313", "train", "bochum"),
        ("ulm_000001_000019", "train", "ulm"),
        ("lindau_000004_000019", "val", "lindau"),
    ]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    assert not scan.faults and len(scan.classes) == 19 and scan.ignore_index == 255


def test_label_ids_become_train_ids_and_the_rest_is_ignored(tmp_path: Path) -> None:
    add(tmp_path, "train", "ulm_000001_000019", files={"labelIds.png": all_ids()})
    scan = cityscapes.scan(tmp_path)
    assert scan.labels == {number: TRAIN_IDS.get(number, 255) for number in range(-1, 34)}
    assert (cityscapes.load(scan.items[0]).labels == all_ids()).all(), "labels stay those of the source"
    assert [c.name for c in scan.classes if c.thing] == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert scan.classes[TRAIN_IDS[23]].name == "sky" and scan.classes[TRAIN_IDS[31]].colour == (0, 80, 100)


def test_instances_of_the_eight_thing_classes_and_groups_as_crowd(tmp_path: Path) -> None:
    numbers = np.zeros((HEIGHT, WIDTH), np.uint16)
    numbers[:2], numbers[2:4], numbers[4], numbers[5, :7], numbers[5, 7:] = 7, 26000, 26013, 24000, 26
    numbers[6], numbers[7], numbers[8, 3] = 29000, 30, 33002  # caravans and trailers are no classes
    labels = np.where(numbers >= 1000, numbers // 1000, numbers).astype(np.uint8)
    add(tmp_path, "train", "ulm_000001_000019", files={"labelIds.png": labels, "instanceIds.png": numbers})
    raw = cityscapes.load(only(tmp_path))
    rows = {(row["category"], row["iscrowd"]): coco_mask.decode(row["rle"]) for row in raw.instances if row["category"] != 13}
    assert (rows[11, False] == (numbers == 24000)).all() and (rows[18, False] == (numbers == 33002)).all() and len(rows) == 2
    cars = [(row["iscrowd"], coco_mask.decode(row["rle"]).astype(bool)) for row in raw.instances if row["category"] == 13]
    assert [crowd for crowd, _ in cars] == [True, False, False]
    assert all((mask == (numbers == n)).all() for (_, mask), n in zip(cars, (26, 26000, 26013), strict=True))


def test_polygons_are_drawn_by_the_official_rule_where_there_is_no_png(tmp_path: Path) -> None:
    square = [[2, 2], [9, 2], [9, 8], [2, 8]]
    shapes: list[tuple[str, list[list[int]]]] = [
        ("road", [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]),
        ("car", square),
        ("license plate", [[3, 3], [5, 3], [5, 5], [3, 5]]),
        ("car", [[7, 4], [14, 4], [11, 10]]),
        ("persongroup", [[15, 1], [19, 1], [19, 6], [15, 6]]),
        ("polegroup", [[16, 8], [18, 8], [18, 11], [16, 11]]),
        ("truck", [[0, 10], [4, 10], [4, 11], [0, 11]]),
    ]
    document = objects(*shapes)
    document["objects"].insert(2, {"label": "bus", "polygon": square, "deleted": 1})
    add(tmp_path, "train", "ulm_000001_000019", files={"polygons.json": document})
    raw = cityscapes.load(only(tmp_path))
    labels = Image.new("L", (WIDTH, HEIGHT), 0)
    for (_, polygon), number in zip(shapes, (7, 26, None, 26, 24, 18, 27), strict=True):
        if number is not None:  # plates stay what is under them
            ImageDraw.Draw(labels).polygon([(x, y) for x, y in polygon], fill=number)
    assert raw.labels.dtype == np.uint8 and (raw.labels == np.asarray(labels)).all()
    assert raw.labels[4, 4] == 26 and raw.labels[5, 9] == 26 and (raw.labels == 18).any() and not raw.faults
    rows = [(row["category"], row["iscrowd"]) for row in raw.instances]
    assert rows == [(11, True), (13, False), (13, False), (14, False)]
    first, second = (coco_mask.decode(row["rle"]) for row in raw.instances[1:3])
    assert first[2:9, 2:7].all() and second[5, 9] and not first[5, 9], "the later car lies on top"
    assert ((first + second).astype(bool) == (raw.labels == 26)).all()


def test_faults_of_polygons_name_the_file(tmp_path: Path) -> None:
    add(
        tmp_path,
        "train",
        "ulm_000001_000019",
        files={"polygons.json": objects(("zebra", [[0, 0], [4, 0], [4, 4]]), ("car", [[1, 1]]))},
    )
    raw = cityscapes.load(only(tmp_path))
    assert [(f.kind, f.severity, f.example) for f in raw.faults] == [
        ("unknown_category", "error", "ulm_000001_000019_gtFine_polygons.json"),
        ("bad_polygon", "warning", "ulm_000001_000019_gtFine_polygons.json"),
    ]
    assert "'zebra'" in raw.faults[0].what and not raw.labels.any()


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"imgWidth": 20, "imgHeight": 12, "objects": [{"label": "car"}]}', '{"imgWidth": 20}']
)
def test_a_damaged_polygons_file_is_named(tmp_path: Path, damage: str) -> None:
    add(tmp_path, "train", "ulm_000001_000019", files={"polygons.json": {}})
    item = only(tmp_path)
    assert item.mask is not None
    item.mask.write_text(damage)
    with pytest.raises(ValueError, match="ulm_000001_000019_gtFine_polygons.json: no Cityscapes polygons"):
        cityscapes.load(item)


def test_train_ids_are_read_where_only_they_exist(tmp_path: Path) -> None:
    train_ids = np.full((HEIGHT, WIDTH), 255, np.uint8)
    train_ids[0, :19] = np.arange(19)
    add(tmp_path, "train", "ulm_000001_000019", files={"labelTrainIds.png": train_ids})
    scan = cityscapes.scan(tmp_path)
    raw = cityscapes.load(scan.items[0])
    assert [scan.labels[int(v)] for v in raw.labels[0, :19]] == list(range(19)) and not raw.faults
    assert scan.labels[int(raw.labels[5, 5])] == 255
    add(tmp_path, "train", "ulm_000001_000019", files={"labelTrainIds.png": np.full((HEIGHT, WIDTH), 23, np.uint8)})
    (fault,) = cityscapes.load(only(tmp_path)).faults
    assert fault.kind == "unknown_label" and "23" in fault.what and "leftImg8bit/train/ulm" in fault.example
    add(tmp_path, "train", "ulm_000001_000019", files={"labelIds.png": all_ids(), "labelTrainIds.png": train_ids})
    assert (cityscapes.load(only(tmp_path)).labels == all_ids()).all(), "labelIds come first"


def test_coarse_adds_train_extra_to_train(tmp_path: Path) -> None:
    for split, name in (("train", "ulm_000001_000019"), ("train_extra", "mainz_000000_000001"), ("val", "lindau_000004_000019")):
        add(tmp_path, split, name, truth="gtCoarse", files={"labelIds.png": all_ids()})
    scan = cityscapes.scan(tmp_path, annotation="coarse")
    assert [(i.id, i.split) for i in scan.items] == [
        ("ulm_000001_000019", "train"),
        ("mainz_000000_000001", "train"),
        ("lindau_000004_000019", "val"),
    ]
    with pytest.raises(ValueError, match=f"{tmp_path}: no folder gtFine/ here .*gtFine_trainvaltest.zip"):
        cityscapes.scan(tmp_path)
    with pytest.raises(ValueError, match="annotation: 'rough'; should be one of: fine, coarse"):
        cityscapes.scan(tmp_path, annotation="rough")


def test_unpaired_files_are_faults_and_nothing_paired_is_an_error(tmp_path: Path) -> None:
    add(tmp_path, "train", "ulm_000001_000019", files={"labelIds.png": all_ids()})
    add(tmp_path, "train", "ulm_000002_000019", files={})
    add(tmp_path, "val", "lindau_000004_000019", files={"labelIds.png": all_ids(), "polygons.json": {}})
    (tmp_path / "leftImg8bit/val/lindau/lindau_000004_000019_leftImg8bit.png").unlink()
    scan = cityscapes.scan(tmp_path)
    assert [i.id for i in scan.items] == ["ulm_000001_000019"]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [
        ("no_mask", "error", "leftImg8bit/train/ulm/ulm_000002_000019_leftImg8bit.png"),
        ("no_image", "warning", "gtFine/val/lindau/lindau_000004_000019"),
    ]
    (tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(ValueError, match=f"{tmp_path}: no .*leftImg8bit.png in .* with labels"):
        cityscapes.scan(tmp_path)


def test_instance_ids_of_another_size_are_refused(tmp_path: Path) -> None:
    files = {"labelIds.png": all_ids(), "instanceIds.png": np.zeros((6, 10), np.uint16)}
    add(tmp_path, "train", "ulm_000001_000019", files=files)
    with pytest.raises(ValueError, match=r"ulm_000001_000019_gtFine_instanceIds.png: instance ids \(6, 10\), labels \(12, 20\)"):
        cityscapes.load(only(tmp_path))


def test_preset_is_complete_and_valid() -> None:
    params = read_params(ROOT / "presets" / "cityscapes.yaml")
    assert params.datasets["cityscapes"].stand_in["test"] == {"from": "val"}
    assert len({e.architecture for e in params.experiments.values()}) >= 2
    assert all(e.train.size == (128, 256) for e in params.experiments.values())


def test_real_frames_convert_and_equal_their_pngs(samples: Path, tmp_path: Path) -> None:
    """All five frames: masks and every instance against the official PNGs, read here with PIL alone."""
    raw = samples / "cityscapes"
    scan = cityscapes.scan(raw)
    assert [(i.group, i.split) for i in scan.items] == [("aachen", "train")] * 4 + [("frankfurt", "val")]
    rules = {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.25}}
    info, _ = convert(raw, tmp_path / "out", name="cityscapes", scan=scan, load=cityscapes.load, stand_ins=rules, workers=1)
    assert sum(info.splits.values()) == 5 and info.splits["test"] == 1
    table = np.array([TRAIN_IDS.get(number, 255) for number in range(256)], np.uint8)
    checked = 0
    for split in ("train", "val", "test"):
        shards = Split(tmp_path / "out", split)
        for row, sample in enumerate(shards):
            (path,) = raw.glob(f"gtFine/*/*/{sample.id}_gtFine_labelIds.png")
            _, mask = shards.arrays(row)
            assert (mask == table[np.asarray(Image.open(path))]).all()
            numbers = np.asarray(Image.open(str(path).replace("labelIds", "instanceIds")))
            wanted = [n for n in np.unique(numbers).tolist() if table[n // 1000 or n] >= 11 and table[n // 1000 or n] != 255]
            found = {}
            for instance in sample.instances:
                inside = coco_mask.decode({"size": list(mask.shape), "counts": instance["rle"].encode()}).astype(bool)
                (number,) = np.unique(numbers[inside]).tolist()
                assert (inside == (numbers == number)).all() and instance["iscrowd"] == (number < 1000)
                assert instance["category"] == TRAIN_IDS[number // 1000 or number]
                found[number] = inside
            assert sorted(found) == wanted
            checked += len(found)
    assert checked == 55, "13 + 14 + 10 + 11 in aachen, one of them a group of cars, and 7 in frankfurt"


def test_real_train_ids_are_read_as_they_are(samples: Path, tmp_path: Path) -> None:
    """The frame of frankfurt without its labelIds. (The two PNGs were reduced apart and differ in 77 of 32,768 pixels.)"""
    name = "val/frankfurt/frankfurt_000000_000294"
    for part in (
        f"leftImg8bit/{name}_leftImg8bit.png",
        f"gtFine/{name}_gtFine_labelTrainIds.png",
        f"gtFine/{name}_gtFine_instanceIds.png",
    ):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(samples / "cityscapes" / part, tmp_path / part)
    scan = cityscapes.scan(tmp_path)
    raw = cityscapes.load(scan.items[0])
    truth = np.asarray(Image.open(tmp_path / f"gtFine/{name}_gtFine_labelTrainIds.png"))
    table = np.array([scan.labels.get(number, 254) for number in range(256)], np.uint8)
    assert (table[raw.labels] == truth).all() and len(raw.instances) == 7 and not raw.faults
    ids = np.asarray(Image.open(samples / "cityscapes" / f"gtFine/{name}_gtFine_labelIds.png"))
    assert (table[ids] != truth).sum() == 77
