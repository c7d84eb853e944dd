"""labelme: a folder of its JSON files beside their images (github.com/wkentaro/labelme); a user's own data.

    *.json       {"shapes": [{"label", "points", "shape_type", "group_id"}], "imagePath", "imageData", "imageHeight", "imageWidth"}
    labels.txt   optional: a class per line; __ignore__ is ignored, _background_ is class 0, `background`

Folders may be nested. The image is where `imagePath` says, from the JSON file on and with / or \\ between folders; else a file of
that name beside the JSON or in the folder `images`; else the picture in `imageData` (base64). Classes are the lines of labels.txt,
or the option `classes`, or else all labels found, sorted; a label that is not among them is a fault. Pixels without a shape are
background.

Shapes are drawn as labelme's own export does it (labelme/utils/shape.py): Pillow's polygon, rectangle or ellipse with its outline,
in the order of the file, later ones on top. On labelme's example of three VOC images this gives its PNG files but for one pixel in
544,000 (Pillow has changed since); by COCO's rule one foreground pixel in a hundred would differ. Masks (labelme 5.3 and later)
are pasted; lines and points have no area and are left out with a warning. Shapes of one label and one `group_id` are one
instance, of the pixels that later shapes leave visible. Flags are not read.

Where every JSON lies in a folder train, val (or valid) or test right inside `raw`, that is its split; else there is none.
"""

import base64
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import palette, texts
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SOURCES: tuple[Source, ...] = ()
IGNORED, BACKGROUND = "__ignore__", "_background_"
FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}
"""The shape types that enclose pixels, and how many points each needs at least."""
EXIF_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


def scan(raw: Path, *, classes: Sequence[str] = (), images: str | None = None) -> Scan:
    """List the labelme files in `raw` and all folders below it. JSON files of other programs are passed over.

    `classes` are the labels in order, with the conventions of labels.txt; `images` is a folder inside `raw` that has the images.

    Raises:
        ValueError: there is no labelme file, an option is malformed, or there are two different labels.txt.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: {classes!r}; should be a list of names, e.g. [_background_, cat, dog]")
    if images is not None and not (raw / images).is_dir():
        raise ValueError(f"{raw / images}: no such folder, but the option `images` names it")
    found: list[tuple[Path, Path | None]] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for path in sorted(raw.rglob("*.json")):
        source = path.relative_to(raw).as_posix()
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            fix = "Save it again in labelme, or remove it."
            faults.append(Fault(kind="bad_annotation", what=f"a JSON file cannot be read ({error})", example=source, fix=fix))
            continue
        if isinstance(document, dict) and isinstance(document.get("shapes"), list) and "imagePath" in document:
            found.append((path, _picture(path, document, raw, images)))
            for shape in document["shapes"]:
                seen.setdefault(str(shape.get("label")) if isinstance(shape, dict) else "None", source)
    if not found:
        damaged = "".join(f" {fault.example}: {fault.what}." for fault in faults[:1])
        raise ValueError(f"{raw}: no JSON file of labelme (with `shapes` and `imagePath`) in it or below.{damaged}")
    names, told = _names(raw, classes, seen)
    ignore = 255 if len(names) <= 254 else 65535
    values = {name: index for index, name in enumerate(names)} | {BACKGROUND: 0, IGNORED: ignore}
    for label in sorted(seen.keys() - values.keys()):
        what, fix = (
            f"the label {label!r} is not in {told}",
            f"Add it to {told}, or correct it in labelme; upper and lower case differ.",
        )
        faults.append(Fault(kind="unknown_category", what=what, example=seen[label], fix=fix))
    has_splits = all(path.relative_to(raw).parts[0] in FOLDERS for path, _ in found)
    items = []
    for path, image in found:
        inside = path.relative_to(raw)
        if image is None:
            fix = "Put the image where imagePath says or beside the JSON, or name its folder with the option `images`."
            what = "a labelme file has neither its image nor imageData"
            faults.append(Fault(kind="unknown_image", what=what, example=inside.as_posix(), fix=fix))
            continue
        name = inside.with_suffix("").as_posix()
        split = FOLDERS[inside.parts[0]] if has_splits else None
        shown = image.relative_to(raw).as_posix()
        items.append(Item(id=name, split=split, image=image, mask=path, group=name, source=shown, extra={"values": values}))
    faults += _without_json(raw, {item.image for item in items})
    colours = [(0, 0, 0), *palette.distinct(len(names))]
    return Scan(
        classes=tuple(ClassInfo(name=name, colour=colours[index], thing=index > 0) for index, name in enumerate(names)),
        items=tuple(items),
        labels={index: index for index in range(len(names))} | {ignore: ignore},
        ignore_index=ignore,
        faults=tuple(faults),
    )


def load(item: Item) -> Raw:
    """Draw one sample; its labels are class indices, and the ignore index under __ignore__ and unknown labels.

    Raises:
        ValueError: the JSON is damaged; the message has the file and the number of the shape, counted from 1.
    """
    assert item.mask is not None
    document = json.loads(item.mask.read_text(encoding="utf-8"))
    image = base64.b64decode(document["imageData"]) if item.image == item.mask else item.image.read_bytes()
    values, faults = item.extra["values"], []
    canvas = Image.new("I", _size(document, image), 0)
    objects: dict[tuple[str, Any], int] = {}  # (label, group) -> number on the canvas
    for position, shape in enumerate(document["shapes"], 1):
        place = f"{item.mask.name}, shape {position}"
        label, kind, points = _checked(shape, place)
        if kind not in POINTS:
            what, fix = f"a {kind} of {label!r} has no area and was left out", "Draw the object as a polygon."
            faults.append(Fault(kind="bad_annotation", what=what, example=place, fix=fix, severity=WARNING))
        elif len(points) < POINTS[kind]:
            what, fix = f"a {kind} of {label!r} has {len(points)} points, {POINTS[kind]} are needed", "Draw it again, or remove it."
            faults.append(Fault(kind="bad_polygon", what=what, example=place, fix=fix))
        else:
            group = shape.get("group_id")
            number = objects.setdefault((label, f"shape {position}" if group is None else ("group", str(group))), len(objects) + 1)
            _draw(canvas, kind, points, number, shape.get("mask"), place)
    ignore = values[IGNORED]
    table = np.zeros(len(objects) + 1, np.uint8 if ignore == 255 else np.uint16)
    table[1:] = [values.get(label, ignore) for label, _ in objects]
    numbers = np.asarray(canvas)
    columns, areas = np.asfortranarray(numbers), np.bincount(numbers.ravel(), minlength=len(table))
    rows = []
    for (label, _), number in objects.items():
        if areas[number] == 0:
            what, fix = (
                f"an object {label!r} has no visible pixel",
                "Later shapes cover it, or it lies outside the image: mend the order.",
            )
            faults.append(Fault(kind="empty_instance", what=what, example=item.mask.name, fix=fix, severity=WARNING))
        elif table[number] not in (0, ignore):
            rle = coco_mask.encode((columns == number).view(np.uint8))
            rows.append({"category": int(table[number]), "rle": rle, "iscrowd": False})
    return Raw(image=image, labels=table[numbers], instances=rows, faults=tuple(faults))


def _draw(canvas: Image.Image, kind: str, points: list[tuple[float, float]], number: int, mask: Any, place: str) -> None:
    pen = ImageDraw.Draw(canvas)
    (x, y), (u, v) = points[0], points[1]
    if kind == "circle":
        radius = math.hypot(x - u, y - v)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=number, outline=number)
    elif kind == "rectangle":
        across, down = zip(*points, strict=True)
        pen.rectangle((min(across), min(down), max(across), max(down)), fill=number, outline=number)
    elif kind == "mask":
        if not isinstance(mask, str):
            raise ValueError(f"{place}: of type mask, but its `mask` is no base64 text. Save it again in labelme.")
        inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask)))) != 0
        canvas.paste(number, (round(x), round(y)), Image.fromarray(inside))
    else:
        pen.polygon(points, fill=number, outline=number)


def _checked(shape: Any, place: str) -> tuple[str, str, list[tuple[float, float]]]:
    """The label, the type and the points of a shape."""
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        label, kind = shape["label"], shape.get("shape_type") or "polygon"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        should = "should have `label` and `points` [[x, y], ...]"
        raise ValueError(f"{place}: {type(error).__name__} {error}; {should}. Mend it, or remove it in labelme.") from error
    if not all(abs(c) < 1e6 for point in points for c in point):  # false for NaN too
        raise ValueError(f"{place}: a coordinate of {label!r} is no number or beyond a million pixels. Draw it again.")
    return str(label), str(kind), points


def _size(document: Mapping[str, Any], image: bytes) -> tuple[int, int]:
    """(width, height): the JSON's, or the image's as it is shown (labelme turns images by their EXIF orientation)."""
    size = document.get("imageWidth"), document.get("imageHeight")
    if all(isinstance(side, int) and side > 0 for side in size):
        return size  # type: ignore[return-value]
    with Image.open(io.BytesIO(image)) as opened:
        return opened.size[::-1] if opened.getexif().get(EXIF_ORIENTATION) in TURNED else opened.size


def _picture(path: Path, document: Mapping[str, Any], raw: Path, images: str | None) -> Path | None:
    """The file with the image of the labelme file `path`: the image, `path` itself if it is embedded, or None."""
    told = str(document["imagePath"]).replace("\\", "/")
    name = told.rsplit("/", 1)[-1]
    places = ([] if images is None else [raw / images / name]) + [path.parent / told, path.parent / name]
    for place in (Path(os.path.normpath(place)) for place in places):
        if name and place.is_relative_to(raw) and place.is_file():
            return place
    return path if document.get("imageData") else None


def _names(raw: Path, classes: Sequence[str], seen: Iterable[str]) -> tuple[list[str], str]:
    """The class names, background first, and where they come from."""
    files = sorted(raw.rglob("labels.txt"), key=lambda path: (len(path.parts), path))
    if classes:
        listed, told = list(classes), "the option `classes`"
    elif files:
        nearest = [path for path in files if len(path.parts) == len(files[0].parts)]
        lists = [[line.strip() for line in texts.read(path).splitlines() if line.strip()] for path in nearest]
        if any(other != lists[0] for other in lists):
            raise ValueError(f"{nearest[0]} and {nearest[-1]} differ. Keep one, or name the classes with the option `classes`.")
        listed, told = lists[0], files[0].relative_to(raw).as_posix()
    else:
        listed, told = sorted(seen), "the labels"
    return ["background", *dict.fromkeys(name for name in listed if name not in (IGNORED, BACKGROUND, "background"))], told


def _without_json(raw: Path, annotated: set[Path]) -> list[Fault]:
    """A warning for each image without a JSON file, in the folders where others have one."""
    what, fix = "an image has no labelme file", "Annotate it (without a shape if it is all background), or remove it."
    return [
        Fault(kind="no_annotation", what=what, example=path.relative_to(raw).as_posix(), fix=fix, severity=WARNING)
        for folder in sorted({image.parent for image in annotated})
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_ENDINGS and path not in annotated and not path.name.startswith(".")
    ]
