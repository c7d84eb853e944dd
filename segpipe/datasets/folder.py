"""Your own images and masks, arranged in your own way: `format: folder, source: /my/data`.

Two folders (images/ and masks/, img_dir/ and ann_dir/, image/ and groundTruth/, ...), with train, val and test folders above or
below them or none, or one folder with 7.png and 7_mask.png, or with 7.jpg and 7.png, are found by themselves. Others take patterns:

    images: "photos/{id}_rgb.tif"
    masks: "truth/{group}/{id}.png"      # {id}, {group} and {split} stand for a part of a name, * for any

or the name of a folder, as in `masks: annotations`. `group: "{group}_*"` finds in the id what splits keep together (a patient, a
drive); without it every image is its own group. Splits come from folders called train, val and test, or from train.txt, val.txt and
test.txt with one name per line; with neither, `splits` in params.yaml draws them.

Masks are PNG, GIF, BMP or TIFF (grey, palette or 1-bit: the values are label values; colour), MATLAB's .mat or .npy. Which value is
which class stands in a file classes.yaml in your folder, or under `classes` in params.yaml (all forms: `blocks/class_table.py`):

    [background, crack]                        the value is the position
    {background: 0, crack: 255, ignore: 128}   by value; what is under `ignore` does not count
    {soil: [0, 0, 0], weed: "#ff0000"}         by colour

Without a table, what a few masks hold is recognised and said in a warning ({0, 255} is background and foreground), or refused
with the lines of a table to fill in. Values that a table does not hold are errors, never silently ignored, 255 among them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import class_table, mask_file, mask_values, naming, pairing, split_lists
from segpipe.datasets.blocks.class_table import Table
from segpipe.datasets.blocks.patterns import GroupRule
from segpipe.layout import Fault, Item, Raw, Scan, Source

SOURCES: tuple[Source, ...] = ()
IGNORED = 255
"""The label of ignored pixels in masks of objects."""


def scan(
    raw: Path,
    *,
    images: str | None = None,
    masks: str | None = None,
    group: str | None = None,
    classes: Any = None,
    ignore: Any = None,
    mat_key: str | None = None,
    threshold: float | None = None,
    instances: bool = False,
) -> Scan:
    """List the pairs of image and mask in `raw` and read the class table; up to 50 masks are decoded to compare them with it.

    `images` and `masks` are patterns or folders, `group` a pattern or a regular expression for the id. `classes` is a class table
    or the path of one. `ignore` is a label value or colour that does not count, or a list of them. `mat_key` names the array in
    .mat masks. `threshold` makes two classes of grey masks: below it, and the rest. With `instances` every value of a mask but 0 is
    one object, of the class `object` or the second of the table.

    Raises:
        ValueError: no pair is found or several arrangements fit, a table or list is wrong, or the masks cannot be understood
            without a table; the message says what to write.
    """
    found = pairing.find(raw, naming.list_files(raw), images=images, masks=masks)
    pairs, faults = split_lists.with_splits(raw, found.pairs, [file.source for file in found.images])
    if not pairs:
        raise ValueError(f"{raw}: {len(found.pairs)} images have a mask, but no list of a split names one of them")
    given = _given(raw, classes)
    extra: dict[str, Any] = {"mat_key": mat_key} if mat_key else {}
    if threshold is not None or instances:
        table = _two_classes(given, ignore, threshold=threshold, instances=instances)
        extra |= {"threshold": threshold} if threshold is not None else {"instances": True, "ignored": _values(ignore)}
        more: tuple[Fault, ...] = ()
    else:
        extra |= {"packed": True} if given and given.colour_coded else {}
        table, more = _understand(raw, pairs, given, ignore, extra)
    rule = GroupRule(group) if group else None
    items = [
        Item(
            id=pair.id,
            split=pair.split,
            image=raw / pair.image,
            # Behind a threshold the mask's file holds no labels (and may be a JPEG), so nobody else should look at it as if it did.
            mask=raw / pair.mask if threshold is None else None,
            group=rule(pair.id) if rule else pair.group or pair.id,
            source=pair.image,
            extra=extra if threshold is None else extra | {"mask": str(raw / pair.mask)},
        )
        for pair in pairs
    ]
    named = (table.classes[0], replace(table.classes[1], thing=True)) if instances else table.classes
    return Scan(
        classes=named,
        items=tuple(items),
        labels=table.labels,
        ignore_index=table.ignore_index,
        colours=table.colour_coded,
        faults=(*found.faults(), *faults, *more),
    )


def load(item: Item) -> Raw:
    """Decode one sample; its labels are the mask's own values, packed colours where the class table names colours.

    Masks of objects give 0 and 1, and 255 for ignored values; instances are in the order of their values.
    """
    extra = item.extra
    labels = _read(item.mask or Path(extra["mask"]), item.image, extra)
    if labels.ndim == 3:
        raise ValueError("the mask is a colour picture, others are not; save all masks alike, or name the colours in classes.yaml")
    if not extra.get("instances"):
        return Raw(image=item.image.read_bytes(), labels=labels)
    ignored = np.isin(labels, extra["ignored"])
    objects = np.where(ignored, 0, labels)
    semantic = np.where(ignored, IGNORED, objects != 0).astype(np.uint8)
    rows = [{"category": 1, "rle": rle, "iscrowd": False} for rle in _objects(objects)]
    return Raw(image=item.image.read_bytes(), labels=semantic, instances=rows)


def _read(mask: Path, image: Path, extra: dict[str, Any]) -> np.ndarray:
    size = None
    if mask.suffix.lower() == ".mat":  # the array is told by the image's size
        with Image.open(image) as opened:
            size = opened.height, opened.width
    known = {key: extra[key] for key in ("packed", "threshold", "mat_key") if key in extra}
    return mask_file.read(mask, size=size, **known)


def _objects(numbers: np.ndarray) -> list[dict[str, Any]]:
    """COCO's run lengths of each value but 0 in (H, W), in the order of the values. Only the runs of a value are touched for it."""
    flat = numbers.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    values, first = np.unique(flat[starts][order], return_index=True)
    size, found = list(numbers.shape), []
    for value, runs in zip(values, np.split(order, first[1:]), strict=True):
        if value != 0:
            edges = np.stack([starts[runs], ends[runs]], 1).ravel()
            counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
            found.append(coco_mask.frPyObjects({"size": size, "counts": counts.tolist()}, *size))
    return found


def _given(raw: Path, classes: Any) -> Table | None:
    """The class table that the user wrote, in params.yaml or in a file, else None."""
    if classes is None:
        path = class_table.find(raw)
        return class_table.read(path) if path else None
    if not isinstance(classes, str):
        return class_table.parse(classes, where="classes")
    path = raw / Path(classes).expanduser()
    if not path.is_file():
        raise ValueError(
            f"classes: {classes}; no such file in {raw}. {class_table.FORMS.capitalize()}, or the path of a file with one."
        )
    return class_table.read(path)


def _values(ignore: Any) -> tuple[int, ...]:
    return class_table.with_ignored(Table(names=(), values=()), ignore, where="ignore").ignored


def _two_classes(given: Table | None, ignore: Any, *, threshold: float | None, instances: bool) -> Table:
    """The table behind `threshold` or `instances`: 0 and 1, called by the names of the user's table, if there is one."""
    option = "instances" if instances else "threshold"
    names = given.names if given else ("background", "object" if instances else "foreground")
    if len(names) != 2:
        raise ValueError(f"{option}: makes two classes, but the class table names {len(names)}: {', '.join(names)}")
    if threshold is not None and (instances or ignore is not None):
        raise ValueError(
            f"threshold: {threshold}; leaves no value for `{'instances' if instances else 'ignore'}`; remove one of the two"
        )
    return Table(names=names, values=(0, 1), ignored=(IGNORED,))


def _understand(
    raw: Path, pairs: Sequence[pairing.Pair], given: Table | None, ignore: Any, extra: dict[str, Any]
) -> tuple[Table, tuple[Fault, ...]]:
    """The class table that fits the masks, and what was recognised on the way."""
    paths = [raw / pair.mask for pair in pairs]
    packed = bool(extra.get("packed"))
    seen = mask_values.look(paths, lambda i: _read(paths[i], raw / pairs[i].image, extra), packed=packed)
    mask_values.refuse(seen, raw, given)
    if given is None:
        return mask_values.recognise(seen, raw, ignored=_values(ignore))
    given = class_table.with_ignored(given, ignore, where="ignore")
    return mask_values.two_named(seen, given) or (given, ())
