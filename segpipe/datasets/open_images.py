"""Open Images V7, object segmentation: 2.8 million masks of 350 classes on a million photos (Benenson, Popov, Ferrari 2019).

Files, anywhere below `raw` (as unpacked from the archives, or in the folders that FiftyOne writes):

    {train,validation,test}-annotations-object-segmentation.csv    MaskPath, ImageID, LabelName, BoxID, ...: a row per mask
    <ImageID>_<class>_<BoxID>.png                                  the masks, black and white
    <ImageID>.jpg                                                  the images; rows whose image is not there are passed over
    class-descriptions-boxable.csv                                 LabelName, name: /m/01g317,Person (V7's file has a header line)
    classes-segmentation.txt                                       optional: the 350 LabelNames, which gives the classes their order

`classes` chooses classes by name (or LabelName), in that order; images without a mask of them are left out. Without it there are
all 350 where classes-segmentation.txt is there, else those in the CSVs, sorted. Classes are as annotated and not joined along the
hierarchy of Open Images: a Woman is no Person. A mask may be smaller or larger than its image and is resized to it by the nearest
pixel. Where masks overlap, the smaller object lies on top; each mask is an instance with all its pixels. validation is val; the
images have nothing in common, so each is its own group.

Not everything is annotated: an image has masks only of classes that people confirmed in it, and, above all in train, not of all
their objects. A pixel without a mask is therefore not certainly background. `background: true` takes it for class 0 all the same;
`background: false` has no such class and ignores these pixels.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import palette, texts
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

ADDRESS = "https://storage.googleapis.com/openimages"
LICENCE = "Annotations: CC BY 4.0 (Google). Images: listed as CC BY 2.0, each by its own author."
ALLOWS = "Any use, also commercial, with attribution; Google asks you to check the licence of each image yourself."
MANUAL = (
    "The images (train about 500 GB) are fetched with the AWS client, without an account: `aws s3 --no-sign-request cp"
    " s3://open-images-dataset/tar/validation.tar.gz .`, also test.tar.gz and train_0.tar.gz to train_f.tar.gz, or single ones from"
    " s3://open-images-dataset/<split>/<ImageID>.jpg. Unpack them into one folder, with the CSVs and masks (v5/<split>-masks/) of"
    " https://storage.googleapis.com/openimages (addresses in segpipe/datasets/open_images.py)."
)
SUFFIX = "-annotations-object-segmentation.csv"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
ADDRESSES = (
    *(f"{ADDRESS}/v5/{split}{SUFFIX}" for split in SPLITS),
    f"{ADDRESS}/v7/oidv7-class-descriptions-boxable.csv",
    f"{ADDRESS}/v5/classes-segmentation.txt",
    *(f"{ADDRESS}/v5/{split}-masks/{split}-masks-{digit}.zip" for split in SPLITS for digit in "0123456789abcdef"),
)
"""All files but the images; the zips go by the first digit of the ImageID. Neither sizes nor checksums are published."""
# Only a part of this is ever wanted, and nothing of it without images: so there is one source, which a person puts together.
SOURCES = (Source(filename="open-images-v7", urls=(), licence=LICENCE, allows=ALLOWS, manual=MANUAL),)
COLUMNS = ("MaskPath", "ImageID", "LabelName")
OTHER_SHAPE = 1.03
"""A mask whose ratio of sides differs from the image's by more than this factor is not of this image."""


def scan(raw: Path, *, classes: Sequence[str] = (), background: bool = True) -> Scan:
    """List the images in `raw` that a CSV names. Takes one pass over the CSVs and keeps about 50 bytes per mask of those images.

    Raises:
        ValueError: there is no CSV, no image or no mask; a CSV is malformed; a class is unknown.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: {classes!r}; should be a list of names, e.g. [Person, Car]")
    found = _Files(raw)
    if not found.tables:
        raise ValueError(f"{raw}: no {{train,validation,test}}{SUFFIX} in it or below. It comes from {ADDRESS}/v5/. {MANUAL}")
    rows: dict[
        str, str
    ] = {}  # image -> lines "number of the class, path of the mask": a text is the smallest thing that holds them
    split_of: dict[str, str] = {}
    numbers: dict[str, int] = {}  # LabelName -> number, in the order of appearance
    for split, table in found.tables:
        for path, image, label in _table(table):
            if image in found.images:
                split_of.setdefault(image, split)
                rows[image] = f"{rows.get(image, '')}{numbers.setdefault(label, len(numbers))} {path}\n"
    if not rows:
        raise ValueError(f"{raw}: none of its {len(found.images)} .jpg files is named in {found.tables[0][1].name}. {MANUAL}")
    if not found.masks:
        raise ValueError(f"{raw}: no folder with .png masks. Unpack {ADDRESS}/v5/<split>-masks/<split>-masks-<0..f>.zip into it.")
    chosen = _chosen(found, classes, list(numbers))
    names = (["background"] if background else []) + list(chosen.values())
    first = len(names) - len(chosen)
    index = {numbers[label]: first + position for position, label in enumerate(chosen) if label in numbers}
    ignore = 255 if len(names) <= 254 else 65535
    common = {"folders": tuple(found.masks), "fill": 0 if background else ignore, "ignore": ignore}
    items = []
    for image in sorted(rows, key=lambda name: (list(SPLITS.values()).index(split_of[name]), name)):
        pairs = (line.split(" ", 1) for line in rows.pop(image).splitlines())
        masks = "\n".join(f"{index[int(number)]} {path}" for number, path in pairs if int(number) in index)
        if masks:
            file = Path(found.images[image], f"{image}.jpg")
            source, extra = file.relative_to(raw).as_posix(), {"masks": masks, "common": common}
            items.append(Item(id=image, split=split_of[image], image=file, mask=None, group=image, source=source, extra=extra))
    if not items:
        raise ValueError(f"{raw}: no image has a mask of the classes {', '.join(chosen.values())}")
    without = sorted(found.images.keys() - split_of.keys())
    what, fix = "images without a row in any CSV were left out", "Right for images that nobody segmented."
    example = f"{without[0]}.jpg and {len(without) - 1} more" if without else ""
    faults = (Fault(kind="no_annotation", what=what, example=example, fix=fix, severity=WARNING),) if without else ()
    colours = palette.distinct(len(names))
    return Scan(
        classes=tuple(
            ClassInfo(name=name, colour=colours[i] if i >= first else (0, 0, 0), thing=i >= first) for i, name in enumerate(names)
        ),
        items=tuple(items),
        labels={i: i for i in range(len(names))} | {ignore: ignore},
        ignore_index=ignore,
        faults=faults,
    )


def load(item: Item) -> Raw:
    """Put the masks of one image together. Its labels are class indices; without a class for background other pixels are ignored.

    Raises:
        ValueError: a mask has more than two values.
    """
    image, common = item.image.read_bytes(), item.extra["common"]
    with Image.open(io.BytesIO(image)) as opened:
        size = opened.size
    labels = np.full(size[::-1], common["fill"], np.uint8 if common["ignore"] == 255 else np.uint16)
    faults, shapes = [], []
    # The zip files, and so their folders, are called after the first digit of the ImageID.
    folders = sorted(common["folders"], key=lambda folder: not folder.lower().endswith(item.id[0].lower()))
    for line in item.extra["masks"].splitlines():
        category, name = line.split(" ", 1)
        path = next((path for path in (Path(folder, Path(name).name) for folder in folders) if path.exists()), None)
        if path is None:
            what, fix = (
                "a mask that a CSV lists is not there",
                f"Unpack the zip of masks of this split for ImageIDs with {item.id[0]}.",
            )
            faults.append(Fault(kind="no_mask", what=what, example=name, fix=fix))
            continue
        inside, has_other_shape = _mask(path, size)
        if has_other_shape:
            what, fix = "a mask is not of its image's shape", "Fetch both again; is the image turned or cut?"
            faults.append(Fault(kind="size_mismatch", what=what, example=name, fix=fix))
        if not inside.any():
            what, fix = "a mask is empty and was left out", "Right if the object is a speck."
            faults.append(Fault(kind="empty_instance", what=what, example=name, fix=fix, severity=WARNING))
            continue
        shapes.append((int(category), inside))
    for category, inside in sorted(shapes, key=lambda shape: -np.count_nonzero(shape[1])):
        labels[inside] = category
    rows = [{"category": category, "mask": inside, "iscrowd": False} for category, inside in shapes]
    return Raw(image=image, labels=labels, instances=rows, faults=tuple(faults))


def _mask(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """The mask bool (H, W) at the (width, height) of its image, and whether its sides are in another ratio."""
    with Image.open(path) as opened:
        ratio = (opened.width * size[1]) / (opened.height * size[0])
        values = np.asarray(opened if opened.size == size else opened.resize(size, Image.Resampling.NEAREST))
    values = values[..., :3].max(axis=-1) if values.ndim == 3 else values
    inside = values != 0
    if (values[inside] != values.max()).any():
        raise ValueError(f"{path.name}: {len(np.unique(values))} values, but a mask has two. Fetch it again.")
    return inside, not 1 / OTHER_SHAPE < ratio < OTHER_SHAPE


class _Files:
    """What lies below a folder: the tables, the folder of each image, the folders of masks, and the names of classes."""

    def __init__(self, raw: Path) -> None:
        self.tables: list[tuple[str, Path]] = []
        self.images: dict[str, str] = {}
        self.masks: list[str] = []
        self.names: dict[str, str] = {}
        self.order: list[str] = []
        tables: dict[str, Path] = {}
        for folder, inner, files in os.walk(raw):
            inner.sort()
            if any(name.endswith(".png") for name in files):
                self.masks.append(folder)
            self.images |= {name[:-4]: folder for name in files if name.endswith(".jpg")}
            for name in sorted(name for name in files if name.endswith((".csv", ".txt"))):
                self._read(Path(folder, name), raw, tables)
        self.tables = [(SPLITS[split], tables[split]) for split in SPLITS if split in tables]

    def _read(self, path: Path, raw: Path, tables: dict[str, Path]) -> None:
        parts = path.relative_to(raw).parts
        if path.name.endswith(SUFFIX) and path.name.removesuffix(SUFFIX) in SPLITS:
            tables.setdefault(path.name.removesuffix(SUFFIX), path)
        elif path.name == "segmentations.csv" and (split := next((part for part in parts if part in SPLITS), None)):
            tables.setdefault(split, path)  # FiftyOne's name for it
        elif path.name in ("classes-segmentation.txt", "segmentation_classes.csv"):
            self.order = self.order or texts.read(path).split()
        elif "class-descriptions" in path.name or path.name == "classes.csv":
            with path.open(newline="", encoding="utf-8") as file:
                told = {row[0]: row[1] for row in csv.reader(file) if len(row) >= 2 and row[0] != "LabelName"}
            # The boxable ones are those with masks, so their names win over the 20,000 of all classes.
            self.names = self.names | told if "boxable" in path.name else told | self.names


def _table(path: Path) -> Iterator[tuple[str, str, str]]:
    """(mask, image, class) of each row, read as a stream."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if not set(COLUMNS) <= set(header):
            raise ValueError(
                f"{path}: its first line is {','.join(header)[:200]!r}; should name {', '.join(COLUMNS)}. Fetch it again."
            )
        mask, image, label = (header.index(column) for column in COLUMNS)
        for row in lines:
            if len(row) < len(header):
                raise ValueError(f"{path}, line {lines.line_num}: {len(row)} of {len(header)} columns. Fetch it again.")
            yield row[mask], row[image], row[label]


def _chosen(found: _Files, classes: Sequence[str], seen: Sequence[str]) -> dict[str, str]:
    """LabelName -> class name, in the order of the classes."""
    known = found.order or sorted(seen, key=lambda label: found.names.get(label, label))
    names = {label: found.names.get(label, label) for label in known}
    if not classes:
        return names
    labels = {name: label for label, name in (found.names | names).items()} | {label: label for label in found.names | names}
    for wanted in classes:
        if wanted not in labels:
            near = [name for name in labels if name.lower() == wanted.lower()] or sorted(names.values())[:20]
            raise ValueError(
                f"classes: {wanted!r} is no class of Open Images. Upper and lower case differ; there are {', '.join(near)}, ..."
            )
    return {labels[wanted]: found.names.get(labels[wanted], labels[wanted]) for wanted in classes}
