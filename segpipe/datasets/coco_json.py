"""COCO JSON, as annotation tools export it (CVAT, Label Studio, labelme, Roboflow) and as TACO's set of litter is; a user's data.

    *.json or annotations/*.json      {"images": [...], "annotations": [...], "categories": [...]}
    train/, valid/, test/ with one    as Roboflow packs it, _annotations.coco.json among the images

The files may lie up to two levels deep. Of several, those named instances* are taken, else those named annotations.json or
_annotations.coco.json; the option `annotations` names others. A word train, val, valid or test in a file's name, or such a folder
around it, is its split; else there is none. The images are where `file_name` says, from the option `images` on, or from
the JSON's own folder or the one above, or folders there called images or like the split.

Class 0 is the background, unless `background: false`, which ignores all that is in no annotation; the categories follow in the
order of their ids, whatever gaps these have. A category called background (labelme's `_background_`) is class 0 itself. With
`supercategories: true` categories of one supercategory are one class. Polygons and run lengths become masks exactly as in
pycocotools; crowds are ignored where nothing else is, and smaller objects are drawn over larger ones. Each annotation is an
instance with all its pixels. An image without annotations is all background; a file without any is a withheld test and left out.
Roboflow writes several altered copies of an image, <name>.rf.<hash>.jpg; they are one group.

TACO (github.com/pedropro/TACO, annotations CC BY 4.0): run its download.py, then `source: TACO/data`. Its ids begin at 0, its
images lie in batch_1/ and on, and it has no official split; annotations_unofficial.json beside it is passed over.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segpipe.datasets.blocks import coco_drawing, coco_files, palette
from segpipe.datasets.blocks.coco_files import Index
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import SPLITS, ClassInfo

SOURCES: tuple[Source, ...] = ()
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
USUAL = ("annotations.json", "_annotations.coco.json")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
BACKGROUND = "background"
FEW = 50
"""So many images are looked for where a file's images might be."""


def scan(
    raw: Path,
    *,
    annotations: str | Mapping[str, str] | None = None,
    images: str | None = None,
    background: bool = True,
    supercategories: bool = False,
) -> Scan:
    """List the images of the annotation files in `raw`. Each file is read once, as a stream.

    `annotations` is a file in `raw`, or {split: file}; `images` is the folder in `raw` from which `file_name` leads to an image.

    Raises:
        ValueError: there is no annotation file, it is not clear which to take, one is damaged or holds no annotation, or its images
            are nowhere.
    """
    top, files = _find(raw) if annotations is None else (raw, _named(raw, annotations))
    if images is not None and not (raw / images).is_dir():
        raise ValueError(f"{raw / images}: no such folder, but the option `images` names it")
    indices = {file: coco_files.index(file) for file in files}
    faults = [fault for index in indices.values() for fault in index.faults]
    for file, index in indices.items():
        if index.panoptic:
            raise ValueError(f"{file}: a panoptic file, whose segments lie in PNGs. The format `coco` reads COCO's.")
    if not any(index.count for index in indices.values()):
        raise ValueError(f"{', '.join(map(str, files))}: no annotation of a listed image. Export the annotations as well.")
    ids, names = _names(indices, background=background, supercategories=supercategories)
    ignore = 255 if len(names) <= 254 else 65535
    items: list[Item] = []
    there: dict[Path, frozenset[str]] = {}
    listed: set[Path] = set()
    withheld: set[str] = set()
    for file, index in indices.items():
        if not index.count:
            what, fix = "a file without any annotation, so its images are left out", "Right for a withheld test."
            example = f"{file.relative_to(raw).as_posix()} ({len(index.images)} images)"
            faults.append(Fault(kind="no_annotation", what=what, example=example, fix=fix, severity=WARNING))
            withheld |= {PurePosixPath(image.name).name for image in index.images}
            continue
        home = _home(file, index, raw, images, files[file])
        classes = np.array([ids[category["id"]] for category in index.categories])
        for image in index.images:
            path = _path(home, image.name)
            if path is None or path.name not in _names_in(path.parent, there):
                fix = f"Looked for from {home.relative_to(raw).as_posix()}/ on: add it, take it off the list, or set `images`."
                what = "an image that the file lists is not there"
                faults.append(Fault(kind="no_image", what=what, example=f"{file.name}, {image.name}", fix=fix))
                continue
            listed.add(path)
            extra = coco_drawing.extra(file, image, classes, rest=0 if background else ignore, ignored=ignore)
            items.append(_item(raw, top, path, files[file], extra))
    faults += _unlisted(raw, there, listed, withheld)
    return Scan(
        classes=_classes(names, background=background),
        items=tuple(items),
        labels={i: i for i in range(len(names))} | {ignore: ignore},
        ignore_index=ignore,
        faults=tuple(faults),
    )


def load(item: Item) -> Raw:
    """Draw one sample; its labels are class indices, or the ignored one. An annotation that cannot be drawn is a fault."""
    image = item.image.read_bytes()
    labels, rows, faults = coco_drawing.draw(item)
    return Raw(image=image, labels=labels, instances=rows, faults=faults)


def _named(raw: Path, annotations: str | Mapping[str, str]) -> dict[Path, str | None]:
    """The files that the option names, with their splits."""
    if isinstance(annotations, str):
        files: dict[Path, str | None] = {raw / annotations: _split_of(raw / annotations, raw)}
    elif isinstance(annotations, Mapping) and annotations and all(isinstance(name, str) for name in annotations.values()):
        if not set(annotations) <= set(SPLITS):
            raise ValueError(f"annotations: {dict(annotations)}; takes a file for any of {', '.join(SPLITS)}, nothing else")
        files = {raw / name: split for split, name in annotations.items()}
    else:
        raise ValueError(f"annotations: {annotations!r}; write a file's path, or {{train: a.json, val: b.json}}")
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: no such file, but the option `annotations` names it")
    return files


def _find(raw: Path) -> tuple[Path, dict[Path, str | None]]:
    """The folder that has annotation files, and these with their splits."""
    for pattern in ("", "*/", "*/*/"):
        for top in sorted(raw.glob(pattern)) if pattern else [raw]:
            inside = [path for part in (".", "annotations", *WORDS) for path in sorted((top / part).glob("*.json"))]
            found = [path for path in inside if coco_files.looks_like_one(path)]
            if found:
                return top, _chosen(found, top)
    raise ValueError(
        f"{raw}: no COCO annotation file (.json with the lists `images` and `annotations`) here, in annotations/, train/, val/,"
        " test/, or two levels deep. Name it with the option `annotations`, by its path inside that folder."
    )


def _chosen(found: Sequence[Path], top: Path) -> dict[Path, str | None]:
    objects = [path for path in found if path.name.startswith("instances")]
    chosen = objects or [path for path in found if path.name in USUAL] or list(found)
    splits = {path: _split_of(path, top) for path in chosen}
    if len(set(splits.values())) < len(chosen) or (None in splits.values() and len(chosen) > 1):
        paths = ", ".join(path.relative_to(top).as_posix() for path in chosen)
        raise ValueError(
            f"{top}: it is not clear which annotation file is which: {paths}. Write `annotations: {{train: ..., val: ...}}`."
        )
    return splits


def _split_of(path: Path, top: Path) -> str | None:
    """The split that a file's name tells, or the folder below `top` that it is in."""
    words = [*path.relative_to(top).parts[:-1], *re.split(r"[^a-z]+", path.stem.lower())]
    return next((WORDS[word] for word in reversed(words) if word in WORDS), None)


def _names(indices: Mapping[Path, Index], *, background: bool, supercategories: bool) -> tuple[dict[Any, int], list[str]]:
    """{category id: class} and the classes' names, over all files."""
    known: dict[Any, tuple[str, Path]] = {}
    for file, index in indices.items():
        for category in index.categories:
            name = category["name"]
            if supercategories and category.get("supercategory"):
                name = str(category["supercategory"])
            if background and name.strip("_").lower() == BACKGROUND:
                name = BACKGROUND
            other, where = known.setdefault(category["id"], (name, file))
            if other != name:
                raise ValueError(
                    f"{file}: the category {category['id']!r} is {name!r}, in {where} {other!r}. Export them together."
                )
    order = sorted(known, key=lambda i: (isinstance(i, str), i))
    names = list(dict.fromkeys([BACKGROUND] * background + [known[i][0] for i in order]))
    return {i: names.index(known[i][0]) for i in order}, names


def _classes(names: Sequence[str], *, background: bool) -> tuple[ClassInfo, ...]:
    colours = ([(0, 0, 0)] if background else []) + palette.distinct(len(names))
    return tuple(ClassInfo(name=name, colour=colours[i], thing=i > 0 or not background) for i, name in enumerate(names))


def _home(file: Path, index: Index, raw: Path, images: str | None, split: str | None) -> Path:
    """The folder from which the file's names lead to images."""
    if images is not None:
        return raw / images
    above = [file.parent] + [file.parent.parent] * (file.parent != raw)
    named = ["", "images", "JPEGImages", *_folder_names(file, split)]
    homes = dict.fromkeys(folder / name for folder in above for name in (*named, *(f"images/{name}" for name in named)))
    for home in homes:
        if any(path is not None and path.is_file() for path in (_path(home, image.name) for image in index.images[:FEW])):
            return home
    paths = ", ".join((home.relative_to(raw).as_posix() + "/").removeprefix("./") or "." for home in homes if home.is_dir())
    raise ValueError(
        f"{file}: its images, such as {index.images[0].name}, are not in {paths}. Name their folder with the option `images`."
    )


def _folder_names(file: Path, split: str | None) -> Iterator[str]:
    """What a folder of one split's images may be called: train2017 for instances_train2017.json, train, valid."""
    yield file.stem.rsplit("_", 1)[-1]
    yield from (word for word, meant in WORDS.items() if meant == split)


def _path(home: Path, name: str) -> Path | None:
    """Where an image called `name` is, below `home`; None if the name leads elsewhere. Windows' separators are read as well."""
    path = PurePosixPath(name.replace("\\", "/"))
    return None if path.is_absolute() or ".." in path.parts else home / path


def _names_in(folder: Path, there: dict[Path, frozenset[str]]) -> frozenset[str]:
    if folder not in there:
        there[folder] = frozenset(os.listdir(folder) if folder.is_dir() else ())
    return there[folder]


def _item(raw: Path, top: Path, path: Path, split: str | None, extra: dict[str, Any]) -> Item:
    name = path.relative_to(top if path.is_relative_to(top) else raw).with_suffix("").as_posix()
    group = path.name.split(".rf.")[0] if ".rf." in path.name else name
    return Item(id=name, split=split, image=path, mask=None, group=group, source=path.relative_to(raw).as_posix(), extra=extra)


def _unlisted(raw: Path, there: Mapping[Path, frozenset[str]], listed: set[Path], withheld: set[str]) -> Iterator[Fault]:
    """A warning for each image beside the listed ones that no file lists."""
    for folder, names in sorted(there.items()):
        for name in sorted(names - withheld):
            if name.lower().endswith(IMAGE_ENDINGS) and folder / name not in listed:
                what, fix = "an image that no annotation file lists is left out", "Export its annotations as well, or remove it."
                source = (folder / name).relative_to(raw).as_posix()
                yield Fault(kind="no_annotation", what=what, example=source, fix=fix, severity=WARNING)
