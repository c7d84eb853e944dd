"""YOLO polygons: the usual layouts in small, every malformed line, and a real export where this machine has it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import yolo
from segpipe.layout import Raw
from segpipe.shards import Split

HEIGHT, WIDTH = 20, 40
LARGE = [0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]
SMALL = [0.4, 0.4, 0.6, 0.4, 0.5, 0.7]


def line(number: int, polygon: list[float]) -> str:
    return " ".join([str(number), *(f"{c:.6f}" for c in polygon)])


def add(folder: Path, image: str, *lines: str, label: str | None = "by rule", **save: Any) -> None:
    """An image, and its label file (by Ultralytics' rule unless `label` names one or is None)."""
    path = folder / image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)).save(path, **save)
    if label is not None:
        name = image.replace("images", "labels").rsplit(".", 1)[0] + ".txt" if label == "by rule" else label
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(text + "\n" for text in lines))


def config(folder: Path, document: dict[str, Any], name: str = "data.yaml") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump({"names": ["cat", "dog"]} | document))


def only(folder: Path, **options: Any) -> Raw:
    (item,) = yolo.scan(folder, **options).items
    return yolo.load(item)


def drawn(polygon: list[float], *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """pycocotools' mask of a polygon in parts of the size."""
    pixels = [c * (width, height)[i % 2] for i, c in enumerate(polygon)]
    return np.asarray(coco_mask.decode(coco_mask.frPyObjects([pixels], height, width))[..., 0], bool)


def test_folders_of_the_yaml(tmp_path: Path) -> None:
    config(
        tmp_path / "set",
        {"path": "../datasets/set", "train": "images/train", "val": ["images/val2017", "images/extra"], "test": ""},
    )
    for name in ("train/a", "train/deep/b", "val2017/a", "extra/c", "other/d"):
        add(tmp_path, f"set/images/{name}.JPG", line(1, LARGE))
    scan = yolo.scan(tmp_path)
    assert [(i.id, i.split, i.group, i.source) for i in scan.items] == [
        ("set/train/a", "train", "set/train/a", "set/images/train/a.JPG"),
        ("set/train/deep/b", "train", "set/train/deep/b", "set/images/train/deep/b.JPG"),
        ("set/val2017/a", "val", "set/val2017/a", "set/images/val2017/a.JPG"),
        ("set/extra/c", "val", "set/extra/c", "set/images/extra/c.JPG"),
    ]
    assert [(c.name, c.thing) for c in scan.classes] == [("background", False), ("cat", True), ("dog", True)]
    assert not scan.faults and scan.ignore_index == 255


def test_lists_of_images(tmp_path: Path) -> None:
    config(tmp_path, {"train": "train.txt", "val": "lists/val.txt"})
    for name in ("a", "b", "c"):
        add(tmp_path, f"images/{name}.png", line(0, LARGE))
    (tmp_path / "train.txt").write_text("./images/a.png\n/home/me/set/images/x.png\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("../images/b.png\n\n")
    scan = yolo.scan(tmp_path)
    assert [(i.id, i.split) for i in scan.items] == [("a", "train"), ("b", "val")]
    assert ("unknown_image", "warning", "train.txt: /home/me/set/images/x.png") in [
        (f.kind, f.severity, f.example) for f in scan.faults
    ]


def test_roboflow_layout_and_its_copies_are_one_group(tmp_path: Path) -> None:
    config(tmp_path, {"train": "../train/images", "val": "../valid/images", "test": "../test/images", "nc": 2})
    for name in ("train/images/one_jpg.rf.00aa", "train/images/one_jpg.rf.11bb", "valid/images/two_jpg.rf.22cc"):
        add(tmp_path, f"{name}.jpg", line(0, LARGE))
    (tmp_path / "README.roboflow.txt").write_text("about")
    scan = yolo.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("train/one_jpg.rf.00aa", "train", "one_jpg"),
        ("train/one_jpg.rf.11bb", "train", "one_jpg"),
        ("valid/two_jpg.rf.22cc", "val", "two_jpg"),
    ]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [
        ("unknown_image", "warning", "data.yaml: test: ../test/images")
    ]


@pytest.mark.parametrize("layout", ["images/{}/a.png", "{}/images/a.png"])
def test_usual_folders_where_the_yaml_names_none(tmp_path: Path, layout: str) -> None:
    config(tmp_path, {}, "anything.yml")
    for split in ("train2017", "valid", "test"):
        add(tmp_path, layout.format(split), line(1, LARGE))
    assert Counter(i.split for i in yolo.scan(tmp_path).items) == {"train": 1, "val": 1, "test": 1}


def test_images_without_a_split_and_classes_txt(tmp_path: Path) -> None:
    add(tmp_path, "project/images/a.png", line(1, SMALL))
    (tmp_path / "project" / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "project" / "labels" / "classes.txt").write_text("cat\ndog\n")
    scan = yolo.scan(tmp_path)
    assert [(i.id, i.split) for i in scan.items] == [("project/a", None)] and not scan.faults
    assert [c.name for c in scan.classes] == ["background", "cat", "dog"]


def test_named_folders(tmp_path: Path) -> None:
    config(tmp_path / "masks", {"names": {1: "cat", 7: "dog"}, "val": "images/val2017"}, "config.yaml")
    config(tmp_path / "boxes", {}, "config.yaml")
    add(tmp_path, "photos/train2017/a.png", line(7, SMALL), label="masks/texts/train2017/a.txt")
    with pytest.raises(ValueError, match="both have `names`.*option `config`"):
        yolo.scan(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: no images with label files where config.yaml says.*`images` and `labels`"):
        yolo.scan(tmp_path, config="masks/config.yaml")
    with pytest.raises(ValueError, match=f"{tmp_path}/photo: no such folder. Name it with the option `images`"):
        yolo.scan(tmp_path, config="masks/config.yaml", images="photo", labels="masks/texts")
    with pytest.raises(ValueError, match="masks/data.yaml: no such file"):
        yolo.scan(tmp_path, config="masks/data.yaml")
    scan = yolo.scan(tmp_path, config="masks/config.yaml", images="photos", labels="masks/texts")
    assert [(i.id, i.split) for i in scan.items] == [("photos/train2017/a", "train")]
    assert (yolo.load(scan.items[0]).labels == 2 * drawn(SMALL)).all(), "ids with gaps become indices"


def test_polygons_are_pycocotools_own_and_the_smaller_lie_on_top(tmp_path: Path) -> None:
    config(tmp_path, {})
    add(tmp_path, "images/train/a.png", line(1, SMALL), "", line(0, LARGE), line(1, [0.0, 0.0, 1.0, 0.0, 0.0, 0.4]))
    raw = only(tmp_path)
    corner = drawn([0.0, 0.0, 1.0, 0.0, 0.0, 0.4])
    wanted = np.where(drawn(LARGE), 1, 0)
    wanted[corner] = 2
    wanted[drawn(SMALL)] = 2
    assert raw.labels.dtype == np.uint8 and (raw.labels == wanted).all() and not raw.faults
    assert [(row["category"], row["iscrowd"]) for row in raw.instances] == [(2, False), (1, False), (2, False)]
    shapes = (drawn(SMALL), drawn(LARGE), corner)
    assert all((coco_mask.decode(row["rle"]) == shape).all() for row, shape in zip(raw.instances, shapes, strict=True))


def test_empty_and_missing_label_files_are_background(tmp_path: Path) -> None:
    config(tmp_path, {})
    add(tmp_path, "images/train/a.png")
    add(tmp_path, "images/train/b.png", label=None)
    add(tmp_path, "images/train/c.png", line(0, LARGE))
    (tmp_path / "images/train/c.png").unlink()
    scan = yolo.scan(tmp_path)
    assert [i.id for i in scan.items] == ["train/a", "train/b"]
    assert all(not yolo.load(item).labels.any() for item in scan.items)
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [
        ("no_annotation", "warning", "images/train/b.png"),
        ("no_image", "warning", "labels/train/c.txt"),
    ]


def test_a_split_without_any_label_is_left_out(tmp_path: Path) -> None:
    config(tmp_path, {})
    add(tmp_path, "images/train/a.png", line(0, LARGE))
    add(tmp_path, "images/test2017/b.png", label=None)
    scan = yolo.scan(tmp_path)
    assert [i.id for i in scan.items] == ["train/a"]
    (fault,) = scan.faults
    assert fault.severity == "warning" and fault.what.startswith("test has no label file") and "1 images" in fault.example


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("0 0.5 0.5 0.2 0.2", "bad_annotation", "a line holds a box (5 numbers), not a polygon"),
        ("0 0.5 0.5 0.6 0.6", "bad_annotation", "a line holds a box (5 numbers), not a polygon"),
        ("0 0.5 0.5 0.6 0.6 0.7", "bad_polygon", "a line of 6 numbers is no class"),
        ("0 0.5 0.5 0.6 0.6 0.7 0.7 0.1", "bad_polygon", "a line of 8 numbers is no class"),
        ("0", "bad_polygon", "a line of 1 numbers"),
        ("0 0.1 0.1 0.5 x 0.1 0.5", "bad_annotation", "a line holds a word that is no number"),
        ("0 10 10 30 10 30 15", "bad_polygon", "a corner lies outside 0..1"),
        ("0 0.1 0.1 0.5 nan 0.1 0.5", "bad_polygon", "a corner lies outside 0..1"),
        ("2 0.1 0.1 0.5 0.1 0.1 0.5", "unknown_category", "the class 2 is not among the names"),
        ("1.5 0.1 0.1 0.5 0.1 0.1 0.5", "unknown_category", "the class 1.5 is not among the names"),
    ],
)
def test_malformed_lines_are_errors_that_name_file_and_line(tmp_path: Path, text: str, kind: str, what: str) -> None:
    config(tmp_path, {})
    add(tmp_path, "images/train/a.png", line(1, SMALL), text)
    raw = only(tmp_path)
    (fault,) = raw.faults
    assert (fault.kind, fault.severity, fault.example) == (kind, "error", "train/a.txt, line 2") and fault.what.startswith(what)
    assert (raw.labels == 2 * drawn(SMALL)).all()


def test_a_speck_is_left_out_with_a_warning_and_a_corner_just_outside_is_fine(tmp_path: Path) -> None:
    config(tmp_path, {})
    add(tmp_path, "images/train/a.png", line(0, [0.5, 0.5, 0.5001, 0.5, 0.5, 0.5001]), line(0, [0.5, 0.5, 1.005, 0.5, 0.5, 0.9]))
    raw = only(tmp_path)
    assert [(f.kind, f.severity) for f in raw.faults] == [("empty_instance", "warning")] and len(raw.instances) == 1
    assert (raw.labels == drawn([0.5, 0.5, 1.005, 0.5, 0.5, 0.9])).all() and raw.labels.any()


def test_positions_are_in_the_image_as_it_is_shown(tmp_path: Path) -> None:
    config(tmp_path, {})
    turned = Image.Exif()
    turned[0x0112] = 6
    add(tmp_path, "images/train/a.jpg", line(0, SMALL), exif=turned)
    assert (only(tmp_path).labels == drawn(SMALL, height=WIDTH, width=HEIGHT)).all()


def test_a_class_called_background_is_class_0(tmp_path: Path) -> None:
    config(tmp_path, {"names": ["background", "cat", "cat"]})
    add(tmp_path, "images/train/a.png", line(1, LARGE), line(0, SMALL), line(2, [0.0, 0.0, 0.05, 0.0, 0.05, 0.3]))
    scan = yolo.scan(tmp_path)
    raw = yolo.load(scan.items[0])
    assert [c.name for c in scan.classes] == ["background", "cat"] and [row["category"] for row in raw.instances] == [1, 1]
    assert (raw.labels[drawn(SMALL)] == 0).all() and raw.labels[3, 1] == 1


@pytest.mark.parametrize("text", ["names: cat", "names: {cat: 0}", "names: [", "train: images/train"])
def test_missing_or_damaged_names(tmp_path: Path, text: str) -> None:
    add(tmp_path, "images/train/a.png", line(0, LARGE))
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}.*(names|no valid YAML)"):
        yolo.scan(tmp_path)


def test_real_export_equals_pycocotools(samples: Path, tmp_path: Path) -> None:
    """100 images of COCO with COCO's category ids: shards against masks drawn here, and against the official panoptic ones."""
    raw = samples / "coco2017_panoptic100"
    scan = yolo.scan(raw, images="images", labels="instance_segmentation/labels")
    assert len(scan.items) == 100 and {i.split for i in scan.items} == {"train"} and not scan.faults
    assert len(scan.classes) == 81 and scan.classes[-1].name == "toothbrush"
    names = yaml.safe_load((raw / "instance_segmentation" / "config.yaml").read_text())["names"]
    rules = {"val": {"from": "train", "fraction": 0.2}, "test": {"from": "train", "fraction": 0.2}}
    info, _ = convert(raw, tmp_path / "out", name="yolo", scan=scan, load=yolo.load, stand_ins=rules)
    assert sum(info.splits.values()) == 100
    agreeing = things = count = 0
    ids = np.array([0, *sorted(names)])
    for split in info.splits:
        shard = Split(tmp_path / "out", split)
        for row in range(len(shard)):
            stem = shard.ids[row].rsplit("/", 1)[-1]
            _, mask = shard.arrays(row)
            shapes = []
            for text in (raw / "instance_segmentation" / "labels" / "train2017" / f"{stem}.txt").read_text().splitlines():
                number, *polygon = text.split()
                shapes.append((int(number), drawn([float(c) for c in polygon], height=mask.shape[0], width=mask.shape[1])))
            wanted = np.zeros(mask.shape, np.uint8)
            for number, shape in sorted(shapes, key=lambda pair: -pair[1].sum()):
                wanted[shape] = number
            assert (ids[mask] == wanted).all()
            found = [coco_mask.decode({"size": list(mask.shape), "counts": r["rle"].encode()}) for r in shard[row].instances]
            kept = [shape for _, shape in shapes if shape.any()]
            assert all((a == b).all() for a, b in zip(found, kept, strict=True))
            count += len(found)
            official = np.asarray(Image.open(raw / "semantic_segmentation" / "masks" / "train2017" / f"{stem}.png"))
            inside = np.isin(official, ids[1:])
            agreeing, things = agreeing + int((ids[mask] == official)[inside].sum()), things + int(inside.sum())
    assert count == 746 and agreeing / things > 0.9
