"""One image's annotations from a COCO file: its instances, and the label map that is drawn from them.

The order of painting: regions of crowds first, with the ignored label, so that they stay only where no object is; then the objects,
those of more pixels first, so that a cup stays visible on its table whatever the file's order; of equal ones the later is on top.
Pixels of no annotation have the label `rest`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import coco_files, polygons
from segpipe.datasets.blocks.coco_files import Listed
from segpipe.layout import WARNING, Fault, Item

MAX_PIXELS = 2**28
EXIF_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


def extra(path: Path, image: Listed, classes: np.ndarray, *, rest: int = 0, ignored: int = 255) -> dict[str, Any]:
    """What an item keeps so that `draw` finds the annotations of `image` in the file `path`; small, and picklable.

    `classes` is int (categories,): the class of each of the index's categories. Annotations without a category are left out.
    """
    known = image.annotations[image.annotations[:, 2] >= 0]
    places = np.column_stack([known[:, :2], classes[known[:, 2]]]).astype(np.int64)
    size = (image.height, image.width)
    return {"file": str(path), "size": size, "annotations": places.tobytes(), "rest": rest, "ignored": ignored}


def draw(item: Item) -> tuple[np.ndarray, list[dict[str, Any]], tuple[Fault, ...]]:
    """The label map of an item, its instances as run lengths, and what could not be drawn.

    The map is uint8 (uint16 if the ignored label is above 255), of the size that the file gives, or the image's own where it
    gives none, as tools show it. An annotation without an outline and a polygon of fewer than 3 points, which the index has
    named, are passed over.

    Raises:
        ValueError: the file gives a size that no image has.
    """
    height, width = item.extra["size"]
    if not height or not width:
        height, width = _shown_size(item.image)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{item.extra['file']}: gives the size {width} x {height}; should be the image's")
    places = np.frombuffer(item.extra["annotations"], np.int64).reshape(-1, 3)
    rows: list[dict[str, Any]] = []
    shapes: list[tuple[int, int, np.ndarray]] = []
    faults = []
    for entry, category in zip(coco_files.read(Path(item.extra["file"]), places), places[:, 2], strict=True):
        if not entry.get("segmentation"):
            continue
        try:
            rle = run_lengths(entry.get("segmentation"), height=height, width=width)
            shape = polygons.rle_in_box(rle)
        except (ValueError, TypeError) as error:
            faults.append(_fault("bad_annotation", f"an annotation cannot be drawn: {error}", item, entry))
            continue
        if not shape[2].size:
            faults.append(_fault("empty_instance", "an annotation covers no pixel and is left out", item, entry, severity=WARNING))
            continue
        rows.append({"category": int(category), "rle": rle, "iscrowd": bool(entry.get("iscrowd", 0))})
        shapes.append(shape)
    rest, ignored = item.extra["rest"], item.extra["ignored"]
    labels = np.full((height, width), rest, np.uint8 if ignored <= 255 else np.uint16)
    area = [int(np.count_nonzero(mask)) for _, _, mask in shapes]
    for i in sorted(range(len(rows)), key=lambda i: (not rows[i]["iscrowd"], -area[i])):
        (top, left, mask), value = shapes[i], ignored if rows[i]["iscrowd"] else rows[i]["category"]
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = value
    return labels, rows, tuple(faults)


def run_lengths(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed run lengths of an annotation's `segmentation`: a list of polygons, or run lengths of either kind.

    Raises:
        ValueError, TypeError: it is neither, or is damaged, or has another size.
    """
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [height, width]:
            raise ValueError(f"its run lengths have the size {size}, its image has [{height}, {width}]")
        if isinstance(counts, list):
            polygons.rle_in_box(segmentation)  # pycocotools checks nothing
            return dict(coco_mask.frPyObjects(dict(segmentation), height, width))
        if not isinstance(counts, str):
            raise ValueError(f"its run lengths are {type(counts).__name__}, neither text nor a list")
        return {"size": [height, width], "counts": counts.encode()}
    if not isinstance(segmentation, list):
        raise ValueError(f"its segmentation is {type(segmentation).__name__}, neither polygons nor run lengths")
    return polygons.to_rle([p for p in segmentation if not isinstance(p, list) or len(p) >= 6], height=height, width=width)


def _shown_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as tools show it, from its header."""
    with Image.open(path) as opened:
        turned = opened.getexif().get(EXIF_ORIENTATION) in TURNED
        return (opened.width, opened.height) if turned else (opened.height, opened.width)


def _fault(kind: str, what: str, item: Item, entry: Mapping[str, Any], *, severity: str = "error") -> Fault:
    example = f"{item.source}, annotation {entry.get('id')!r}"
    return Fault(kind=kind, what=what, example=example, fix="Draw it again, or remove it from the file.", severity=severity)
