"""labelme: its JSON files in small, every kind of shape, and labelme's own export of real images where this machine has it."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import labelme
from segpipe.items import decode_instance
from segpipe.layout import Raw
from segpipe.shards import Split

HEIGHT, WIDTH = 20, 30
SQUARE = [[2.2, 2.7], [9.4, 2.1], [9.9, 8.6], [2.5, 8.4]]


def shape(label: str, points: list[list[float]], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {"occluded": True}} | more


def photo(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3))


def base64_png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write(path: Path, *shapes: dict[str, Any], image: str | None = "beside", **more: Any) -> Path:
    """A labelme file, with its image beside it unless `image` is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image == "beside":
        photo().save(path.with_suffix(".png"))
    document = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{path.stem}.png", "imageData": None}
    path.write_text(json.dumps(document | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more))
    return path


def only(folder: Path, **options: Any) -> Raw:
    (item,) = labelme.scan(folder, **options).items
    return labelme.load(item)


def pixels(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(coco_mask.decode(row["rle"]), bool)


def test_discovered_classes_ids_and_no_split(tmp_path: Path) -> None:
    write(tmp_path / "b.json", shape("dog", SQUARE))
    write(tmp_path / "deep" / "a.json", shape("cat", SQUARE), shape("__ignore__", SQUARE), shape("_background_", SQUARE))
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": []}')
    scan = labelme.scan(tmp_path)
    assert [c.name for c in scan.classes] == ["background", "cat", "dog"] and scan.labels == {0: 0, 1: 1, 2: 2, 255: 255}
    assert [(i.id, i.split, i.group, i.source) for i in scan.items] == [
        ("b", None, "b", "b.png"),
        ("deep/a", None, "deep/a", "deep/a.png"),
    ]
    assert [c.thing for c in scan.classes] == [False, True, True] and not scan.faults


@pytest.mark.parametrize("way", ["file", "option"])
def test_listed_classes_and_the_two_special_names(tmp_path: Path, way: str) -> None:
    listed = ["__ignore__", "_background_", "dog", "cat"]
    rest = [
        [[12.0, 1.0], [17, 1], [17, 6], [12, 6]],
        [[20.0, 1.0], [25, 1], [25, 6], [20, 6]],
        [[3.0, 3.0], [6, 3], [6, 5], [3, 5]],
    ]
    names = ("cat", "__ignore__", "_background_")
    write(tmp_path / "json" / "a.json", shape("dog", SQUARE), *(shape(n, p) for n, p in zip(names, rest, strict=True)))
    if way == "file":
        (tmp_path / "labels.txt").write_text("\n".join(listed) + "\n\n")
    options = {} if way == "file" else {"classes": listed}
    assert [c.name for c in labelme.scan(tmp_path, **options).classes] == ["background", "dog", "cat"]
    raw = only(tmp_path, **options)
    assert raw.labels.dtype == np.uint8
    assert [raw.labels[y, x] for y, x in ((7, 4), (4, 14), (4, 22), (4, 4), (15, 15))] == [1, 2, 255, 0, 0]
    assert [row["category"] for row in raw.instances] == [1, 2]
    assert all((pixels(row) == (raw.labels == row["category"])).all() and not row["iscrowd"] for row in raw.instances)


def test_unlisted_label_is_an_error_and_ignored(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\n")
    write(tmp_path / "a.json", shape("Dog", SQUARE))
    (fault,) = labelme.scan(tmp_path).faults
    assert (fault.kind, fault.severity, fault.example) == ("unknown_category", "error", "a.json")
    assert fault.what == "the label 'Dog' is not in labels.txt"
    raw = only(tmp_path)
    assert raw.labels[5, 5] == 255 and not raw.instances


def test_every_kind_of_area_is_drawn_as_labelme_does(tmp_path: Path) -> None:
    patch = np.eye(4, 6, dtype=bool)
    shapes = [
        shape("a", SQUARE, None),
        shape("b", [[18.0, 9.0], [12.4, 3.3]], "rectangle"),
        shape("c", [[24.0, 13.0], [26.5, 15.0]], "circle"),
        shape("d", [[2.0, 12.0], [5, 10], [8, 15], [5, 17]], "oriented_rectangle"),
        shape("e", [[27.4, 17.6], [32, 21]], "mask", mask=base64_png(Image.fromarray(patch))),  # runs out of the image
        shape("f", [[-1.4, -2.0], [4, 1]], "mask", mask=base64_png(Image.fromarray(np.ones((4, 6), np.uint8)))),
    ]
    write(tmp_path / "a.json", *shapes)
    raw = only(tmp_path)
    wanted = Image.new("L", (WIDTH, HEIGHT))
    pen, radius = ImageDraw.Draw(wanted), (2.5**2 + 2**2) ** 0.5
    pen.polygon([(x, y) for x, y in SQUARE], outline=1, fill=1)
    pen.rectangle([(12.4, 3.3), (18, 9)], outline=2, fill=2)
    pen.ellipse([24 - radius, 13 - radius, 24 + radius, 13 + radius], outline=3, fill=3)
    pen.polygon([(2, 12), (5, 10), (8, 15), (5, 17)], outline=4, fill=4)
    labels = np.array(wanted)
    labels[18:20, 27:30][patch[:2, :3]] = 5
    labels[0:2, 0:5] = 6
    assert (raw.labels == labels).all() and set(np.unique(labels)) == set(range(7)) and not raw.faults
    assert all((pixels(row) == (labels == row["category"])).all() for row in raw.instances) and len(raw.instances) == 6


def test_group_ids_join_shapes_and_later_shapes_lie_on_top(tmp_path: Path) -> None:
    left, right = [[1, 1], [8, 1], [8, 8], [1, 8]], [[14, 1], [20, 1], [20, 8], [14, 8]]
    middle = [[5, 3], [16, 3], [16, 5], [5, 5]]
    shapes = [
        shape("cat", left, group_id=3),
        shape("cat", right, group_id=3),
        shape("dog", middle, group_id=3),
        shape("cat", [[22, 1]] * 3),
    ]
    write(tmp_path / "a.json", *shapes)
    raw = only(tmp_path)
    assert [row["category"] for row in raw.instances] == [1, 2, 1]
    cat, dog, _ = (pixels(row) for row in raw.instances)
    assert cat[2, 2] and cat[2, 18] and not cat[4, 6] and dog[4, 6] and (raw.labels[dog] == 2).all() and not (cat & dog).any()


def test_shapes_without_area_are_warnings_and_too_few_points_an_error(tmp_path: Path) -> None:
    shapes = [
        shape("a", [[1, 1], [5, 5]], "line"),
        shape("a", [[1, 1]], "point"),
        shape("a", [[1, 1], [5, 5]]),
        shape("a", [[3, 3], [5, 3], [5, 5]]),
        shape("a", [[100, 100], [105, 100], [105, 105]]),
        shape("a", SQUARE),
    ]
    write(tmp_path / "a.json", *shapes)
    raw = only(tmp_path)
    assert [(f.kind, f.severity, f.example) for f in raw.faults] == [
        ("bad_annotation", "warning", "a.json, shape 1"),
        ("bad_annotation", "warning", "a.json, shape 2"),
        ("bad_polygon", "error", "a.json, shape 3"),
        ("empty_instance", "warning", "a.json"),
        ("empty_instance", "warning", "a.json"),
    ]
    assert "has 2 points, 3 are needed" in raw.faults[2].what and len(raw.instances) == 1


@pytest.mark.parametrize("told", ["..\\images\\a.png", "../images/a.png", "C:\\Users\\me\\a.png"])
def test_image_paths_of_any_system(tmp_path: Path, told: str) -> None:
    write(tmp_path / "json" / "a.json", shape("cat", SQUARE), image=None, imagePath=told)
    place = tmp_path / ("json" if told.startswith("C:") else "images") / "a.png"
    place.parent.mkdir(exist_ok=True)
    photo().save(place)
    (item,) = labelme.scan(tmp_path).items
    assert item.image == place and labelme.load(item).image == place.read_bytes()


def test_images_in_a_named_folder(tmp_path: Path) -> None:
    write(tmp_path / "json" / "a.json", shape("cat", SQUARE), image=None)
    (fault,) = labelme.scan(tmp_path).faults
    assert (fault.kind, fault.example) == ("unknown_image", "json/a.json") and "option `images`" in fault.fix
    (tmp_path / "photos").mkdir()
    photo().save(tmp_path / "photos" / "a.png")
    (item,) = labelme.scan(tmp_path, images="photos").items
    assert item.source == "photos/a.png"
    with pytest.raises(ValueError, match=f"{tmp_path / 'pictures'}: no such folder"):
        labelme.scan(tmp_path, images="pictures")


def test_an_image_outside_the_folder_is_not_taken(tmp_path: Path) -> None:
    photo().save(tmp_path / "secret.png")
    write(tmp_path / "raw" / "a.json", shape("cat", SQUARE), image=None, imagePath="../secret.png")
    assert [fault.kind for fault in labelme.scan(tmp_path / "raw").faults] == ["unknown_image"]


def test_embedded_images(tmp_path: Path) -> None:
    data = base64_png(photo())
    write(tmp_path / "a.json", shape("cat", SQUARE), image=None, imageData=data)
    (item,) = labelme.scan(tmp_path).items
    assert item.source == "a.json" and labelme.load(item).image == base64.b64decode(data)


def test_the_size_is_the_jsons_or_else_the_images_as_shown(tmp_path: Path) -> None:
    write(tmp_path / "a.json", shape("cat", SQUARE), imageHeight=10, imageWidth=11)
    assert only(tmp_path).labels.shape == (10, 11), "the engine then reports that image and labels differ"
    write(tmp_path / "a.json", shape("cat", SQUARE), imageHeight=None, imageWidth=None)
    assert only(tmp_path).labels.shape == (HEIGHT, WIDTH)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo().save(tmp_path / "a.png", exif=turned)
    assert only(tmp_path).labels.shape == (WIDTH, HEIGHT)


def test_image_without_json_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "a.json", shape("cat", SQUARE))
    photo().save(tmp_path / "b.jpg")
    (fault,) = labelme.scan(tmp_path).faults
    assert (fault.kind, fault.severity, fault.example) == ("no_annotation", "warning", "b.jpg")


def test_folders_named_like_splits(tmp_path: Path) -> None:
    for name in ("train/a", "valid/a", "test/deep/a"):
        write(tmp_path / f"{name}.json", shape("cat", SQUARE))
    assert [(i.id, i.split) for i in labelme.scan(tmp_path).items] == [
        ("test/deep/a", "test"),
        ("train/a", "train"),
        ("valid/a", "val"),
    ]
    write(tmp_path / "b.json", shape("cat", SQUARE))
    assert {i.split for i in labelme.scan(tmp_path).items} == {None}


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", shape("cat", SQUARE))
    (tmp_path / "b.json").write_text("{")
    (fault,) = labelme.scan(tmp_path).faults
    assert (fault.kind, fault.example) == ("bad_annotation", "b.json") and "cannot be read" in fault.what
    path.unlink()
    with pytest.raises(ValueError, match=f"{tmp_path}: no JSON file of labelme .* b.json: a JSON file cannot be read"):
        labelme.scan(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"label": "cat"}, {"label": "cat", "points": [[1, "x"]]}, {"label": "cat", "points": [[1, 2, 3]]}, 7]
)
def test_a_damaged_shape_is_named_with_its_number(tmp_path: Path, wrong: Any) -> None:
    write(tmp_path / "a.json", shape("cat", SQUARE), wrong)
    with pytest.raises(ValueError, match="a.json, shape 2: .*should have `label` and `points`"):
        only(tmp_path)


def test_impossible_values_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.json", shape("cat", [[1, 1], [float("nan"), 3], [4, 4]]))
    with pytest.raises(ValueError, match="a.json, shape 1: a coordinate of 'cat'"):
        only(tmp_path)
    write(tmp_path / "a.json", shape("cat", [[1, 1], [3, 3]], "mask"))
    with pytest.raises(ValueError, match="a.json, shape 1: of type mask, but"):
        only(tmp_path)
    with pytest.raises(ValueError, match="classes: 'cat'; should be a list"):
        labelme.scan(tmp_path, classes="cat")


def test_two_different_label_lists_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "a.json", shape("cat", SQUARE))
        (tmp_path / name / "labels.txt").write_text("cat\n")
    assert len(labelme.scan(tmp_path).classes) == 2
    (tmp_path / "two" / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="one/labels.txt and .*two/labels.txt differ"):
        labelme.scan(tmp_path)


def test_real_export_is_reproduced(samples: Path, tmp_path: Path) -> None:
    """labelme's own SegmentationClass and SegmentationObject of its example: equal but for the one pixel that Pillow moved."""
    folder = samples / "voc_style_labelme" / "instance_segmentation"
    scan = labelme.scan(folder, images="data_dataset_voc/JPEGImages")
    assert [i.id for i in scan.items] == [f"data_annotated/2011_0000{n}" for n in ("03", "06", "25")] and not scan.faults
    names = (folder / "data_dataset_voc" / "class_names.txt").read_text().split("\n")
    assert [c.name for c in scan.classes] == ["background", *names[1:]]
    rule = {"fractions": {"train": 0.4, "val": 0.3, "test": 0.3}, "by": "id", "salt": 0}
    info, _ = convert(folder, tmp_path / "out", name="labelme", scan=scan, load=labelme.load, splits=rule, workers=1)
    assert info.splits == {"train": 1, "val": 1, "test": 1}
    different = 0
    for split in ("train", "val", "test"):
        shard = Split(tmp_path / "out", split)
        _, mask = shard.arrays(0)
        wanted, numbers = (
            np.asarray(Image.open(folder / "data_dataset_voc" / kind / f"{Path(shard.ids[0]).name}.png"))
            for kind in ("SegmentationClass", "SegmentationObject")
        )
        different += int((mask != wanted).sum())
        rows = [np.asarray(decode_instance(row, mask.shape), bool) for row in shard[0].instances]
        assert len(rows) == len(np.unique(numbers[numbers > 0]))
        for inside in rows:
            number = np.bincount(numbers[inside]).argmax()
            assert number > 0 and (inside != (numbers == number)).sum() <= 1
    assert different == 1
