"""One sample of a source is decoded, checked and encoded: what a worker process of convert does.

A fault of its files comes back as a finding with a small picture, never as an exception.
"""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segpipe import drawing, shards
from segpipe.duplicates import fingerprint
from segpipe.images import DAMAGE, check_png, in_words, normal_image
from segpipe.layout import WARNING, Fault, Item, Raw
from segpipe.relabel import relabel, unknown_faults
from segpipe.statistics import SampleStatistics, sample_statistics

Load = Callable[[Item], Raw]
JPEG_HEAD = b"\xff\xd8\xff"
THUMBNAIL = 220
"""Pixels; the longer side of each half of a finding's picture."""
DISAGREES = 0.5
"""An instance whose labelled pixels are of another class by more than this share disagrees with the mask."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What holds for every sample of a source: `labels` and `classes` as in Scan, after the class map.

    `categories` gives each class of the source its index, None where the class map dropped it.
    """

    labels: Mapping[int, int]
    class_names: tuple[str, ...]
    categories: tuple[int | None, ...]
    ignore_index: int = 255
    colours: bool = False
    dimensions: int = 2


@dataclass(kw_only=True)
class Converted:
    """What became of one item: its row, unless a fault prevents one, the faults, and its exact integer statistics.

    `faults` holds (fault, label value in question or None).
    """

    sample: shards.Sample | None = None
    faults: list[tuple[Fault, str | None]] = field(default_factory=list)
    picture: tuple[str, bytes] | None = None
    statistics: SampleStatistics | None = None
    digest: bytes = b""
    """sha256 of the image's bytes."""
    fingerprint: int | None = None
    """Perceptual hash of the image, None for a volume or an image without structure."""
    reencoded: str | None = None


def convert_item(item: Item, *, load: Load, rules: Rules) -> Converted:
    """Decode, check and encode one item."""
    files = item.source if item.mask is None else f"{item.source} or its mask {item.mask.name}"
    volume = rules.dimensions == 3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's words on odd metadata; what is really damaged raises
            for path in _files(item):
                if path != item.image and path.suffix.lower() == ".png":
                    check_png(path.read_bytes())
            raw = load(item)
            check_png(raw.image)
            labels = np.asarray(raw.labels)
            image, note = (raw.image, None) if volume else normal_image(raw.image, mask_size=labels.shape[:2])
            pixels = shards.decode_image(image)
        if volume and not np.isfinite(pixels).all():
            raise ValueError("the volume holds values that are no numbers, NaN or infinite")
    except DAMAGE as error:
        what, fix = f"a file cannot be read ({_reason(item, error)})", "Fetch it again, or take the sample out of the source."
        return Converted(faults=[(Fault(kind="unreadable", what=what, example=files, fix=fix), None)])
    faults: list[tuple[Fault, str | None]] = [(fault, None) for fault in raw.faults]
    faults += [(fault, None) for fault in shape_faults(labels, pixels, item.source, dimensions=rules.dimensions)]
    if any(fault.kind in ("not_labels", "colour_mask", "size_mismatch") for fault, _ in faults):
        return Converted(faults=faults, picture=picture(item, pixels, labels))
    mask, unknown = relabel(labels, rules.labels, ignore_index=rules.ignore_index)
    smeared = item.mask is not None and _is_jpeg(item.mask)
    faults += unknown_faults(unknown, labels=rules.labels, example=item.source, colours=rules.colours, jpeg=smeared)
    faults += [(fault, None) for fault in content_faults(mask, item.source, rules=rules)]
    if note and note.startswith("orientation"):
        what = f"the image asks to be turned when shown ({note})"
        fix = "It was turned where that fits the mask; look at the preview."
        faults.append((Fault(kind="orientation", what=what, example=item.source, fix=fix, severity=WARNING), None))
    instances = [
        encode_instance(row, category) for row in raw.instances if (category := rules.categories[int(row["category"])]) is not None
    ]
    if not volume:
        faults += [(fault, None) for fault in instance_faults(instances, mask, item.source, rules=rules)]
    sample = shards.Sample(
        id=item.id,
        image=image,
        mask=shards.encode_mask(mask),
        height=mask.shape[-2],
        width=mask.shape[-1],
        depth=mask.shape[0] if volume else 1,
        spacing=None if raw.spacing is None else [float(s) for s in raw.spacing],
        group=item.group,
        source=item.source,
        instances=instances,
    )
    known = sample_statistics(pixels, mask, instances, num_classes=len(rules.class_names), ignore_index=rules.ignore_index)
    shown = picture(item, pixels, labels) if faults else None
    return Converted(
        sample=sample,
        faults=faults,
        picture=shown,
        statistics=known,
        digest=hashlib.sha256(image).digest(),
        fingerprint=None if volume else fingerprint(pixels),
        reencoded=note,
    )


def shape_faults(labels: np.ndarray, pixels: np.ndarray, source: str, *, dimensions: int) -> list[Fault]:
    """What is wrong with the form of a mask: no whole numbers, a colour picture, or not the image's size."""
    if labels.ndim == dimensions + 1 and labels.shape[-1] in (3, 4):
        what = f"the mask is a colour picture ({labels.shape[-1]} channels), not one label value per pixel"
        fix = "Name its colours in classes.yaml (format folder), or save the class index per pixel as a grey or palette PNG."
        return [Fault(kind="colour_mask", what=what, example=source, fix=fix)]
    if labels.ndim != dimensions or labels.dtype.kind not in "uib":
        what = f"the mask is {labels.dtype} {labels.shape}, not one whole number per pixel"
        fix = "Save the class index per pixel as a grey or palette PNG."
        return [Fault(kind="not_labels", what=what, example=source, fix=fix)]
    size = pixels.shape[:dimensions]
    if labels.shape == size:
        return []
    order = "(height, width)" if dimensions == 2 else "(depth, height, width)"
    what = f"image and mask differ in size, {size} and {labels.shape} {order}"
    fix = "Export the mask again at the image's own size."
    if labels.shape[::-1] == size:
        what = f"image and mask are turned against each other, {size} and {labels.shape} {order}"
        fix = "Turn the mask by 90 degrees."
    return [Fault(kind="size_mismatch", what=what, example=source, fix=fix)]


def content_faults(mask: np.ndarray, source: str, *, rules: Rules) -> list[Fault]:
    """Warnings of a mask that says nothing: all ignored, or all one class."""
    first = mask.flat[0]
    if not (mask == first).all():
        return []
    if first == rules.ignore_index:
        what, fix = "every pixel of the mask is ignored", "It teaches and tests nothing; is 255 used for a class?"
        return [Fault(kind="empty_mask", what=what, example=source, fix=fix, severity=WARNING)]
    what = f"the whole mask is {rules.class_names[first]!r}"
    fix = "Right for an image without objects; else look at the mask."
    return [Fault(kind="constant_mask", what=what, example=source, fix=fix, severity=WARNING)]


def instance_faults(instances: Sequence[Mapping[str, Any]], mask: np.ndarray, source: str, *, rules: Rules) -> list[Fault]:
    """A warning for each class with instances that lie mostly on labelled pixels of other classes."""
    wrong: dict[int, int] = {}
    for row in instances:
        if row["iscrowd"] or row["area"] == 0:
            continue
        x, y, width, height = (int(v) for v in row["bbox"])
        window = np.s_[y : y + height, x : x + width]
        inside = decode_instance(row, mask.shape)[window]
        under = mask[window][inside]
        labelled = under[under != rules.ignore_index]
        if labelled.size and (labelled != row["category"]).mean() > DISAGREES:
            wrong[row["category"]] = wrong.get(row["category"], 0) + 1
    fix = "Look at the picture: objects on top of it are fine, shifted or swapped masks are not."
    return [
        Fault(
            kind="instance_mismatch",
            what=f"instances of {rules.class_names[category]!r} lie mostly on pixels of other classes",
            example=f"{source} ({count} instances)",
            fix=fix,
            severity=WARNING,
        )
        for category, count in sorted(wrong.items())
    ]


def encode_instance(row: Mapping[str, Any], category: int) -> dict[str, Any]:
    """An instance {mask bool (H, W) or rle, iscrowd} with its mask as COCO's compressed run lengths, box (xywh) and area."""
    if "rle" in row:
        rle = dict(row["rle"])
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        if isinstance(rle["counts"], str):
            rle["counts"] = rle["counts"].encode("ascii")
    else:
        rle = coco_mask.encode(np.asfortranarray(row["mask"], np.uint8))
    return {
        "category": category,
        "rle": rle["counts"].decode("ascii"),
        "bbox": [float(v) for v in coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle)),
        "iscrowd": bool(row["iscrowd"]),
    }


def decode_instance(row: Mapping[str, Any], size: Sequence[int]) -> np.ndarray:
    """bool (H, W): the mask of an instance as it stands in a shard's row."""
    return np.asarray(coco_mask.decode({"size": list(size), "counts": row["rle"].encode()}), bool)


def picture(item: Item, pixels: np.ndarray, labels: np.ndarray) -> tuple[str, bytes]:
    """(caption, JPEG): a small image beside its raw label values, stretched to what the eye can tell apart."""
    middle = [array[len(array) // 2] if array.ndim > 2 and array.shape[-1] not in (3, 4) else array for array in (pixels, labels)]
    halves = [_small(array, photograph=index == 0) for index, array in enumerate(middle)]
    return item.source, drawing.side_by_side(halves)


def _small(array: np.ndarray, *, photograph: bool) -> np.ndarray:
    if array.ndim == 2:
        values = np.nan_to_num(np.asarray(array, np.float64))
        low, high = values.min(), values.max()
        grey = np.uint8(255 * (values - low) / (high - low)) if high > low else np.full(values.shape, 128, np.uint8)
        array = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    else:
        array = np.ascontiguousarray(array[..., :3].astype(np.uint8))
    scale = THUMBNAIL / max(array.shape[:2])
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    smooth = photograph and scale < 1
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST_EXACT)


def _is_jpeg(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == JPEG_HEAD


def _files(item: Item) -> Iterator[Path]:
    """The files of an item that are there: image, mask, and the paths in `extra`."""
    further = (value if isinstance(value, list | tuple) else [value] for value in item.extra.values())
    for path in (item.image, item.mask, *itertools.chain.from_iterable(further)):
        if isinstance(path, Path) and path.is_file():
            yield path


def _reason(item: Item, error: BaseException) -> str:
    empty = [path.name for path in _files(item) if path.stat().st_size == 0]
    return f"{' and '.join(empty)} is empty, 0 bytes" if empty else in_words(error)
