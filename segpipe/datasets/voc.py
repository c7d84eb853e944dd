"""PASCAL VOC 2012 segmentation (Everingham et al.): 1464 train and 1449 val photos, 20 objects and background, with instances.

Layout: VOCdevkit/VOC2012/ with JPEGImages/<name>.jpg, SegmentationClass/<name>.png, SegmentationObject/<name>.png and the lists
ImageSets/Segmentation/train.txt and val.txt. Masks are palette PNGs and are read as indices, never as colours: 0 background, 1..20
the objects, 255 the border of objects and what is too hard, which becomes ignored. In an object mask each object has a number; its
class is the one under it in the class mask, and its 255 is no object. The test set has no public labels, so val has to stand in.

`lists` chooses other lists of ImageSets/Segmentation, e.g. `{train: trainval, test: val}`, and `masks` another folder of class
masks, such as SegmentationClassAug. Without any list the split is open. class_names.txt (as labelme's export writes it) or
`classes` names the classes in the order of the label values; labelme's first names, __ignore__ and _background_, are understood.

`train_aug: true` adds the Semantic Boundaries Dataset (Hariharan et al. 2011) to train: benchmark_RELEASE/dataset/ with train.txt,
val.txt, cls/<name>.mat and inst/<name>.mat, and img/<name>.jpg. All its images join but those of VOC's val and those that VOC
annotates itself: 10,582 in all. Its masks have no border of 255. It is 1.4 GB and fetched with `train_aug` only; a folder given as
`source` holds both archives, or both unpacked.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import matlab, texts, voc
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import SPLITS, ClassInfo

VOC = Source(
    filename="VOCtrainval_11-May-2012.tar",
    urls=(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
    ),
    licence=voc.FLICKR,
    allows=voc.RESEARCH,
    size=1_999_639_040,
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)
SBD = Source(
    filename="benchmark.tgz",
    urls=(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    ),
    licence="Semantic Boundaries Dataset (UC Berkeley) on images of PASCAL VOC 2011: " + voc.FLICKR,
    allows=voc.RESEARCH,
    sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
)
SOURCES = (VOC, SBD)
BACKGROUND, IGNORE = "background", 255
OFFICIAL = (BACKGROUND, *voc.OBJECTS)


def needed(*, train_aug: bool = False) -> tuple[Source, ...]:
    """The files that a row fetches: SBD only with `train_aug`."""
    return SOURCES if train_aug else (VOC,)


def scan(
    raw: Path,
    *,
    lists: Mapping[str, str] | None = None,
    masks: str = "SegmentationClass",
    classes: Sequence[str] = (),
    train_aug: bool = False,
) -> Scan:
    """List the samples of a VOC tree, which is `raw` or at most two folders below it.

    Raises:
        ValueError: there is no such tree or more than one, a list or a listed file is missing, a name is in two lists, an option or
            the class list is wrong, or SBD is wanted and not there.
    """
    folder = voc.find_one(raw, masks)
    if folder is None or not folder.is_dir():
        raise ValueError(
            f"{raw}: no folder {masks}/ here or up to two folders down. It is beside JPEGImages/ in VOCdevkit/VOC2012/."
        )
    root = folder.parent
    faults: tuple[Fault, ...] = ()
    infos = _classes(root, [str(name) for name in classes])
    images, annotated = voc.by_stem(root / "JPEGImages", voc.PHOTOS), voc.by_stem(folder, (".png",))
    chosen = _lists(root, lists)
    if chosen:
        places = (root / "JPEGImages" / "0.jpg", folder / "0.png")
        splits, _ = voc.listed(chosen, images, annotated, places=places)
    else:
        names, faults = voc.pairs(images, annotated)
        splits = dict.fromkeys(names, None)
    items = [_item(raw, name, split, images[name], annotated[name], len(infos)) for name, split in splits.items()]
    if train_aug:
        items += _sbd(raw, root, splits, images, len(infos))
    labels = {i: i for i in range(len(infos))} | {IGNORE: IGNORE}
    return Scan(classes=infos, items=tuple(items), labels=labels, faults=faults)


def load(item: Item) -> Raw:
    """Decode one sample; its labels are 0..20 and 255 as in the file, uint8 (H, W)."""
    assert item.mask is not None
    numbers = item.extra.get("instances")
    if item.mask.suffix == ".mat":
        labels = matlab.labels(item.mask, "GTcls", "Segmentation")
        rows = [] if numbers is None else list(_sbd_instances(Path(numbers), labels.shape, item.extra["classes"]))
        return Raw(image=item.image.read_bytes(), labels=labels, instances=rows)
    labels = np.asarray(Image.open(item.mask))
    rows, faults = [], []
    if numbers is not None and labels.ndim == 2 and labels.dtype.kind in "uib":
        objects = np.asarray(Image.open(numbers))
        if objects.shape != labels.shape:
            raise ValueError(f"the object mask is {objects.shape}, the class mask {labels.shape}")
        for number in (int(n) for n in np.unique(objects) if n not in (0, IGNORE)):
            inside = objects == number
            under = labels[inside]
            counts = np.bincount(under[(under > 0) & (under < item.extra["classes"])])
            if counts.size:
                rows.append({"category": int(counts.argmax()), "mask": inside, "iscrowd": False})
            else:
                what, fix = "an object has no class: under it the class mask is background or ignored", "Mend one of the masks."
                example = f"{item.source} (object {number})"
                faults.append(Fault(kind="instance_mismatch", what=what, example=example, fix=fix, severity=WARNING))
    return Raw(image=item.image.read_bytes(), labels=labels, instances=rows, faults=tuple(faults))


def _classes(root: Path, names: list[str]) -> tuple[ClassInfo, ...]:
    """The classes of `names`, else of class_names.txt, else VOC's. All but the background are things, if there are object masks."""
    listed = root / "class_names.txt"
    if not names and listed.exists():
        names = [line.strip() for line in texts.read(listed).split("\n") if line.strip()]
    where = "classes" if not listed.exists() else str(listed)
    names = [BACKGROUND if name == "_background_" else name for name in names]
    if names[:1] == ["__ignore__"]:  # labelme counts from it as -1, which is 255 in the masks
        names = names[1:]
    if "__ignore__" in names or len(set(names)) < len(names) or len(names) > IGNORE:
        raise ValueError(f"{where}: {', '.join(names)}; should be up to {IGNORE} different names, __ignore__ only as the first")
    things = not names or (root / "SegmentationObject").is_dir()
    known = enumerate(names or OFFICIAL)
    return tuple(ClassInfo(name=name, colour=voc.colour(i), thing=things and name != BACKGROUND) for i, name in known)


def _lists(root: Path, lists: Mapping[str, str] | None) -> list[tuple[str | None, Path]]:
    """(split, its list): those that the option names, else train.txt and val.txt, else trainval.txt without a split, else none."""
    folder = root / "ImageSets" / "Segmentation"
    if lists:
        for split, name in lists.items():
            if split not in SPLITS:
                raise ValueError(f"lists.{split}: {name!r}; the splits are {', '.join(SPLITS)}")
            if not (folder / f"{name}.txt").exists():
                there = ", ".join(sorted(path.stem for path in folder.glob("*.txt"))) or "none"
                raise ValueError(f"lists.{split}: {name!r}, but {folder / f'{name}.txt'} is missing. There are: {there}.")
        return [(split, folder / f"{name}.txt") for split, name in lists.items()]
    found: list[tuple[str | None, Path]] = [(split, folder / f"{split}.txt") for split in ("train", "val")]
    found = [(split, path) for split, path in found if path.exists()]
    return found or [(None, path) for path in [folder / "trainval.txt"] if path.exists()]


def _item(raw: Path, name: str, split: str | None, image: Path, mask: Path, count: int) -> Item:
    extra: dict[str, Any] = {"classes": count}
    instances = mask.parent.parent / "SegmentationObject" / f"{name}.png"
    if mask.suffix == ".mat":
        instances = mask.parent.parent / "inst" / mask.name
    if instances.exists():
        extra["instances"] = str(instances)
    source = image.relative_to(raw).as_posix()
    return Item(id=name, split=split, image=image, mask=mask, group=name, source=source, extra=extra)


def _sbd(raw: Path, root: Path, splits: Mapping[str, str | None], images: Mapping[str, Path], count: int) -> list[Item]:
    """The training samples of SBD: all it has but the names in `splits` and in VOC's val."""
    masks = voc.find_one(raw, "cls", depth=3)
    if masks is None:
        raise ValueError(
            f"{raw}: train_aug needs SBD, but benchmark_RELEASE/dataset/cls/ is missing. Fetch {SBD.urls[0]}, unpack it"
            " beside VOCdevkit/ and set `source` to the folder that holds both."
        )
    held_out = root / "ImageSets" / "Segmentation" / "val.txt"
    if not held_out.exists():
        raise ValueError(f"{held_out}: missing. train_aug needs it to keep VOC's val, which SBD annotates too, out of train.")
    taken = {*splits, *(name for _, name in voc.names_in(held_out))}
    photos = {**images, **voc.by_stem(masks.parent / "img", voc.PHOTOS)}
    items = []
    for listed in (masks.parent / "train.txt", masks.parent / "val.txt"):
        if not listed.exists():
            raise ValueError(f"{listed}: missing. It comes with SBD; fetch it again.")
        for number, name in voc.names_in(listed):
            if name in taken:
                continue
            if name not in photos:
                raise voc.missing(masks.parent / "img" / f"{name}.jpg", listed, number)
            if not (masks / f"{name}.mat").exists():
                raise voc.missing(masks / f"{name}.mat", listed, number)
            taken.add(name)
            items.append(_item(raw, name, "train", photos[name], masks / f"{name}.mat", count))
    return items


def _sbd_instances(path: Path, size: tuple[int, ...], count: int) -> Iterator[dict[str, Any]]:
    numbers, categories = matlab.labels(path, "GTinst", "Segmentation"), matlab.labels(path, "GTinst", "Categories").ravel()
    if numbers.shape != size:
        raise ValueError(f"the instances are {numbers.shape}, the class mask {size}")
    for number in (int(n) for n in np.unique(numbers) if n > 0):
        category = int(categories[number - 1]) if number <= len(categories) else 0
        if not 0 < category < count:
            raise ValueError(f"GTinst.Categories: instance {number} has the class {category}, should be 1 to {count - 1}")
        yield {"category": category, "mask": numbers == number, "iscrowd": False}
