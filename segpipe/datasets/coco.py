"""COCO 2017: 118,287 + 5,000 photographs of everyday scenes with 80 kinds of things and 91 of stuff (Lin et al. 2014).

Layout of the official archives, unpacked in one folder:

    {train,val}2017/*.jpg                         the photographs; those of test2017 have no labels and are no samples
    annotations/instances_{train,val}2017.json    80 classes: polygons, run lengths for crowds; ids 1..90 with gaps
    annotations/panoptic_{train,val}2017.json     133 classes: ids 1..200 with gaps
    annotations/panoptic_{train,val}2017/*.png    segment number R + 256 G + 65536 B; 0 = void
    stuffthingmaps/{train,val}2017/*.png          COCO-Stuff (Caesar et al. 2018): class id - 1 in 0..181; 255 = unlabelled

The panoptic PNGs may stay in the panoptic_*2017.zip that the official archive holds. The maps of COCO-Stuff may lie beside the
photographs, where their archive unpacks, or in annotations/{train,val}2017. Also read: photographs in images/, the panoptic
files in panoptic_segmentation/annotations/, {train,val}_img with {train,val}_label (COCO-Stuff as SPADE packs it; its instance maps
mix instance numbers with class ids and are not read), and panopticapi's sample_data, which has no split.

`task` chooses what the label of a pixel is, and is, if `auto`, the first of semantic, things and stuff whose files are there:

- `semantic`: the 133 classes of the panoptic segments, crowds included, which are of their class as well; void is ignored.
- `panoptic`: the same map, for tasks that also want its segments.
- `things`: background and the 80 classes, drawn from the outlines; larger objects first, so that smaller ones stay visible, and
  crowds ignored where nothing else is. Background is whatever nobody outlined, stuff included.
- `instances`: the same map, for tasks that want the objects.
- `stuff`: the 171 classes of COCO-Stuff, which are 80 things and 91 kinds of stuff.

Instances are kept in each: the things among the segments for semantic and panoptic, else those of the instances file, where it is
there. Things outlined by hand overlap here and there. Photographs are unrelated, so each is its own group.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import coco_drawing, coco_files, coco_labels, coco_panoptic, coco_tree, palette, zip_members
from segpipe.datasets.blocks.coco_files import Index, Listed
from segpipe.datasets.blocks.coco_tree import Part
from segpipe.layout import Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

IMAGES = "Images: the terms of use of Flickr; the COCO Consortium does not own their copyright."
LABELS = "Annotations: CC BY 4.0, COCO Consortium."
FREE = "The annotations may be used for anything that names COCO; each image only as its owner's licence allows (see `licenses`)."
HOST = ("http://images.cocodataset.org/", "https://s3.amazonaws.com/images.cocodataset.org/")
"""One bucket by two names; its own has no valid certificate."""


def _source(folder: str, filename: str, size: int, sha256: str, licence: str) -> Source:
    urls = tuple(f"{host}{folder}/{filename}" for host in HOST)
    return Source(filename=filename, urls=urls, licence=licence, allows=FREE, size=size, sha256=sha256)


# Images 20 GB, annotations 0.25 to 1 GB by task.
# Sizes and checksums are those of TensorFlow Datasets (url_checksums/coco.txt).
SOURCES = (
    _source("zips", "val2017.zip", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", IMAGES),
    _source("zips", "train2017.zip", 19336861798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929", IMAGES),
    _source(
        "annotations",
        "annotations_trainval2017.zip",
        252907541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        LABELS,
    ),
    _source(
        "annotations",
        "panoptic_annotations_trainval2017.zip",
        860725834,
        "c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
        LABELS,
    ),
    Source(
        filename="stuffthingmaps_trainval2017.zip",
        urls=("http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",),
        licence="COCO-Stuff annotations: CC BY 4.0; the things in them are COCO's.",
        allows="The annotations may be used for anything that names COCO-Stuff and COCO.",
        # About 690 MB; neither its size in bytes nor a checksum is published.
    ),
)
TASKS = ("semantic", "panoptic", "things", "instances", "stuff")
NEEDS = {
    "semantic": "annotations/panoptic_train2017.json and its folder (or .zip) of PNGs",
    "things": "annotations/instances_train2017.json",
    "stuff": "stuffthingmaps/train2017/*.png",
}
"""What a task needs of each split, or of val2017; panoptic as semantic, instances as things."""
BACKGROUND = ClassInfo(name="background", colour=(0, 0, 0))


Listing = tuple[tuple[ClassInfo, ...], dict[int, int], list[Item], list[Fault]]


def needed(*, task: str = "auto") -> tuple[Source, ...]:
    """The files that a row fetches: the images and the annotations of its task; `auto` is semantic."""
    outlines, segments, maps = (
        "annotations_trainval2017.zip",
        "panoptic_annotations_trainval2017.zip",
        "stuffthingmaps_trainval2017.zip",
    )
    labels = {"things": {outlines}, "instances": {outlines}, "stuff": {maps, outlines}}.get(task, {segments})
    return tuple(s for s in SOURCES if s.filename in {"val2017.zip", "train2017.zip"} | labels)


def scan(raw: Path, *, task: str = "auto") -> Scan:
    """List the samples of the tree in `raw`, which is or contains (two levels deep) the folder of the layout.

    Annotation files are read once, as streams; no PNG is opened.

    Raises:
        ValueError: `task` is unknown or its files are not there, or an annotation file is damaged.
    """
    if task not in (*TASKS, "auto"):
        raise ValueError(f"task: {task!r}; choices: auto, {', '.join(TASKS)}")
    parts = coco_tree.find(raw)
    kind = {"panoptic": "semantic", "instances": "things"}.get(task, task)
    if task == "auto":
        kind = task = next((k for k in NEEDS if any(part.images and part.has(k) for part in parts)), "semantic")
    taken = [part for part in parts if part.images and part.has(kind)]
    if not taken:
        other = [k for k in NEEDS if any(part.images and part.has(k) for part in parts)]
        hint = f" The files here allow task: {', '.join(other)}." if other else ""
        raise ValueError(f"{raw}: task {task!r} needs {NEEDS[kind]}, or those of val2017, and the folder of their images.{hint}")
    faults = [fault for part in parts if part not in taken and (fault := part.left_out(kind)) is not None]
    classes, labels, items, more = {"semantic": _segments, "things": _things, "stuff": _stuff}[kind](raw, taken)
    word = {"panoptic": "panoptic", "instances": "instance"}.get(task, "semantic")
    return Scan(classes=classes, items=tuple(items), labels=labels, task=word, faults=(*faults, *more))


def load(item: Item) -> Raw:
    """Decode one sample. Labels are category ids (semantic), class indices (things) or the map's values (stuff)."""
    image = item.image.read_bytes()
    if "segments" in item.extra:
        labels, rows, faults = coco_panoptic.load(item)
    elif item.mask is None:
        labels, rows, faults = coco_drawing.draw(item)
    else:
        labels, rows, faults = np.asarray(Image.open(item.mask)), [], ()
        if "annotations" in item.extra:
            rows, faults = coco_drawing.draw(item)[1:]
    return Raw(image=image, labels=labels, instances=rows, faults=faults)


def _things(raw: Path, parts: Sequence[Part]) -> Listing:
    items: list[Item] = []
    faults: list[Fault] = []
    files = [part.objects for part in parts if part.objects is not None]
    indices = [coco_files.index(file) for file in files]
    categories = _same_categories(files, indices)
    classes = (BACKGROUND, *_classes(categories, thing=True))
    for part, file, index in zip(parts, files, indices, strict=True):
        faults += index.faults
        for image, path in _present(raw, part, index, file, faults):
            extra = coco_drawing.extra(file, image, np.arange(1, len(classes)))
            items.append(_item(raw, part, path, mask=None, extra=extra))
    return classes, {i: i for i in range(len(classes))} | {255: 255}, items, faults


def _segments(raw: Path, parts: Sequence[Part]) -> Listing:
    items: list[Item] = []
    faults: list[Fault] = []
    files = [part.segments for part in parts if part.segments is not None]
    indices = [coco_files.index(file) for file in files]
    categories = _same_categories(files, indices)
    classes = _classes(categories)
    numbers = {int(category["id"]): i for i, category in enumerate(categories)}
    things = {number: i for number, i in numbers.items() if classes[i].thing}
    for part, file, index in zip(parts, files, indices, strict=True):
        faults += index.faults
        assert part.pngs is not None
        packed = zip_members.places(part.pngs, ".png") if part.pngs.suffix == ".zip" else None
        there = set(os.listdir(part.pngs)) if packed is None else packed.keys()
        for image, path in _present(raw, part, index, file, faults):
            png = f"{path.stem}.png"
            if not len(image.annotations) or png not in there:
                what = f"an image has no entry in {file.name}" if png in there else "an image has no panoptic PNG"
                fix = "Fetch the panoptic annotations again, or remove the image from the file."
                faults.append(Fault(kind="no_mask", what=what, example=path.relative_to(raw).as_posix(), fix=fix))
                continue
            first, length, _ = (int(n) for n in image.annotations[0])
            extra: dict[str, Any] = {"file": str(file), "segments": (first, length), "things": things}
            if packed is not None:
                extra["member"] = packed[png]
            items.append(_item(raw, part, path, mask=part.pngs if packed is not None else part.pngs / png, extra=extra))
    return classes, numbers | {coco_panoptic.VOID: 255}, items, faults


def _stuff(raw: Path, parts: Sequence[Part]) -> Listing:
    items: list[Item] = []
    faults: list[Fault] = []
    ids = list(coco_labels.NAMES)
    colours = palette.distinct(len(ids))
    classes = tuple(
        ClassInfo(name=coco_labels.NAMES[number], colour=colour, thing=number <= len(coco_labels.THINGS))
        for number, colour in zip(ids, colours, strict=True)
    )
    for part in parts:
        assert part.images is not None and part.maps is not None
        objects: dict[str, dict[str, Any]] = {}
        if part.objects is not None:
            index = coco_files.index(part.objects)
            faults += index.faults
            order = np.array([_place(category, ids, part.objects) for category in index.categories])
            objects = {Path(image.name).stem: coco_drawing.extra(part.objects, image, order) for image in index.images}
        images, maps = (_by_stem(folder, suffix) for folder, suffix in ((part.images, ".jpg"), (part.maps, ".png")))
        for stem in sorted(images.keys() | maps.keys()):
            if stem in images and stem in maps:
                items.append(_item(raw, part, images[stem], mask=maps[stem], extra=objects.get(stem, {})))
                continue
            kind, what = ("no_mask", "an image has no map") if stem in images else ("no_image", "a map has no image")
            example = (images.get(stem) or maps[stem]).relative_to(raw).as_posix()
            faults.append(Fault(kind=kind, what=what, example=example, fix="Unpack both archives again, or remove the file."))
    return classes, {number - 1: i for i, number in enumerate(ids)} | {255: 255}, items, faults


def _place(category: dict[str, Any], ids: Sequence[int], file: Path) -> int:
    if category["id"] not in ids:
        raise ValueError(
            f"{file}: the category {category['id']!r}, {category['name']!r}, is not one of COCO-Stuff's. Fetch it again."
        )
    return ids.index(category["id"])


def _same_categories(files: Sequence[Path], indices: Sequence[Index]) -> tuple[dict[str, Any], ...]:
    """The categories of the first file, which those of the others must equal."""
    first, *others = [[(c["id"], c["name"]) for c in index.categories] for index in indices]
    for file, other in zip(files[1:], others, strict=True):
        if other != first:
            differ = next((pair for pair in zip(first, other, strict=False) if pair[0] != pair[1]), (len(first), len(other)))
            raise ValueError(f"{file}: its categories are not those of {files[0]}: {differ[1]} in place of {differ[0]}")
    return indices[0].categories


def _classes(categories: Sequence[dict[str, Any]], *, thing: bool = False) -> tuple[ClassInfo, ...]:
    """The classes in the order of the ids; colours and things as the file says, where it does."""
    colours = [tuple(c.get("color", made)) for c, made in zip(categories, palette.distinct(len(categories)), strict=True)]
    flags = [bool(c.get("isthing", thing)) for c in categories]
    return tuple(
        ClassInfo(name=c["name"], colour=colour, thing=flag) for c, colour, flag in zip(categories, colours, flags, strict=True)
    )


def _present(raw: Path, part: Part, index: Index, file: Path, faults: list[Fault]) -> Iterator[tuple[Listed, Path]]:
    """The listed images that are there; the others become faults."""
    assert part.images is not None
    there = set(os.listdir(part.images))
    for image in index.images:
        path = part.images / image.name
        if image.name in there:
            yield image, path
            continue
        fix = f"Unpack {part.name}.zip again, or remove the image from the file."
        example = path.relative_to(raw).as_posix()
        faults.append(Fault(kind="no_image", what=f"an image listed in {file.name} is not there", example=example, fix=fix))


def _item(raw: Path, part: Part, image: Path, *, mask: Path | None, extra: dict[str, Any]) -> Item:
    source = image.relative_to(raw).as_posix()
    return Item(id=image.stem, split=part.split, image=image, mask=mask, group=image.stem, source=source, extra=extra)


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """{name without suffix: file} of a folder."""
    return {name.removesuffix(suffix): folder / name for name in sorted(os.listdir(folder)) if name.endswith(suffix)}
