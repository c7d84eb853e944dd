"""COCO JSON with what users get wrong: single annotations, files that are not there, and more than one way to read a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.audit import AuditError
from segpipe.convert import convert
from segpipe.datasets import coco_json
from segpipe.shards import Split
from tests.datasets.coco_trees import SIZE, THINGS, dump, export, listed, one, picture, plain


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"image_id": 99}, "unknown_image", "an annotation of an image that is not listed: train.json, annotation 0"),
        ({"category_id": 2}, "unknown_category", "an annotation of the category 2, which is not listed"),
        ({"segmentation": [[1, 2, 3, 4]]}, "bad_polygon", "a polygon of 2 points"),
        ({"segmentation": []}, "bad_polygon", "no polygon and no run lengths"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "bad_annotation", "a polygon of 7 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6e9]]}, "bad_annotation", "coordinate 6000000000.0, far outside"),
        ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "bad_annotation", "coordinate nan"),
        ({"segmentation": [[1, 2, 3, 4, 5, {}]]}, "bad_annotation", "cannot be drawn"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "bad_annotation", "cannot be drawn"),
        ({"segmentation": "poly"}, "bad_annotation", "its segmentation is str"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "bad_annotation", r"size \[9, 9\], its image has \[24, 32\]"),
        ({"segmentation": {"size": [24, 32], "counts": [81]}}, "bad_annotation", "add up to 81 pixels"),
        ({"segmentation": {"size": [24, 32], "counts": "Ü"}}, "bad_annotation", "run lengths are damaged"),
        ({"segmentation": {"size": [24, 32]}}, "bad_annotation", "its run lengths are NoneType"),
    ],
)
def test_a_wrong_annotation_stops_convert_by_name_and_may_be_let_pass(
    tmp_path: Path, change: dict[str, Any], kind: str, words: str
) -> None:
    """As an error it is named with the annotation and what is wrong; called off, only that annotation is left out."""
    for name in "abcd":
        picture(tmp_path / "raw" / f"{name}.jpg")
    rows = {f"{name}.jpg": [one(1, 0, 0, 4, 4), one(3, 10, 10, 4, 4)] for name in "abcd"}
    path = export(tmp_path / "raw", "train.json", rows)
    document = json.loads(path.read_text())
    document["annotations"][0] |= change
    dump(path, document)
    scan = coco_json.scan(tmp_path / "raw")
    with pytest.raises(AuditError, match=words) as raised:
        convert(tmp_path / "raw", tmp_path / "out", name="mine", scan=scan, load=coco_json.load, complete=False)
    assert [finding.kind for finding in raised.value.findings if finding.severity == "error"] == [kind]
    settled = {"complete": False, "severities": {kind: "off"}, "previews": 1}
    convert(tmp_path / "raw", tmp_path / "out", name="mine", scan=scan, load=coco_json.load, **settled)
    split = Split(tmp_path / "out", "train")
    assert split.ids == ["a", "b", "c", "d"]
    for i, name in enumerate(split.ids):
        expected = np.zeros(SIZE, np.uint8)
        expected[10:14, 10:14] = 2
        expected[:4, :4] = 0 if name == "a" else 1
        assert (split.arrays(i)[1] == expected).all()
        assert [row["category"] for row in split[i].instances] == ([2] if name == "a" else [1, 2])


def test_files_and_list_that_do_not_fit(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "extra.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    export(tmp_path, "annotations.json", {"a.jpg": plain(), "gone.jpg": plain(), "../outside.jpg": plain(), "/etc/passwd": plain()})
    scan = coco_json.scan(tmp_path)
    assert [item.id for item in scan.items] == ["a"]
    assert [(f.kind, f.severity, f.example) for f in scan.faults] == [
        ("no_image", "error", "annotations.json, gone.jpg"),
        ("no_image", "error", "annotations.json, ../outside.jpg"),
        ("no_image", "error", "annotations.json, /etc/passwd"),
        ("no_annotation", "warning", "extra.jpg"),
    ]


def test_a_speck_without_a_pixel_is_a_warning(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    speck = {"category_id": 1, "segmentation": [[3.0, 3.0, 3.1, 3.0, 3.1, 3.1]]}
    export(tmp_path, "annotations.json", {"a.jpg": [speck, one(3, 0, 0, 2, 2)]})
    raw = coco_json.load(coco_json.scan(tmp_path).items[0])
    assert [(f.kind, f.severity, f.example) for f in raw.faults] == [("empty_instance", "warning", "a.jpg, annotation 0")]
    assert [row["category"] for row in raw.instances] == [2]


def build(raw: Path, *files: str, images: bool = True, **options: Any) -> None:
    for file in files:
        export(raw, file, {"a.jpg": plain()}, **options)
    if images:
        picture(raw / "a.jpg")


def test_errors_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    build(tmp_path / "two", "a.json", "b.json")
    with pytest.raises(
        ValueError, match=r"two: it is not clear which annotation file is which: a.json, b.json. Write `annotations: "
    ):
        coco_json.scan(tmp_path / "two")
    build(tmp_path / "alone", "annotations.json", images=False)
    with pytest.raises(ValueError, match=r"alone/annotations.json: its images, such as a.jpg, are not in \..*option `images`"):
        coco_json.scan(tmp_path / "alone")
    build(tmp_path / "mixed", "train.json")
    build(tmp_path / "mixed", "val.json", categories=[*THINGS[:2], {"id": 90, "name": "comb"}])
    with pytest.raises(ValueError, match=r"val.json: the category 90 is 'comb', in .*train.json 'toothbrush'"):
        coco_json.scan(tmp_path / "mixed")
    picture(tmp_path / "none" / "a.jpg")
    export(tmp_path / "none", "annotations.json", {"a.jpg": []})
    with pytest.raises(ValueError, match="none/annotations.json: no annotation of a listed image"):
        coco_json.scan(tmp_path / "none")
    for options, words in (
        ({"annotations": "c.json"}, r"two/c.json: no such file, but the option `annotations` names it"),
        ({"annotations": {"training": "a.json"}}, "takes a file for any of train, val, test"),
        ({"annotations": ["a.json"]}, r"write a file's path, or \{train: a.json, val: b.json\}"),
        ({"annotations": "a.json", "images": "pictures"}, "two/pictures: no such folder, but the option `images` names it"),
    ):
        with pytest.raises(ValueError, match=words):
            coco_json.scan(tmp_path / "two", **options)


def test_a_panoptic_file_is_sent_to_its_format(tmp_path: Path) -> None:
    document = listed([1], THINGS, [{"image_id": 1, "file_name": "1.png", "segments_info": []}])
    dump(tmp_path / "panoptic.json", document)
    with pytest.raises(ValueError, match="panoptic.json: a panoptic file.*`coco`"):
        coco_json.scan(tmp_path)
