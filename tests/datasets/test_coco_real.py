"""COCO's real samples through convert, each against another form of the same labels, or pycocotools on the whole JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import coco
from segpipe.datasets.blocks.coco_labels import NAMES
from segpipe.layout import Scan
from segpipe.shards import Split


def converted(raw: Path, out: Path, scan: Scan) -> dict[str, tuple[np.ndarray, list[dict[str, Any]]]]:
    """{id: (mask, instances)} of a scan after convert, from all splits."""
    rule = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
    convert(raw, out, name="coco", scan=scan, load=coco.load, splits=rule, complete=False, previews=1)
    splits = [Split(out, name) for name in ("train", "val", "test")]
    return {split[i].id: (split.arrays(i)[1], split[i].instances) for split in splits for i in range(len(split))}


def test_real_panoptic_equals_the_semantic_pngs(samples: Path, tmp_path: Path) -> None:
    """All 100 images: the sample has category ids as PNGs too, made from the same segments by others."""
    folder = samples / "coco2017_panoptic100"
    scan = coco.scan(folder)
    assert len(scan.items) == 100 and len(scan.classes) == 133 and sum(c.thing for c in scan.classes) == 80
    document = json.loads((folder / "panoptic_segmentation/annotations/panoptic_train2017.json").read_text())
    numbers = sorted(c["id"] for c in document["categories"])
    segments = {f"{a['image_id']:012d}": a["segments_info"] for a in document["annotations"]}
    things = {c["id"] for c in document["categories"] if c["isthing"]}
    crowds = 0
    for name, (mask, instances) in converted(folder, tmp_path / "out", scan).items():
        ids = np.asarray(Image.open(folder / "semantic_segmentation" / "masks" / "train2017" / f"{name}.png"))
        expected = np.where(ids == 0, 255, np.searchsorted(numbers, ids))
        assert mask.dtype == np.uint8 and (mask == expected).all()
        listed = [(numbers.index(s["category_id"]), s["area"]) for s in segments[name] if s["category_id"] in things]
        assert [(row["category"], row["area"]) for row in instances] == listed
        crowds += sum(row["iscrowd"] for row in instances)
    assert crowds == 6


def test_real_panoptic_sample_equals_its_other_formats(samples: Path) -> None:
    """panopticapi's two images: categories as in its 2-channel PNGs, things as in its detection file of run lengths."""
    folder = samples / "coco_eval_samples" / "panopticapi"
    scan = coco.scan(folder, task="panoptic")
    assert [(i.split, i.id) for i in scan.items] == [(None, "000000142238"), (None, "000000439180")]
    assert scan.classes[0].colour == (220, 20, 60)
    rows = json.loads((folder / "sample_data" / "panoptic_coco_detection_format.json").read_text())["annotations"]
    for item in scan.items:
        raw = coco.load(item)
        two = np.asarray(Image.open(folder / "sample_data" / "panoptic_examples_2ch_format" / f"{item.id}.png"))
        assert (raw.labels == two[..., 0]).all()
        detected = [row for row in rows if row["image_id"] == int(item.id) and scan.classes[scan.labels[row["category_id"]]].thing]
        theirs = [(scan.labels[row["category_id"]], row["segmentation"]["counts"], row["iscrowd"]) for row in detected]
        ours = [(row["category"], row["rle"]["counts"].decode(), row["iscrowd"]) for row in raw.instances]
        assert sorted(ours) == sorted(theirs) and len(ours) >= 15


def test_real_outlines_equal_pycocotools(samples: Path, tmp_path: Path) -> None:
    """All 50 images: the map drawn with pycocotools alone from the JSON as a whole, and each instance's area and crowd flag."""
    folder = samples / "coco2017_tiny"
    scan = coco.scan(folder)
    document = json.loads((folder / "annotations" / "instances_train2017.json").read_text())
    order = [c["id"] for c in sorted(document["categories"], key=lambda c: c["id"])]
    assert [c.name for c in scan.classes[1:]] == [c["name"] for c in sorted(document["categories"], key=lambda c: c["id"])]
    found = converted(folder, tmp_path / "out", scan)
    assert len(found) == 50
    for image in document["images"]:
        size = image["height"], image["width"]
        rows = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        masks = []
        for row in rows:
            shape = coco_mask.frPyObjects(row["segmentation"], *size)
            masks.append(np.asarray(coco_mask.decode(coco_mask.merge(shape) if isinstance(shape, list) else shape), bool))
        expected = np.zeros(size, np.uint8)
        for mask in (m for m, row in zip(masks, rows, strict=True) if row["iscrowd"]):
            expected[mask] = 255
        for i in sorted(range(len(rows)), key=lambda i: -int(masks[i].sum())):
            if not rows[i]["iscrowd"]:
                expected[masks[i]] = order.index(rows[i]["category_id"]) + 1
        mask, instances = found[f"{image['id']:012d}"]
        assert (mask == expected).all()
        assert [(r["category"], r["area"], r["iscrowd"]) for r in instances] == [
            (order.index(row["category_id"]) + 1, m.sum(), row["iscrowd"]) for row, m in zip(rows, masks, strict=True)
        ]


def test_real_stuff_maps(samples: Path, tmp_path: Path) -> None:
    """All 13 images in SPADE's folders: id - 1 to the place of the id in labels.txt without the gaps."""
    scan = coco.scan(samples / "coco_stuff")
    assert {i.split for i in scan.items} == {"train"} and len(scan.items) == 13 and not scan.faults
    assert [c.name for c in scan.classes] == list(NAMES.values())
    seen: set[int] = set()
    for name, (mask, instances) in converted(samples / "coco_stuff", tmp_path / "out", scan).items():
        source = np.asarray(Image.open(samples / "coco_stuff" / "train_label" / f"{name}.png"))
        for value in np.unique(source):
            index = 255 if value == 255 else list(NAMES).index(value + 1)
            assert (mask[source == value] == index).all()
            seen.add(int(value))
        assert not instances
    assert len(seen) == 58 and 255 in seen, "all of the sample was looked at"
