"""YOLO segmentation labels (Ultralytics, Roboflow, CVAT, Label Studio): text files of polygons; a user's own data.

    data.yaml               names (a list, or {id: name}); train, val, test: folders of images, or lists of them, or several
    images/<split>/*.jpg    or <split>/images/*.jpg, or images/*.jpg without a split
    labels/<split>/*.txt    or <split>/labels/*.txt; a line per object: class x1 y1 x2 y2 x3 y3 ... in parts of width and height

The YAML may have any name and lie up to two levels deep; where there is none, classes.txt has a name per line. An image's label
file is found by Ultralytics' rule: the last folder `images` of its path becomes `labels`. Where the two lie elsewhere, the options
`images` and `labels` name them, and the first folder below tells the split (train2017 is train, valid is val). A split without a
single label file is a withheld test and left out. An image without a label file among others that have one is all background, as
in Ultralytics, but with a warning; an empty label file says so without one.

Class 0 is `background`, the others are the names in the order of their ids. Polygons become masks exactly as in pycocotools,
smaller objects over larger ones (Ultralytics' rule), and each is an instance with all its pixels. Lines of 5 numbers are boxes,
which is an error. Positions are in the image as it is shown, turned by its EXIF orientation. Roboflow writes several altered
copies of one image, <name>.rf.<hash>.jpg; they are one group.
"""

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import palette, polygons, texts
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SOURCES: tuple[Source, ...] = ()
SPLIT = re.compile(r"(train|val|valid|validation|test)\d*")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
EXIF_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
BACKGROUND = "background"
OUTSIDE = 0.01
"""How far a corner may lie outside the image, in parts of its size, as in Ultralytics."""


def scan(raw: Path, *, images: str | None = None, labels: str | None = None, config: str | None = None) -> Scan:
    """List the samples in `raw`. The options are paths inside `raw`: the folders of images and labels, and the YAML with the names.

    Raises:
        ValueError: there are no class names, no images or no label files; an option names what is not there.
    """
    ids, told, document = _names(raw, config)
    faults: list[Fault] = []
    top, marks = (None, None) if images is None and labels is None else (raw / (images or "images"), raw / (labels or "labels"))
    for option, folder in (("images", top), ("labels", marks)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{folder}: no such folder. Name it with the option `{option}`, by its path inside {raw}.")
    parts = _split_folders(top) if top else _listed(raw, told, document, faults) or _usual_folders(raw, told.parent)
    index = _indices(ids)
    items: list[Item] = []
    used: set[Path] = set()
    for split, found in parts:
        pairs = [(image, _label_path(image, raw, top, marks)) for image in found]
        masks = {mask for _, mask in pairs if mask.is_file()}
        if not masks:
            what, fix = f"{split or 'a folder'} has no label file at all and was left out", "Right for a withheld test."
            example = f"{found[0].relative_to(raw).as_posix()} ({len(found)} images)"
            faults.append(Fault(kind="no_annotation", what=what, example=example, fix=fix, severity=WARNING))
            continue
        used |= masks
        for image, mask in pairs:
            source = image.relative_to(raw)
            name = "/".join(part for part in source.with_suffix("").parts if part != "images")
            group = name.rsplit("/", 1)[-1].split(".rf.")[0] if ".rf." in name else name
            known = mask if mask in masks else None
            extra = {"index": index}
            items.append(Item(id=name, split=split, image=image, mask=known, group=group, source=source.as_posix(), extra=extra))
            if known is None:
                what, fix = (
                    "an image has no label file and is all background",
                    "If it shows no object add an empty one, else label it.",
                )
                faults.append(Fault(kind="no_annotation", what=what, example=source.as_posix(), fix=fix, severity=WARNING))
    if not items:
        layouts = "images/<split>/ and labels/<split>/, or <split>/images/ and <split>/labels/"
        hint = "Name the two folders with the options `images` and `labels`."
        raise ValueError(f"{raw}: no images with label files where {told.name} says, nor in {layouts}. {hint}")
    for path in sorted(path for folder in {mask.parent for mask in used} for path in folder.glob("*.txt") if path not in used):
        if path.name != "classes.txt":
            example, fix = path.relative_to(raw).as_posix(), "Fetch the image again, or remove the file."
            faults.append(Fault(kind="no_image", what="a label file has no image", example=example, fix=fix, severity=WARNING))
    names = [BACKGROUND, *dict.fromkeys(name for _, name in sorted(ids.items()) if name != BACKGROUND)]
    colours = [(0, 0, 0), *palette.distinct(len(names))]
    ignore = 255 if len(names) <= 254 else 65535
    return Scan(
        classes=tuple(ClassInfo(name=name, colour=colours[i], thing=i > 0) for i, name in enumerate(names)),
        items=tuple(items),
        labels={i: i for i in range(len(names))},
        ignore_index=ignore,
        faults=tuple(faults),
    )


def load(item: Item) -> Raw:
    """Draw one sample; its labels are class indices. A line that is no polygon of a known class is a fault and not drawn."""
    image = item.image.read_bytes()
    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size[::-1] if opened.getexif().get(EXIF_ORIENTATION) in TURNED else opened.size
    index: Mapping[int, int] = item.extra["index"]
    faults: list[Fault] = []
    shapes: list[tuple[int, list[float], dict[str, Any]]] = []
    lines = [] if item.mask is None else texts.read(item.mask).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        assert item.mask is not None
        place = f"{item.mask.parent.name}/{item.mask.name}, line {number}"
        read = _read(line, index)
        if isinstance(read, tuple):
            kind, what, fix = read
            faults.append(Fault(kind=kind, what=what, example=place, fix=fix))
            continue
        polygon = (read[1:].reshape(-1, 2) * (width, height)).ravel().tolist()
        rle = polygons.to_rle([polygon], height=height, width=width)
        if coco_mask.area(rle) == 0:
            what, fix = "a polygon holds no pixel and was left out", "Right for a speck; else draw it again."
            faults.append(Fault(kind="empty_instance", what=what, example=place, fix=fix, severity=WARNING))
            continue
        shapes.append((index[int(read[0])], polygon, rle))
    labels = np.zeros((height, width), np.uint8 if max(index.values()) < 255 else np.uint16)
    for category, polygon, _ in sorted(shapes, key=lambda shape: -int(coco_mask.area(shape[2]))):
        polygons.paint(labels, [polygon], category)
    rows = [{"category": category, "rle": rle, "iscrowd": False} for category, _, rle in shapes if category > 0]
    return Raw(image=image, labels=labels, instances=rows, faults=tuple(faults))


def _read(line: str, index: Mapping[int, int]) -> np.ndarray | tuple[str, str, str]:
    """The numbers of a line, or what is wrong with it: the kind of finding, the fault and the fix."""
    words = line.split()
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        return "bad_annotation", "a line holds a word that is no number", "Should be: class x1 y1 x2 y2 x3 y3 ..."
    if len(words) == 5:
        return "bad_annotation", "a line holds a box (5 numbers), not a polygon", "Export segmentation labels, or remove the line."
    if len(words) < 7 or len(words) % 2 == 0:
        what = f"a line of {len(words)} numbers is no class and polygon of 3 points or more"
        return "bad_polygon", what, "Should be: class x1 y1 x2 y2 x3 y3 ..."
    if numbers[0] not in index:
        what = f"the class {words[0]} is not among the names"
        return (
            "unknown_category",
            what,
            f"Names are given for {', '.join(str(i) for i in sorted(index)[:20])}: add its name, or mend the line.",
        )
    corners = numbers[1:]
    if not ((corners >= -OUTSIDE) & (corners <= 1 + OUTSIDE)).all():
        what = "a corner lies outside 0..1"
        return "bad_polygon", what, "Positions are x / width and y / height, not pixels: export again, or mend the line."
    return numbers


def _indices(ids: Mapping[int, str]) -> dict[int, int]:
    """The class index of each class id; ids of one name share an index, and one called background is class 0."""
    names = [BACKGROUND, *dict.fromkeys(name for _, name in sorted(ids.items()) if name != BACKGROUND)]
    return {number: names.index(name) for number, name in ids.items()}


def _names(raw: Path, config: str | None) -> tuple[dict[int, str], Path, Mapping[str, Any]]:
    """The name of each class id, the file that has them, and its whole content."""
    if config is not None and not (raw / config).is_file():
        raise ValueError(f"{raw / config}: no such file, but the option `config` names it")
    endings = ("yaml", "yml")
    nearby = [path for depth in ("", "*/", "*/*/") for end in endings for path in sorted(raw.glob(f"{depth}*.{end}"))]
    good: list[tuple[dict[int, str], Path, Mapping[str, Any]]] = []
    reasons = []
    for path in nearby if config is None else [raw / config]:
        try:
            document = yaml.safe_load(texts.read(path))
        except (yaml.YAMLError, ValueError) as error:
            reasons.append(f"{path}: no valid YAML ({error})")
            continue
        names = document.get("names") if isinstance(document, Mapping) else None
        rows = dict(enumerate(names)) if isinstance(names, list) else names
        if isinstance(rows, Mapping) and rows and all(re.fullmatch(r"\d+", str(key)) for key in rows):
            good.append(({int(key): str(name) for key, name in rows.items()}, path, document))
        elif names is not None:
            reasons.append(f"{path}: names: {names!r}; should be a list, or {{id: name}}")
    nearest = [row for row in good if len(row[1].parts) == len(good[0][1].parts)]
    if len(nearest) > 1:
        raise ValueError(f"{nearest[0][1]} and {nearest[1][1]} both have `names`. Choose one with the option `config`.")
    if good:
        return good[0]
    for path in (
        (path for depth in ("", "*/", "*/*/") for path in sorted(raw.glob(f"{depth}classes.txt"))) if config is None else ()
    ):
        listed = [line.strip() for line in texts.read(path).splitlines() if line.strip()]
        if listed:
            return dict(enumerate(listed)), path, {}
    if reasons:
        raise ValueError("; ".join(reasons))
    raise ValueError(
        f"{raw}: no YAML file with `names` (data.yaml) and no classes.txt here or up to two levels deep. Add one of them."
    )


def _listed(raw: Path, told: Path, document: Mapping[str, Any], faults: list[Fault]) -> list[tuple[str | None, list[Path]]]:
    """The images of each split that the YAML names. What it names and is not there goes to `faults`."""
    base = told.parent / str(document.get("path") or "")
    parts: dict[str, list[Path]] = {}
    missing = []
    for key, split in SPLITS.items():
        value = document.get(key)
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        for text in (str(text) for text in values if text):
            place = _inside(raw, text, base, told.parent)
            if place is None:
                missing.append(f"{told.relative_to(raw).as_posix()}: {key}: {text}")
            elif place.is_dir():
                parts.setdefault(split, []).extend(_images(place))
            else:
                lines = [line.strip() for line in texts.read(place).splitlines() if line.strip()]
                paths = {line: _inside(raw, line, place.parent, base, told.parent) for line in lines}
                missing += [f"{place.relative_to(raw).as_posix()}: {line}" for line, path in paths.items() if path is None]
                parts.setdefault(split, []).extend(path for path in paths.values() if path is not None)
    if any(parts.values()):
        what, fix = "the YAML or a list names what is not there", "Fetch it, or remove the line."
        faults += [Fault(kind="unknown_image", what=what, example=line, fix=fix, severity=WARNING) for line in missing]
    return [(split, found) for split, found in parts.items() if found]


def _inside(raw: Path, text: str, *bases: Path) -> Path | None:
    """What a path in a YAML or a list means: from one of `bases` on, also without its leading ../ (as Roboflow writes it)."""
    text = text.replace("\\", "/")
    bare = re.sub(r"^(\.{0,2}/)+", "", text)
    for place in (Path(os.path.normpath(base / way)) for way in (text, bare) for base in bases):
        if place.is_relative_to(raw) and place.exists():
            return place
    return None


def _usual_folders(raw: Path, near: Path) -> list[tuple[str | None, list[Path]]]:
    """The images of images/<split>/, else of <split>/images/, beside the file with the names or in `raw`."""
    for folder in dict.fromkeys((near, raw)):
        if (folder / "images").is_dir() and (parts := _split_folders(folder / "images")):
            return parts
        inner = [path for path in sorted(folder.iterdir()) if SPLIT.fullmatch(path.name) and (path / "images").is_dir()]
        if inner:
            return [(_split(path.name), found) for path in inner if (found := _images(path / "images"))]
    return []


def _split_folders(top: Path) -> list[tuple[str | None, list[Path]]]:
    """All images below `top`, by the split that the first folder on their way is named after."""
    parts: dict[str | None, list[Path]] = {}
    for path in _images(top):
        first = path.relative_to(top).parts[0]
        parts.setdefault(_split(first), []).append(path)
    return list(parts.items())


def _split(name: str) -> str | None:
    match = SPLIT.fullmatch(name)
    return SPLITS[match[1]] if match else None


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."))


def _label_path(image: Path, raw: Path, top: Path | None, marks: Path | None) -> Path:
    """Where the labels of `image` should be: in `marks` as it is in `top`, or by Ultralytics' rule."""
    if top is not None and marks is not None:
        return marks / image.relative_to(top).with_suffix(".txt")
    parts = list(image.relative_to(raw).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        last = max(i for i, part in enumerate(parts[:-1]) if part == "images")
        parts[last] = "labels"
    return raw.joinpath(*parts)
