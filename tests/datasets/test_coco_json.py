"""COCO JSON of a user: where tools put it, its splits and classes, and the real samples."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import coco_json
from segpipe.layout import Scan
from segpipe.shards import Split
from tests.datasets.coco_trees import SIZE, THINGS, drawn, dump, export, one, picture, plain

WASTE = [
    {"id": 0, "name": "Clear plastic bottle", "supercategory": "Bottle"},
    {"id": 5, "name": "Drink can", "supercategory": "Can"},
    {"id": 6, "name": "Glass bottle", "supercategory": "Bottle"},
]
PLACES = [
    ("annotations.json", "a.jpg", None),
    ("annotations.json", "batch_1/a.jpg", None),
    ("result.json", "images/a.jpg", None),
    ("labels_my-project.json", "sub/dir/a.PNG", None),
    ("annotations/instances_default.json", "images/a.jpg", None),
    ("annotations/instances_train2017.json", "train2017/a.jpg", "train"),
    ("annotations/instances_val.json", "images/val/a.jpg", "val"),
    ("train.json", "train/a.jpg", "train"),
    ("my_validation.json", "images/a.jpg", "val"),
    ("valid/_annotations.coco.json", "valid/a.jpg", "val"),
    ("test/_annotations.coco.json", "test/a.jpg", "test"),
    ("annotations.json", "JPEGImages/a.jpg", None),
]
"""Annotation file, image, and the split that they are in."""
BARE = ("batch_1", "sub")
"""Folders into which a bare file_name does not lead."""


def placed(scan: Scan) -> list[tuple[str, str | None]]:
    return [(item.id, item.split) for item in scan.items]


@pytest.mark.parametrize(
    ("file", "image", "split", "bare"),
    [(*place, bare) for place in PLACES for bare in (False, True) if not (bare and place[1].split("/")[0] in BARE)],
)
@pytest.mark.parametrize("inside", ["", "taco", "export-1/data"])
def test_where_tools_put_it(tmp_path: Path, file: str, image: str, split: str | None, bare: bool, inside: str) -> None:
    """With the whole path or the bare name in file_name, at any depth."""
    top = tmp_path / inside
    picture(top / image)
    export(top, file, {image.rsplit("/", 1)[-1] if bare else image: plain()})
    scan = coco_json.scan(tmp_path)
    assert placed(scan) == [(image.rsplit(".", 1)[0], split)] and not scan.faults
    assert (tmp_path / scan.items[0].source).samefile(top / image) and scan.items[0].group == scan.items[0].id
    raw = coco_json.load(scan.items[0])
    assert (raw.labels == drawn()).all() and raw.image == (top / image).read_bytes()
    rows = [(row["category"], row["iscrowd"], int(coco_mask.area(row["rle"]))) for row in raw.instances]
    assert rows == [(1, False, 24), (2, False, 224), (3, False, 12), (1, True, 16 * SIZE[0])]


def test_splits_of_several_files(tmp_path: Path) -> None:
    """Roboflow's export: copies of one image are one group, and the test without annotations is left out, not called unlisted."""
    for folder, names in {
        "train": ["a_jpg.rf.0f1e.jpg", "a_jpg.rf.77aa.jpg"],
        "valid": ["b_jpg.rf.12.jpg"],
        "test": ["c.jpg"],
    }.items():
        for name in names:
            picture(tmp_path / folder / name)
        export(tmp_path / folder, "_annotations.coco.json", {name: plain() if folder != "test" else [] for name in names})
    scan = coco_json.scan(tmp_path)
    assert placed(scan) == [("train/a_jpg.rf.0f1e", "train"), ("train/a_jpg.rf.77aa", "train"), ("valid/b_jpg.rf.12", "val")]
    assert [item.group for item in scan.items] == ["a_jpg", "a_jpg", "b_jpg"]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [
        ("no_annotation", "warning", "test/_annotations.coco.json (1 images)")
    ]


def test_the_options_name_files_and_folder(tmp_path: Path) -> None:
    for name in ("x.jpg", "y.jpg"):
        picture(tmp_path / "photos" / name)
    export(tmp_path, "first/one.json", {"x.jpg": plain()})
    export(tmp_path, "second/two.json", {"y.jpg": plain()})
    named = {"train": "first/one.json", "test": "second/two.json"}
    assert placed(coco_json.scan(tmp_path, annotations=named, images="photos")) == [("photos/x", "train"), ("photos/y", "test")]
    scan = coco_json.scan(tmp_path, annotations="first/one.json", images="photos")
    assert placed(scan) == [("photos/x", None)]
    assert [(f.kind, f.example) for f in scan.faults] == [("no_annotation", "photos/y.jpg")]


def test_taco_s_files(tmp_path: Path) -> None:
    """Ids from 0, names in subfolders, a second file beside the first, lists that no one else has."""
    for name in ("batch_1/000006.jpg", "batch_2/000006.JPG"):
        picture(tmp_path / "data" / name)
    path = export(
        tmp_path / "data",
        "annotations.json",
        {"batch_1/000006.jpg": [one(0, 1, 1, 4, 4), one(6, 8, 8, 3, 3)], "batch_2/000006.JPG": []},
        WASTE,
    )
    dump(
        path, json.loads(path.read_text()) | {"scene_annotations": [{"image_id": 0, "background_ids": [1]}], "scene_categories": []}
    )
    export(tmp_path / "data", "annotations_unofficial.json", {"batch_1/000006.jpg": []}, WASTE)
    scan = coco_json.scan(tmp_path)
    assert placed(scan) == [("batch_1/000006", None), ("batch_2/000006", None)]
    assert [c.name for c in scan.classes] == ["background", "Clear plastic bottle", "Drink can", "Glass bottle"]
    first, empty = (coco_json.load(item) for item in scan.items)
    assert (first.labels[1:5, 1:5] == 1).all() and (first.labels[8:11, 8:11] == 3).all() and (first.labels > 0).sum() == 25
    assert not empty.labels.any() and not empty.instances, "an image without litter is background"
    scan = coco_json.scan(tmp_path, supercategories=True)
    assert [c.name for c in scan.classes] == ["background", "Bottle", "Can"]
    assert [row["category"] for row in coco_json.load(scan.items[0]).instances] == [1, 1]


def test_without_background_the_rest_is_ignored(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    export(tmp_path, "annotations.json", {"a.jpg": [one(90, 0, 0, 2, 2)]})
    scan = coco_json.scan(tmp_path, background=False)
    assert [(c.name, c.thing) for c in scan.classes] == [("person", True), ("car", True), ("toothbrush", True)]
    labels = coco_json.load(scan.items[0]).labels
    assert (labels[:2, :2] == 2).all() and (labels == 255).sum() == SIZE[0] * SIZE[1] - 4 and scan.labels[255] == 255


@pytest.mark.parametrize("name", ["_background_", "Background", "__background__"])
def test_a_category_called_background_is_class_0(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.jpg")
    export(tmp_path, "annotations.json", {"a.jpg": [one(4, 0, 0, 2, 2)]}, [{"id": 4, "name": "cat"}, {"id": 9, "name": name}])
    scan = coco_json.scan(tmp_path)
    assert [(c.name, c.thing) for c in scan.classes] == [("background", False), ("cat", True)]
    assert coco_json.load(scan.items[0]).labels.max() == 1


def test_more_than_254_classes_take_two_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    crowd = {"category_id": 7, "segmentation": {"size": list(SIZE), "counts": [0, 24, 24 * 31]}, "iscrowd": 1}
    categories = [{"id": i, "name": f"kind {i}"} for i in range(300)]
    export(tmp_path, "annotations.json", {"a.jpg": [one(299, 0, 4, 2, 2), crowd]}, categories)
    scan = coco_json.scan(tmp_path)
    labels = coco_json.load(scan.items[0]).labels
    assert scan.ignore_index == 65535 and labels.dtype == np.uint16
    assert (labels[:2, 4:6] == 300).all() and (labels[:, 0] == 65535).all() and set(np.unique(labels)) == {0, 300, 65535}


def test_a_size_that_the_file_does_not_give_is_the_image_s_as_shown(tmp_path: Path) -> None:
    """A photo of a turned camera: 24 x 32 in the file, 32 x 24 on the screen, where its polygons were drawn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    path = export(tmp_path, "annotations.json", {"a.jpg": [one(1, 28, 0, 2, 2)]})
    document = json.loads(path.read_text())
    document["images"][0] |= {"height": 0, "width": None}
    dump(path, document)
    labels = coco_json.load(coco_json.scan(tmp_path).items[0]).labels
    assert labels.shape == SIZE[::-1] and labels[28:30, :2].all() and labels.sum() == 4


def test_names_with_windows_separators_and_other_letters(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "grün" / "straße 1.jpg")
    export(tmp_path, "result.json", {"images\\grün\\straße 1.jpg": plain()}, [*THINGS[:2], {"id": 90, "name": "Zahnbürste"}])
    text = json.dumps(json.loads((tmp_path / "result.json").read_text()), ensure_ascii=False)
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    scan = coco_json.scan(tmp_path)
    assert placed(scan) == [("images/grün/straße 1", None)] and scan.classes[3].name == "Zahnbürste"
    assert (coco_json.load(scan.items[0]).labels == drawn()).all()


def check_against_pycocotools(raw: Path, out: Path, scan: Scan, file: Path) -> Counter[str]:
    """Every mask and instance after convert against the JSON as a whole drawn by pycocotools; counts what was compared."""
    scan = replace(scan, items=tuple(replace(item, split="train") for item in scan.items))
    convert(raw, out, name="mine", scan=scan, load=coco_json.load, complete=False, previews=1)
    document = json.loads(file.read_text())
    names = {c["id"]: c["name"].strip("_") for c in document["categories"]}
    classes = [c.name for c in scan.classes]
    images = {image["file_name"].rsplit(".", 1)[0].rsplit("/", 1)[-1]: image for image in document["images"]}
    seen: Counter[str] = Counter()
    split = Split(out, "train")
    for i in range(len(split)):
        image = images[split[i].id.rsplit("/", 1)[-1]]
        rows = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        drawn_rows = []
        for row in rows:
            shape = row["segmentation"]
            if isinstance(shape, list) or isinstance(shape["counts"], list):
                shape = coco_mask.frPyObjects(shape, image["height"], image["width"])
            rle = coco_mask.merge(shape) if isinstance(shape, list) else shape
            drawn_rows.append((np.asarray(coco_mask.decode(rle), bool), classes.index(names[row["category_id"]]), row["iscrowd"]))
        expected = np.zeros((image["height"], image["width"]), np.uint8)
        for mask, category, crowd in sorted(drawn_rows, key=lambda d: (not d[2], -int(d[0].sum()))):
            expected[mask] = 255 if crowd else category
        assert (split.arrays(i)[1] == expected).all()
        found = [(r["category"], r["area"], r["iscrowd"]) for r in split[i].instances]
        assert found == [(category, mask.sum(), bool(crowd)) for mask, category, crowd in drawn_rows]
        seen += Counter(images=1, instances=len(found), crowds=sum(r[2] for r in found))
    return seen


def test_real_outlines_crowds_and_gaps(samples: Path, tmp_path: Path) -> None:
    raw = samples / "coco2017_tiny"
    scan = coco_json.scan(raw)
    assert {item.split for item in scan.items} == {"train"} and scan.items[0].id.startswith("train2017/") and not scan.faults
    seen = check_against_pycocotools(raw, tmp_path / "out", scan, raw / "annotations" / "instances_train2017.json")
    assert seen == Counter(images=50, instances=480, crowds=6)


def test_real_export_of_labelme(samples: Path, tmp_path: Path) -> None:
    """Ids from 0, where 0 is `_background_`; the images lie in another folder than the file."""
    raw = samples / "voc_style_labelme" / "instance_segmentation"
    with pytest.raises(ValueError, match="option `images`"):
        coco_json.scan(raw)
    scan = coco_json.scan(raw, images="data_dataset_voc")
    assert len(scan.classes) == 21 and scan.classes[0].name == "background" and scan.classes[20].name == "tv/monitor"
    assert {item.split for item in scan.items} == {None} and not scan.faults
    seen = check_against_pycocotools(raw, tmp_path / "out", scan, raw / "data_dataset_coco" / "annotations.json")
    assert seen == Counter(images=3, instances=12)


def test_real_compressed_run_lengths(samples: Path, tmp_path: Path) -> None:
    raw = samples / "coco_eval_samples" / "panopticapi" / "sample_data"
    scan = coco_json.scan(raw, annotations="panoptic_coco_detection_format.json", images="input_images")
    seen = check_against_pycocotools(raw, tmp_path / "out", scan, raw / "panoptic_coco_detection_format.json")
    assert seen == Counter(images=2, instances=50, crowds=3)
