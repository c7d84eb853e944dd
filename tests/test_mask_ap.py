"""Mask AP: reference numbers, and pycocotools on random scenes with crowds, ties and more than 100 detections."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segpipe.mask_ap import LIMITS, SIZES, Detection, MaskAP
from tests.object_masks import instance, rectangle

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/instances.json").read_text())["coco_segm_ap"]
KEYS = [
    *("ap", "ap50", "ap75"),
    *(f"ap_{size}" for size in SIZES[1:]),
    *(f"ar{limit}" for limit in LIMITS),
    *(f"ar_{size}" for size in SIZES[1:]),
]
"""The twelve numbers in the order of pycocotools."""
PANOPTIC = "coco2017_panoptic100/panoptic_segmentation/annotations"


def detection(mask: np.ndarray, category: int, score: float) -> Detection:
    return Detection(category=category, score=score, rle=instance(mask, category)["rle"])


def by_pycocotools(images: list[tuple[list[dict[str, Any]], list[Detection]]], *, size: tuple[int, int], classes: int) -> list[Any]:
    """The twelve numbers; None for its -1. Detections reach it as in a result file."""
    truth, found = COCO(), COCO()
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for image, (instances, predicted) in enumerate(images, start=1):
        for row in instances:
            rest = {"area": row["area"], "iscrowd": int(row["iscrowd"])}
            rows[True].append(_annotation(rows[True], image, row["category"], row["rle"], size) | rest)
        for d in predicted:
            area = float(coco_mask.area({"size": list(size), "counts": d.rle.encode()}))
            rest = {"area": area, "iscrowd": 0, "score": d.score}
            rows[False].append(_annotation(rows[False], image, d.category, d.rle, size) | rest)
    with contextlib.redirect_stdout(io.StringIO()):
        for side, annotations in ((truth, rows[True]), (found, rows[False])):
            side.dataset = {
                "images": [{"id": i + 1, "height": size[0], "width": size[1]} for i in range(len(images))],
                "categories": [{"id": k + 1} for k in range(classes)],
                "annotations": annotations,
            }
            side.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats]


def _annotation(before: list[Any], image: int, category: int, rle: str, size: tuple[int, int]) -> dict[str, Any]:
    segment = {"size": list(size), "counts": rle}
    return {"id": len(before) + 1, "image_id": image, "category_id": category + 1, "segmentation": segment}


def test_golden_average_precision(capfd: pytest.CaptureFixture[str]) -> None:
    """Two images, a crowd, a false positive on nothing and one on the crowd; and not a word is printed."""
    inputs, expected = GOLDEN["inputs"], GOLDEN["expected"]
    shape = (inputs["height"], inputs["width"])
    found = MaskAP(["a", "b"])
    for image in (1, 2):
        boxes = {kind: [row for row in inputs[kind] if row["image"] == image] for kind in ("gts", "dets")}
        masks = {kind: [rectangle(shape, r["rect_y0y1x0x1"][:2], r["rect_y0y1x0x1"][2:]) for r in boxes[kind]] for kind in boxes}
        pairs = {kind: list(zip(masks[kind], boxes[kind], strict=True)) for kind in boxes}
        found.add(
            [instance(m, r["cat"] - 1, iscrowd=bool(r["iscrowd"])) for m, r in pairs["gts"]],
            [detection(m, r["cat"] - 1, r["score"]) for m, r in pairs["dets"]],
            size=shape,
        )
    document = found.document()
    for ours, (name, value) in zip(KEYS, expected.items(), strict=True):
        assert document[ours] == (None if value == -1 else pytest.approx(value, rel=1e-12)), name
    assert document["objects"] == found.objects == 5
    assert [row["objects"] for row in document["by_class"].values()] == [3, 2]
    assert np.mean([row["ap"] for row in document["by_class"].values()]) == pytest.approx(document["ap"])
    assert document == found.document()  # asking twice changes nothing
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), crowded=st.booleans())
def test_average_precision_equals_pycocotools(seed: int, crowded: bool) -> None:
    """Random rectangles with equal scores among them, empty images, classes without objects, and more than 100 detections."""
    rng, size, classes, images = np.random.default_rng(seed), (120, 140), 3, []

    def mask() -> np.ndarray:
        top, left = rng.integers(0, 70, 2)
        return rectangle(size, (top, top + rng.integers(1, 50)), (left, left + rng.integers(1, 70)))

    for number in range(3):
        rows = [instance(mask(), int(rng.integers(2)), iscrowd=bool(rng.random() < 0.2)) for _ in range(rng.integers(0, 5))]
        masks = [coco_mask.decode({"size": list(size), "counts": r["rle"].encode()}).astype(bool) for r in rows]
        shifted = [np.roll(m, tuple(rng.integers(-3, 4, 2)), (0, 1)) for m in masks]
        found = [detection(m, int(r["category"]), int(rng.integers(4)) / 4) for m, r in zip(shifted, rows, strict=True) if m.any()]
        extra = 130 if crowded and number == 0 else int(rng.integers(0, 4))
        found += [detection(mask(), int(rng.integers(classes)), int(rng.integers(4)) / 4) for _ in range(extra)]
        images.append((rows, found))
    ours = MaskAP([str(k) for k in range(classes)])
    for rows, found in images:
        ours.add(rows, found, size=size)
    document = ours.document()
    for key, expected in zip(KEYS, by_pycocotools(images, size=size, classes=classes), strict=True):
        assert document[key] == (None if expected is None else pytest.approx(expected, abs=1e-12)), key


def test_nothing_at_all_is_undefined_and_nothing_found_is_zero() -> None:
    nothing = MaskAP(["a", "b"])
    assert [nothing.document()[key] for key in KEYS] == [None] * 12
    nothing.add([instance(rectangle((50, 50), (0, 20), (0, 20)), 0)], [], size=(50, 50))
    document = nothing.document()
    assert (document["ap"], document["ar100"], document["ap_small"], document["ap_large"]) == (0, 0, 0, None)
    assert document["by_class"]["b"] == {"ap": None, "ap50": None, "ar100": None, "objects": 0}


def test_a_real_result_file(samples: Path) -> None:
    """COCO's own sample of results on the 33 images that panoptic truth is there for; the numbers are pycocotools'."""
    truth = json.loads((samples / PANOPTIC / "panoptic_train2017.json").read_text())
    results = json.loads((samples / "coco_eval_samples/cocoapi/results/instances_val2014_fakesegm100_results.json").read_text())
    things = [c["id"] for c in truth["categories"] if c["isthing"]]
    found = MaskAP([str(number) for number in things])
    for image in truth["annotations"]:
        own = [r for r in results if r["image_id"] == image["image_id"]]
        if not own:
            continue
        colours = np.asarray(Image.open(samples / PANOPTIC / "panoptic_train2017" / image["file_name"]), np.int64)
        numbers = colours @ [1, 256, 65536]
        rows = [
            instance(numbers == s["id"], things.index(s["category_id"]), iscrowd=bool(s["iscrowd"])) | {"area": s["area"]}
            for s in image["segments_info"]
            if s["category_id"] in things
        ]
        detected = [
            Detection(category=things.index(r["category_id"]), score=r["score"], rle=r["segmentation"]["counts"]) for r in own
        ]
        found.add(rows, detected, size=numbers.shape)
    document = found.document()
    expected = {"ap": 0.3553, "ap50": 0.5815, "ap75": 0.3140, "ap_small": 0.3457, "ap_medium": 0.3475, "ap_large": 0.3754}
    assert {key: round(document[key], 4) for key in (*expected, "ar100")} == expected | {"ar100": 0.4013}
