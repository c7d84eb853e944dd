"""COCO's panoptic format: a PNG of segment numbers, R + 256 G + 65536 B and 0 = void, and per image a list of segments
{id, category_id, iscrowd, bbox, area} in a JSON file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import coco_files, colours, zip_members
from segpipe.layout import WARNING, Fault, Item

VOID = 0
FIX = "The PNG and the JSON file are not of one export; fetch both again."


def load(item: Item) -> tuple[np.ndarray, list[dict[str, Any]], tuple[Fault, ...]]:
    """Category ids uint16 (H, W), 0 = void; the things as run lengths, crowds among them; what does not fit together.

    The item's `mask` is the PNG, or the zip archive that holds it at `extra["member"]`. `extra` also has `file` and `segments`, the
    JSON file and the place of the image's entry in it, and `things`, {category id: class index} of the classes with instances.

    Raises:
        ValueError: the PNG is no RGB picture, or the entry lacks what the format asks for.
    """
    assert item.mask is not None
    place = item.extra.get("member")
    with Image.open(item.mask if place is None else io.BytesIO(zip_members.read(item.mask, place))) as opened:
        rgb = np.asarray(opened)
    if rgb.ndim != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"the panoptic PNG is {rgb.dtype} {rgb.shape}; should be RGB, as its colours are segment numbers")
    numbers = colours.pack(rgb[..., 2::-1])
    file = Path(item.extra["file"])
    [entry] = coco_files.read(file, [item.extra["segments"]])
    segments: Any = entry.get("segments_info")
    try:
        ids = np.array([s["id"] for s in segments], np.int64)
        categories = np.array([s["category_id"] for s in segments], np.uint16)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: image {entry.get('image_id')!r}: its segments_info lacks id or category_id ({error})") from error
    if ((ids <= VOID) | (ids >= 2**24)).any():
        raise ValueError(f"{file}: image {entry.get('image_id')!r}: a segment id outside 1..16777215")
    # Only the pages of this table that are used take memory, so it is faster than sorting the pixels.
    table = np.zeros(2**24, np.uint16)
    table[VOID] = len(ids) + 1
    table[ids] = np.arange(1, len(ids) + 1)
    order = table[numbers]
    pixels = np.bincount(order.ravel(), minlength=len(ids) + 2)
    faults = []
    if pixels[0]:
        what = "pixels of a segment that the panoptic JSON does not list"
        example = f"{item.source}, segment {int(numbers[order == 0][0])} ({pixels[0]} pixels)"
        faults.append(Fault(kind="bad_annotation", what=what, example=example, fix=FIX))
    for empty in np.flatnonzero(pixels[1:-1] == 0):
        what, example = "a listed segment has no pixel in the panoptic PNG", f"{item.source}, segment {int(ids[empty])}"
        faults.append(Fault(kind="empty_instance", what=what, example=example, fix=FIX, severity=WARNING))
    columns = np.ascontiguousarray(order.T)
    rows = []
    for position, segment in enumerate(segments):
        category = item.extra["things"].get(int(categories[position]))
        if category is not None and pixels[position + 1]:
            mask = (columns == position + 1).view(np.uint8).T  # column-major, as pycocotools wants it
            rows.append({"category": category, "rle": coco_mask.encode(mask), "iscrowd": bool(segment.get("iscrowd", 0))})
    labels = np.concatenate([[VOID], categories, [VOID]]).astype(np.uint16)[order]
    return labels, rows, tuple(faults)
