"""COCO 2017: the official layout on a made-up tree, for every task, its odd ways to lie, and what is missing or damaged."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import coco
from segpipe.layout import Item, Raw, Scan
from segpipe.params import read_params
from segpipe.shards import Split
from tests.datasets import coco_trees
from tests.datasets.coco_trees import SIZE, dump, official
from tests.imports import ROOT

IMAGES = {"train2017": [9, 25], "val2017": [139]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return official(tmp_path / "raw", IMAGES)


def decode(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(coco_mask.decode(row["rle"]), bool)


def mapped(scan: Scan, raw: Raw) -> np.ndarray:
    """Class indices as convert makes them; a value that is not in the table fails."""
    return np.vectorize(scan.labels.__getitem__)(raw.labels)


def test_ids_splits_and_sources(tree: Path) -> None:
    (tree / "test2017").mkdir()
    coco_trees.picture(tree / "test2017" / "000000000001.jpg")
    for raw in (tree, tree.parent, tree.parent.parent):
        for task in (*coco.TASKS, "auto"):
            items = coco.scan(raw, task=task).items
            assert [(i.id, i.split, i.group) for i in items] == [
                ("000000000009", "train", "000000000009"),
                ("000000000025", "train", "000000000025"),
                ("000000000139", "val", "000000000139"),
            ]
            assert all((raw / item.source).samefile(item.image) for item in items)


@pytest.mark.parametrize("packed", [False, True], ids=["a folder of PNGs", "the archive's own zip"])
@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_panoptic_segments(tmp_path: Path, packed: bool, task: str) -> None:
    scan = coco.scan(official(tmp_path / "raw", IMAGES, packed=packed), task=task)
    assert [(c.name, c.thing) for c in scan.classes] == [("person", True), ("toothbrush", True), ("road", False)]
    assert scan.classes[2].colour == (1, 2, 3) and not scan.faults and scan.task == task
    for item in scan.items:
        raw = coco.load(item)
        expected = np.full(SIZE, 255)
        expected[:12, 2:] = 2
        expected[12:, 2:] = 0  # a crowd of persons is of the class person
        expected[0, 2] = 1
        assert (mapped(scan, raw) == expected).all() and raw.image == item.image.read_bytes() and not raw.faults
        assert [(row["category"], row["iscrowd"]) for row in raw.instances] == [(0, False), (0, True), (1, False)]
        columns = np.indices(SIZE)[1]
        for row, inside in zip(raw.instances, (columns < 16, columns >= 16, columns == 2), strict=True):
            assert (decode(row) == (expected == row["category"]) & inside).all()


@pytest.mark.parametrize(("task", "word"), [("things", "semantic"), ("instances", "instance")])
def test_outlines_are_drawn_small_over_large_and_crowds_are_ignored(tree: Path, task: str, word: str) -> None:
    scan = coco.scan(tree, task=task)
    assert [c.name for c in scan.classes] == ["background", "person", "car", "toothbrush"]
    assert [c.thing for c in scan.classes] == [False, True, True, True] and scan.task == word
    for item in scan.items:
        raw = coco.load(item)
        assert raw.labels.dtype == np.uint8 and (mapped(scan, raw) == coco_trees.drawn()).all()
        rows = [(row["category"], row["iscrowd"], int(decode(row).sum())) for row in raw.instances]
        assert rows == [(1, False, 24), (2, False, 224), (3, False, 12), (1, True, 16 * SIZE[0])], "instances keep all their pixels"


def test_stuff_maps(tree: Path) -> None:
    scan = coco.scan(tree, task="stuff")
    assert len(scan.classes) == 171 and Counter(c.thing for c in scan.classes) == {True: 80, False: 91}
    assert len({c.colour for c in scan.classes}) == len({c.name for c in scan.classes}) == 171
    for number, name in {1: "person", 11: "fire hydrant", 13: "stop sign", 90: "toothbrush", 92: "banner", 182: "wood"}.items():
        assert scan.classes[scan.labels[number - 1]].name == name
    assert not scan.labels.keys() & {i - 1 for i in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91, 183)}, "never annotated"
    raw = coco.load(scan.items[0])
    assert (raw.labels == coco_trees.stuff_map()).all() and (mapped(scan, raw) == 255).sum() == (raw.labels == 255).sum()
    assert [scan.classes[row["category"]].name for row in raw.instances] == ["person", "car", "toothbrush", "person"]


@pytest.mark.parametrize("where", ["{}", "annotations/{}", "stuffthingmaps/{}"])
def test_stuff_maps_wherever_they_were_unpacked(tree: Path, where: str) -> None:
    for name in IMAGES:
        target = tree / where.format(name)
        target.mkdir(exist_ok=True)
        for path in (tree / "stuffthingmaps" / name).iterdir():
            shutil.move(path, target / path.name)
    scan = coco.scan(tree, task="stuff")
    assert len(scan.items) == 3 and not scan.faults
    assert all((coco.load(item).labels == coco_trees.stuff_map()).all() for item in scan.items)


def test_auto_takes_the_first_task_whose_files_are_there(tree: Path) -> None:
    assert len(coco.scan(tree).classes) == 3
    for name in IMAGES:
        (tree / "annotations" / f"panoptic_{name}.json").unlink()
    assert len(coco.scan(tree).classes) == 4
    for name in IMAGES:
        (tree / "annotations" / f"instances_{name}.json").unlink()
    found = coco.scan(tree)
    assert len(found.classes) == 171 and not coco.load(found.items[0]).instances


def test_a_task_without_its_files_names_them_and_what_is_possible(tree: Path) -> None:
    shutil.rmtree(tree / "stuffthingmaps")
    with pytest.raises(ValueError, match=r"task 'stuff' needs stuffthingmaps/.* The files here allow task: semantic, things\."):
        coco.scan(tree, task="stuff")
    with pytest.raises(ValueError, match=r"task: 'panoptics'; choices: auto, semantic, panoptic, things, instances, stuff"):
        coco.scan(tree, task="panoptics")


def test_a_split_without_images_or_labels_is_left_out_with_a_warning(tree: Path) -> None:
    shutil.rmtree(tree / "train2017")
    scan = coco.scan(tree, task="things")
    assert [i.split for i in scan.items] == ["val"]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [("no_image", "warning", "train2017")]
    (tree / "annotations" / "instances_val2017.json").unlink()
    shutil.copytree(tree / "val2017", tree / "train2017")
    dump(tree / "annotations" / "instances_train2017.json", coco_trees.listed([139], coco_trees.THINGS, coco_trees.outlines(139)))
    scan = coco.scan(tree, task="things")
    assert [i.split for i in scan.items] == ["train"]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [("no_annotation", "warning", "val2017")]


@pytest.mark.parametrize("task", ["semantic", "things", "stuff"])
def test_a_missing_image_and_a_missing_map_are_named(tree: Path, task: str) -> None:
    (tree / "train2017" / "000000000009.jpg").unlink()
    for folder in (tree / "annotations" / "panoptic_train2017", tree / "stuffthingmaps" / "train2017"):
        (folder / "000000000025.png").unlink()
    scan = coco.scan(tree, task=task)
    named = {(f.kind, f.severity, f.example.rsplit("/", 1)[-1].split(".")[0]) for f in scan.faults}
    assert ("no_image", "error", "000000000009") in named
    assert (("no_mask", "error", "000000000025") in named) == (task != "things")
    assert [i.id for i in scan.items if i.split == "train"] == (["000000000025"] if task == "things" else [])


def panoptic_item(tree: Path, change: Any) -> Item:
    path = tree / "annotations" / "panoptic_train2017.json"
    document = json.loads(path.read_text())
    change(document["annotations"][0])
    dump(path, document)
    return coco.scan(tree, task="semantic").items[0]


def test_segments_that_only_one_of_png_and_json_knows(tree: Path) -> None:
    raw = coco.load(panoptic_item(tree, lambda entry: entry["segments_info"][1].update(id=77)))
    assert [(f.kind, f.severity) for f in raw.faults] == [("bad_annotation", "error"), ("empty_instance", "warning")]
    assert "segment 1795 (168 pixels)" in raw.faults[0].example and "segment 77" in raw.faults[1].example
    assert (raw.labels[12:, 2:16] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry["segments_info"][0].pop("category_id"), "lacks id or category_id"),
        (lambda entry: entry["segments_info"][0].update(id=2**24), "a segment id outside"),
        (lambda entry: entry.update(segments_info=7), "segments_info lacks"),
    ],
)
def test_a_damaged_panoptic_entry_names_its_file(tree: Path, change: Any, words: str) -> None:
    item = panoptic_item(tree, change)
    with pytest.raises(ValueError, match=rf"panoptic_train2017.json: image 9: .*{words}"):
        coco.load(item)


def test_a_panoptic_png_that_is_no_colour_picture(tree: Path) -> None:
    item = coco.scan(tree, task="semantic").items[0]
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(item.mask)
    with pytest.raises(ValueError, match="should be RGB"):
        coco.load(item)


def test_a_damaged_zip_of_pngs(tmp_path: Path) -> None:
    tree = official(tmp_path / "raw", IMAGES, packed=True)
    path = tree / "annotations" / "panoptic_train2017.zip"
    item = coco.scan(tree, task="semantic").items[1]
    whole = path.read_bytes()
    first, packed = item.extra["member"][:2]
    middle = first + 80 + packed // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"panoptic_train2017.zip: the file at byte \d+ is damaged"):
        coco.load(item)
    path.write_bytes(b"\0" * len(whole))
    with pytest.raises(ValueError, match=r"panoptic_train2017.zip: no file at byte"):
        coco.load(item)
    with pytest.raises(ValueError, match=r"panoptic_train2017.zip: .*damaged or cut"):
        coco.scan(tree, task="semantic")


def test_splits_with_other_categories_are_refused(tree: Path) -> None:
    path = tree / "annotations" / "instances_val2017.json"
    dump(path, coco_trees.listed([139], [*coco_trees.THINGS[:2], {"id": 89, "name": "comb"}], []))
    with pytest.raises(ValueError, match=r"instances_val2017.json: its categories are not those of .*\(90, 'toothbrush'\)"):
        coco.scan(tree, task="things")


def test_a_cut_annotation_file_is_named(tree: Path) -> None:
    path = tree / "annotations" / "instances_train2017.json"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"instances_train2017.json: no valid JSON at byte \d+: .*damaged or cut"):
        coco.scan(tree, task="things")


def test_the_preset_is_valid() -> None:
    params = read_params(ROOT / "presets" / "coco_stuff.yaml")
    assert params.datasets["coco_stuff"].format == "coco" and params.datasets["coco_stuff"].options == {"task": "stuff"}
    assert len({e.architecture for e in params.experiments.values()}) >= 2


def test_a_made_up_tree_converts(tree: Path, tmp_path: Path) -> None:
    """Through worker processes' pickles and the shards, with the official splits and stand-ins for test."""
    rules = {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.5}}
    for task in coco.TASKS:
        scan, out = coco.scan(tree, task=task), tmp_path / task
        info, _ = convert(tree, out, name="coco", scan=scan, load=coco.load, stand_ins=rules, workers=2, previews=1)
        assert info.splits == {"train": 1, "val": 1, "test": 1} and info.task == scan.task
        assert (Split(out, "test").arrays(0)[1] == mapped(scan, coco.load(scan.items[2]))).all()
