"""COCO's files as streams: the same entries as the json module gives, at the places it says, in a bounded memory."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segpipe.datasets.blocks import coco_files
from tests.datasets.coco_trees import THINGS, box, dump, listed, outlines

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=4)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "images": ENTRIES,
        "annotations": ENTRIES,
        "categories": ENTRIES,
        "info": VALUES,
        "größe": VALUES,
        "licenses": ENTRIES,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, st.sampled_from([1, 3, 17, 2**22]), st.sampled_from([None, 2]), st.booleans(), st.booleans())
def test_entries_and_places(
    tmp_path: Path, document: dict[str, Any], block: int, indent: int | None, ascii_only: bool, mark: bool
) -> None:
    """Any document, pretty-printed or not, with a byte order mark or not, read in blocks of any size."""
    path = tmp_path / "a.json"
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8-sig" if mark else "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_files, "BLOCK", block)
        found = list(coco_files.entries(path))
    wanted = [(key, entry) for key, entries in document.items() if key in coco_files.LISTS for entry in entries]
    assert [(key, entry) for key, _, _, entry in found] == wanted
    assert coco_files.read(path, [(first, length) for _, first, length, _ in found]) == [entry for _, entry in wanted]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_named_or_read(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with any one byte changed: a ValueError that names the file, or an index."""
    path = dump(tmp_path / "a.json", listed([1, 2], THINGS, outlines(1) + outlines(2)))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    path.write_bytes(damaged)
    try:
        coco_files.index(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_a_cut_file_is_always_an_error(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.json", listed([1], THINGS, outlines(1)))
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:at])
        with pytest.raises(ValueError, match="a.json: .*no valid JSON at byte"):
            coco_files.index(path)


def test_index(tmp_path: Path) -> None:
    """Annotations before images, in no order, ids with gaps: each image gets its own, each category its place."""
    rows = [outlines(25)[1], outlines(9)[0], outlines(25)[3], outlines(9)[2]]
    document = listed([9, 25, 30], list(reversed(THINGS)), [])
    path = dump(tmp_path / "a.json", {"annotations": rows, **{k: document[k] for k in ("categories", "images")}})
    index = coco_files.index(path)
    assert [c["id"] for c in index.categories] == [1, 3, 90] and not index.faults and not index.panoptic and index.count == 4
    assert [(i.name, i.height, i.width) for i in index.images] == [(f"{n:012d}.jpg", 24, 32) for n in (9, 25, 30)]
    read = [coco_files.read(path, image.annotations) for image in index.images]
    assert read == [[rows[1], rows[3]], [rows[0], rows[2]], []]
    assert [list(image.annotations[:, 2]) for image in index.images] == [[0, 2], [1, 0], []]


def test_an_image_without_a_size_has_size_0(tmp_path: Path) -> None:
    document = listed([1, 2], THINGS, [])
    document["images"][0] |= {"height": None, "width": "640"}
    del document["images"][1]["height"]
    images = coco_files.index(dump(tmp_path / "a.json", document)).images
    assert [(i.height, i.width) for i in images] == [(0, 0), (0, 32)]


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        ({"image_id": 7}, "unknown_image", "an annotation of an image that is not listed"),
        ({"category_id": 2}, "unknown_category", "an annotation of the category 2, which is not listed"),
        ({"segmentation": []}, "bad_polygon", "an annotation has no polygon and no run lengths"),
        ({"segmentation": None}, "bad_polygon", "an annotation has no polygon and no run lengths"),
        ({"segmentation": [box(1, 1, 2, 2), [1.0, 2.0, 3.0, 4.0]]}, "bad_polygon", "a polygon of 2 points"),
    ],
)
def test_faults_of_single_annotations(tmp_path: Path, change: dict[str, Any], kind: str, what: str) -> None:
    rows = outlines(1)
    rows[2] |= change
    index = coco_files.index(dump(tmp_path / "some.json", listed([1], THINGS, rows)))
    assert [(f.kind, f.what, f.example, f.severity) for f in index.faults] == [(kind, what, "some.json, annotation 102", "error")]
    assert index.count == 3 + (kind != "unknown_image")


def test_an_id_that_two_images_share(tmp_path: Path) -> None:
    document = listed([1, 2, 1], THINGS, outlines(1))
    [fault] = coco_files.index(dump(tmp_path / "a.json", document)).faults
    assert (fault.kind, fault.what, fault.example) == (
        "bad_annotation",
        "an id is taken twice in the list 'images'",
        "a.json, image 1",
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "'{' is missing"),
        ({"images": [1], "annotations": []}, "'1' in the list 'images'; should be an object"),
        ({"annotations": [], "categories": THINGS}, "has no list 'images', or an empty one"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": []}, "has no list 'categories', or an empty one"),
        ({"images": [{"id": 1}]}, "has the name None; should be text"),
        ({"images": [{"file_name": "a.jpg"}]}, "has the id None"),
        ({"annotations": [{"image_id": [1], "category_id": 1}]}, r"has the image_id \[1\]"),
        ({"annotations": [{"image_id": 1}]}, "has the category_id None"),
    ],
)
def test_what_no_index_can_be_made_of(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"a.json: .*{words}"):
        coco_files.index(dump(tmp_path / "a.json", document))


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"images": [{"id": 1, "file_name": "Müll.jpg"}]}'.encode("latin-1"))
    with pytest.raises(ValueError, match="a.json: .*the text is not UTF-8"):
        coco_files.index(path)


def test_memory_is_bounded_by_the_block_not_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """14 MB of annotations: the json module needs more than 40 MB for them, the index's places a few hundred kilobytes."""
    monkeypatch.setattr(coco_files, "BLOCK", 2**18)
    shape = [round(float(v), 2) for v in np.random.default_rng(0).random(200) * 600]
    rows = [{"id": i, "image_id": i % 50, "category_id": 1, "iscrowd": 0, "segmentation": [shape]} for i in range(10000)]
    path = dump(tmp_path / "a.json", listed(list(range(50)), THINGS, rows))
    del rows
    assert path.stat().st_size > 12e6
    tracemalloc.start()
    try:
        index = coco_files.index(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert index.count == 10000 and peak < 5e6, peak


def test_whether_a_file_looks_like_one(tmp_path: Path) -> None:
    assert coco_files.looks_like_one(dump(tmp_path / "a.json", listed([1], THINGS, [])))
    assert coco_files.looks_like_one(dump(tmp_path / "b.json", {"annotations": [], "images": []}, indent=2))
    assert not coco_files.looks_like_one(dump(tmp_path / "c.json", {"shapes": [], "imagePath": "a.jpg"}))
    (tmp_path / "d.json").write_bytes(b"")
    assert not coco_files.looks_like_one(tmp_path / "d.json")
