"""VOC: the official tree and labelme's export as made-up folders, the real samples and the preset."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import voc
from segpipe.datasets.blocks.voc import colour
from segpipe.items import decode_instance
from segpipe.params import read_params
from segpipe.shards import SPLITS, Split
from tests.imports import ROOT

PALETTE = bytes(value for label in range(256) for value in colour(label))


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(PALETTE)
    image.save(path)


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A person twice, a dog, borders of 255 around them: class labels and object numbers."""
    labels, objects = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    for number, (label, x) in enumerate([(15, 2), (12, 12), (15, 22)], 1):
        labels[4 + seed % 3 : 16, x : x + 8] = objects[4 + seed % 3 : 16, x : x + 8] = 255
        labels[6:14, x + 1 : x + 7], objects[6:14, x + 1 : x + 7] = label, number
    return labels, objects


def photo(path: Path, seed: int, size: tuple[int, int] = (24, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def add(root: Path, name: str, seed: int) -> None:
    labels, objects = masks(seed)
    photo(root / "JPEGImages" / f"{name}.jpg", seed)
    save_mask(root / "SegmentationClass" / f"{name}.png", labels)
    save_mask(root / "SegmentationObject" / f"{name}.png", objects)


def tree(folder: Path, lists: dict[str, list[str]]) -> Path:
    for seed, name in enumerate(dict.fromkeys(name for names in lists.values() for name in names)):
        add(folder, name, seed)
    photo(folder / "JPEGImages" / "2012_009999.jpg", 99)  # most photos of VOC have no mask
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


@pytest.mark.parametrize("inside", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_official_tree(tmp_path: Path, inside: str) -> None:
    tree(tmp_path / inside, {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"], "trainval": []})
    scan = voc.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("2007_000032", "train", "2007_000032"),
        ("2007_000039", "train", "2007_000039"),
        ("2007_000033", "val", "2007_000033"),
    ]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    assert [c.name for c in scan.classes][:3] == ["background", "aeroplane", "bicycle"]
    assert len(scan.classes) == 21 and scan.classes[20].name == "tvmonitor"
    assert not scan.classes[0].thing and all(c.thing for c in scan.classes[1:])
    assert scan.labels == {**{i: i for i in range(21)}, 255: 255} and not scan.faults and not scan.colours
    raw = voc.load(pickle.loads(pickle.dumps(scan.items[0])))
    labels, objects = masks(0)
    assert (raw.labels == labels).all() and raw.labels.dtype == np.uint8, "the index, not the colour"
    assert raw.image == scan.items[0].image.read_bytes() and not raw.faults
    assert [row["category"] for row in raw.instances] == [15, 12, 15]
    for number, row in enumerate(raw.instances, 1):
        assert (row["mask"] == (objects == number)).all(), "255 is no object and belongs to none"


def test_colour_map_is_that_of_vocs_devkit() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 21: (128, 64, 128), 255: (224, 224, 192)}
    assert {label: colour(label) for label in known} == known
    assert len({colour(label) for label in range(460)}) == 460


def test_other_lists_and_other_masks(tmp_path: Path) -> None:
    tree(tmp_path, {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"]})
    (tmp_path / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(
        "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/2012_009999.jpg /SegmentationClassAug/2012_009999.png\n"
    )
    for name in ("a", "2012_009999", "c"):
        path = tmp_path / "SegmentationClassAug" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((24, 32), 7, np.uint8)).save(path)  # grey, as these masks are spread
    scan = voc.scan(tmp_path, lists={"train": "trainaug", "test": "val"}, masks="SegmentationClassAug")
    assert [(i.id, i.split) for i in scan.items] == [("a", "train"), ("2012_009999", "train"), ("c", "test")]
    raw = voc.load(scan.items[0])
    assert (raw.labels == 7).all() and [row["category"] for row in raw.instances] == [7, 7, 7]
    assert not voc.load(scan.items[1]).instances
    for name in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{name}.txt").unlink()
    assert [(i.id, i.split) for i in voc.scan(tmp_path).items] == [("a", None), ("b", None), ("c", None)]


def labelme(folder: Path) -> Path:
    for seed, name in enumerate(["a", "b", "c"]):
        add(folder, name, seed)
    (folder / "class_names.txt").write_text("__ignore__\n_background_\n" + "\n".join(f"kind {i}" for i in range(1, 16)))
    return folder


def test_labelmes_export(tmp_path: Path) -> None:
    scan = voc.scan(labelme(tmp_path))
    assert [c.name for c in scan.classes][:3] == ["background", "kind 1", "kind 2"] and len(scan.classes) == 16
    assert [c.thing for c in scan.classes][:3] == [False, True, True] and scan.classes[15].colour == (192, 128, 128)
    assert [(i.id, i.split) for i in scan.items] == [("a", None), ("b", None), ("c", None)] and not scan.faults
    assert scan.labels == {**{i: i for i in range(16)}, 255: 255}
    named = voc.scan(tmp_path, classes=["background", "thing", 3])
    assert [c.name for c in named.classes] == ["background", "thing", "3"]


def test_without_lists_lone_files_are_named(tmp_path: Path) -> None:
    labelme(tmp_path)
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    photo(tmp_path / "JPEGImages" / "d.jpg", 4)
    scan = voc.scan(tmp_path)
    assert [i.id for i in scan.items] == ["a", "c"]
    assert [(f.kind, f.example, f.severity) for f in scan.faults] == [
        ("no_image", "b.png", "error"),
        ("no_mask", "d.jpg", "warning"),
    ]


def test_an_object_without_a_class_is_named_and_left_out(tmp_path: Path) -> None:
    labelme(tmp_path)
    objects = masks(0)[1]
    objects[0:2, 0:3] = 9
    save_mask(tmp_path / "SegmentationObject" / "a.png", objects)
    raw = voc.load(voc.scan(tmp_path).items[0])
    assert [row["category"] for row in raw.instances] == [15, 12, 15]
    assert [(f.kind, f.example) for f in raw.faults] == [("instance_mismatch", "JPEGImages/a.jpg (object 9)")]
    assert "object 9" not in raw.faults[0].what


def test_damaged_and_unfit_masks_are_findings_of_convert(tmp_path: Path) -> None:
    """Each file is named, none ends the work: a class outside the list, a colour picture, another size, a cut file."""
    root = tmp_path / "raw"
    for seed, name in enumerate("abcdefgh"):
        add(root, name, seed)
    save_mask(root / "SegmentationClass" / "a.png", np.full((24, 32), 77))
    Image.open(root / "SegmentationClass" / "b.png").convert("RGB").save(root / "SegmentationClass" / "b.png")
    save_mask(root / "SegmentationObject" / "c.png", np.ones((24, 30)))
    cut = root / "SegmentationClass" / "d.png"
    cut.write_bytes(cut.read_bytes()[:80])
    (root / "SegmentationObject" / "e.png").write_bytes(b"")
    scan = voc.scan(root)
    items = tuple(replace(item, split=SPLITS[k % 3]) for k, item in enumerate(scan.items))
    scan = replace(scan, items=items)
    with pytest.raises(ValueError) as caught:
        convert(root, tmp_path / "out", name="voc", scan=scan, load=voc.load)
    message = str(caught.value)
    assert all(f"JPEGImages/{name}.jpg" in message for name in "abcde")
    assert not any(f"JPEGImages/{name}.jpg" in message for name in "fgh")
    assert "77" in message and "(24, 30)" in message


@pytest.mark.parametrize(
    ("options", "broken", "words"),
    [
        ({}, "JPEGImages/2007_000039.jpg", r"JPEGImages/2007_000039.jpg: missing, but named in .*train.txt, line 2"),
        ({}, "SegmentationClass/2007_000033.png", r"SegmentationClass/2007_000033.png: missing, but named in .*val.txt, line 1"),
        ({"lists": {"train": "trainval", "val": "val"}}, "", r"val.txt, line 1: 2007_000033 is listed twice, first for train"),
        ({"lists": {"train": "aug"}}, "", r"lists.train: 'aug', but .*aug.txt is missing. There are: train, trainval, val"),
        ({"lists": {"trian": "train"}}, "", r"lists.trian: 'train'; the splits are train, val, test"),
        ({"masks": "SegmentationClassAug"}, "", "no folder SegmentationClassAug/"),
        ({"classes": ["a", "b", "a"]}, "", "classes: a, b, a; should be"),
        ({"classes": ["a", "__ignore__"]}, "", "__ignore__ only as the first"),
        ({"train_aug": True}, "", r"train_aug needs SBD, .*benchmark.tgz.*`source`"),
    ],
)
def test_errors_name_file_value_and_fix(tmp_path: Path, options: dict, broken: str, words: str) -> None:
    names = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    tree(tmp_path, names | {"trainval": names["train"] + names["val"]})
    if broken:
        (tmp_path / broken).unlink()
    with pytest.raises(ValueError, match=words):
        voc.scan(tmp_path, **options)


def test_two_trees_are_not_mixed(tmp_path: Path) -> None:
    tree(tmp_path / "VOCdevkit" / "VOC2007", {"train": ["a"]})
    tree(tmp_path / "VOCdevkit" / "VOC2012", {"train": ["b"]})
    with pytest.raises(ValueError, match=r"2 times, in .*VOC2007, .*VOC2012. Set `source` to one"):
        voc.scan(tmp_path)


def test_preset_is_complete_and_valid() -> None:
    params = read_params(ROOT / "presets" / "voc2012.yaml")
    row = params.datasets["voc2012"]
    assert row.format == "voc" and row.options == {"train_aug": False}
    assert row.stand_in == {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.1}}
    assert len({e.architecture for e in params.experiments.values()}) >= 2
    assert all(e.train.minutes == 15 and e.train.size == (144, 192) for e in params.experiments.values())


def test_the_presets_splits_come_out_of_the_official_ones(tmp_path: Path) -> None:
    tree(tmp_path / "raw", {"train": [f"t{i}" for i in range(12)], "val": ["v1", "v2"]})
    rules = read_params(ROOT / "presets" / "voc2012.yaml").datasets["voc2012"].stand_in
    info, _ = convert(
        tmp_path / "raw", tmp_path / "out", name="voc", scan=voc.scan(tmp_path / "raw"), load=voc.load, stand_ins=rules
    )
    assert Split(tmp_path / "out", "test").ids == ["v1", "v2"]
    assert info.splits["train"] + info.splits["val"] == 12 and info.splits["val"] >= 1


def test_real_palette_masks_keep_their_indices_and_borders(samples: Path, tmp_path: Path) -> None:
    raw = samples / "voc2012_genuine"
    scan = voc.scan(raw)
    assert [(i.id, i.split) for i in scan.items] == [("2007_004189", "val"), ("2008_002536", "val")]
    info, _ = convert(raw, tmp_path / "out", name="voc", scan=scan, load=voc.load, complete=False)
    counts = {"2007_004189": {0: 145856, 12: 12154, 255: 8490}, "2008_002536": {0: 129916, 12: 7321, 17: 13891, 255: 8372}}
    for number, name in enumerate(counts):
        image, mask = Split(tmp_path / "out", "val").arrays(number)
        with Image.open(raw / "VOCdevkit/VOC2012/SegmentationClass" / f"{name}.png") as source:
            assert source.mode == "P"
            index = np.frombuffer(source.tobytes(), np.uint8).reshape(source.height, source.width)
        assert (mask == index).all() and image.shape[:2] == index.shape
        assert Counter(mask.ravel().tolist()) == counts[name], "counted independently"
    assert info.splits == {"train": 0, "val": 2, "test": 0}
    assert info.class_names[12] == "dog" and info.pixels["val"][12] == 12154 + 7321 and info.pixels["val"][17] == 13891


@pytest.mark.parametrize("kind", ["semantic_segmentation", "instance_segmentation"])
def test_real_export_of_labelme(samples: Path, tmp_path: Path, kind: str) -> None:
    raw = samples / "voc_style_labelme" / kind
    scan = voc.scan(raw)
    folder = raw / "data_dataset_voc"
    listed = (folder / "class_names.txt").read_text().split("\n")
    assert [c.name for c in scan.classes] == ["background", *listed[1:21]] and scan.classes[20].name == "tv/monitor"
    assert [(i.id, i.split) for i in scan.items] == [("2011_000003", None), ("2011_000006", None), ("2011_000025", None)]
    assert not scan.faults
    scan = replace(scan, items=tuple(replace(item, split=split) for item, split in zip(scan.items, SPLITS, strict=True)))
    convert(raw, tmp_path / "out", name="voc", scan=scan, load=voc.load)
    for item, split in zip(scan.items, SPLITS, strict=True):
        rows = Split(tmp_path / "out", split)
        source = np.asarray(Image.open(folder / "SegmentationClass" / f"{item.id}.png"))
        assert (rows.arrays(0)[1] == source).all() and rows[0].image == item.image.read_bytes()
        if kind == "semantic_segmentation":
            assert not rows[0].instances
            continue
        objects = np.asarray(Image.open(folder / "SegmentationObject" / f"{item.id}.png"))
        numbers = [n for n in np.unique(objects) if n]
        assert len(rows[0].instances) == len(numbers) >= 3
        for number, row in zip(numbers, rows[0].instances, strict=True):
            assert (decode_instance(row, source.shape) == (objects == number)).all()
            assert set(np.unique(source[objects == number])) <= {row["category"], 255}
    with pytest.raises(ValueError, match="2 times"):
        voc.scan(samples / "voc_style_labelme")
