"""PASCAL-Context (Mottaghi et al. 2014): whole scenes of VOC 2010, 4998 train and 5105 val photos, 459 classes or the frequent 59.

`classes: 59` is the usual benchmark, where all other pixels are ignored; `60` adds them as the class background, at index 0; `459`
takes all classes of labels.txt, and ignored pixels are 65535. Three forms of masks are read; photos are in JPEGImages/ or beside:

- trainval/<name>.mat, the source itself: `LabelMap` holds 1..459, labels.txt beside the folder names them ("284: person"). The 59
  are found in it by their names.
- PNG of 0..59 (grey or palette). 0 is what the 59 leave out. Two class orders are in use: that of 59_labels.txt (`official`: VOC's
  twenty first, as in 59_context_labels/), and the alphabet's (`alphabetical`: SegmentationClassContext/ of MMSegmentation). The
  wrong one is a wrong class name on nearly every pixel, so in another folder `order` must say which it is.
- PNG in colours: VOC's colour map over the official order (person (192, 128, 128), grass (0, 0, 192), sky (0, 192, 64)).

`masks` names the folder where it is none of these. The result has the official order for 59 and 60, whatever the masks have. Splits
are those of ImageSets/SegmentationContext/, train.txt and val.txt beside the masks, or VOC 2010's ImageSets/Main/; else open.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import colours, matlab, texts, voc
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

PAGE = "https://www.cs.stanford.edu/~roozbeh/pascal-context/"
SOURCES = (
    Source(
        filename="VOCtrainval_03-May-2010.tar",
        urls=(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
        ),
        licence=voc.FLICKR,
        allows=voc.RESEARCH,
        sha256="1af4189cbe44323ab212bff7afbc7d0f55a267cc191eb3aac911037887e5c7d4",
    ),
    Source(
        filename="trainval.tar.gz",  # labels.txt and the 459-class masks; no size or sha256 is published
        urls=(f"{PAGE}trainval.tar.gz", "https://roozbehm.info/pascal-context/trainval.tar.gz"),
        licence="PASCAL-Context: offered for research, without a licence, on images of PASCAL VOC 2010",
        allows="Research with credit to Mottaghi et al. 2014.",
    ),
)
FREQUENT = (
    *(name if name != "diningtable" else "table" for name in voc.OBJECTS),
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "cloth", "computer", "cup", "door", "fence", "floor"),
    *("flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform", "sign", "plate"),
    *("road", "rock", "shelves", "sidewalk", "sky", "snow", "bedclothes", "track", "tree", "truck", "wall", "water", "window"),
    "wood",
)
"""In the official order; the names are those of labels.txt, from which 59_labels.txt differs in three."""
ORDERS = {"official": FREQUENT, "alphabetical": tuple(sorted(FREQUENT))}
FOLDERS = {"SegmentationClassContext": "alphabetical", "59_context_labels": "official"}
ALL, IGNORE, IGNORE_16 = 459, 255, 65535


def scan(raw: Path, *, classes: int = 59, masks: str = "", order: str = "") -> Scan:
    """List the samples in `raw`, whose folders may be up to two folders down.

    Raises:
        ValueError: there are no masks or no images, a list names a missing file, an option or labels.txt is wrong, the masks do not
            have the classes that are wanted, or their class order is unknown.
    """
    if classes not in (59, 60, ALL):
        raise ValueError(f"classes: {classes!r}; choices: 59, 60, {ALL}")
    if order and order not in ORDERS:
        raise ValueError(f"order: {order!r}; choices: {', '.join(ORDERS)}")
    folder = _masks(raw, masks)
    annotated = voc.by_stem(folder, (".mat",)) or voc.by_stem(folder, (".png",))
    photos = voc.find_one(raw, "JPEGImages") or folder
    images = voc.by_stem(photos, (".jpg", ".jpeg"))
    if not images:
        raise ValueError(f"{photos}: holds no photos (.jpg), and {raw} no other JPEGImages/. They are in VOC 2010's archive.")
    splits, faults = _splits(raw, folder, photos, images, annotated)
    matlab_masks = next(iter(annotated.values())).suffix == ".mat"
    in_colour = not matlab_masks and _in_colour(folder, annotated)
    if classes == ALL and not matlab_masks:
        raise ValueError(f"{folder}: masks of 59 classes; classes: {ALL} needs the .mat masks of {PAGE}trainval.tar.gz.")
    if matlab_masks:
        names = _label_names(raw, folder)
        infos, labels = _all(names) if classes == ALL else _frequent(classes, names)
    else:
        known = order or ("official" if in_colour else FOLDERS.get(folder.name))
        if known is None:
            raise ValueError(
                f"{folder}: the masks' class order is not known from the folder's name. Set `order` to official or alphabetical."
            )
        infos, labels = _frequent(classes, dict(enumerate(ORDERS[known], 1)))
        labels |= {IGNORE: IGNORE}
    if in_colour:
        labels = {colours.key(*voc.colour(value)): index for value, index in labels.items()}
    items = []
    for name, split in splits.items():
        image, extra = images[name], {"colours": True} if in_colour else {}
        source = image.relative_to(raw).as_posix()
        items.append(Item(id=name, split=split, image=image, mask=annotated[name], group=name, source=source, extra=extra))
    ignore = IGNORE_16 if classes == ALL else IGNORE
    return Scan(classes=infos, items=tuple(items), labels=labels, ignore_index=ignore, colours=in_colour, faults=faults)


def load(item: Item) -> Raw:
    """Decode one sample; its labels are those of the mask, uint8 or uint16 (H, W), or packed colours, int32 (H, W)."""
    assert item.mask is not None
    if item.mask.suffix == ".mat":
        labels = matlab.labels(item.mask, "LabelMap")
    else:
        labels = np.asarray(Image.open(item.mask))
    if item.extra.get("colours"):
        if labels.ndim != 3:
            raise ValueError("the mask is no colour picture, though others are")
        labels = colours.pack(labels)
    return Raw(image=item.image.read_bytes(), labels=labels)


def _masks(raw: Path, masks: str) -> Path:
    """The folder of the masks: the one that the option names, else trainval/ with .mat, else one of FOLDERS, else a flat folder."""
    if masks:
        named = voc.find_one(raw, masks)
        if named is None or not _holds(named):
            raise ValueError(
                f"{raw}: masks: {masks!r}, but there is no such folder with .mat or .png files, here or up to two down."
            )
        return named
    for path in [*voc.find(raw, "trainval"), *voc.find(raw, "trainval/trainval")]:
        if any(path.glob("*.mat")):
            return path
    for name in FOLDERS:
        known = voc.find_one(raw, name)
        if known is not None and _holds(known):
            return known
    for path in [raw, *sorted(raw.glob("*/")), *sorted(raw.glob("*/*/"))]:
        if {p.stem for p in path.glob("*.png")} & {p.stem for p in path.glob("*.jpg")}:
            return path
    raise ValueError(
        f"{raw}: no masks in trainval/ (.mat), {'/, '.join(FOLDERS)}/ or beside the photos (.png), here or up to two"
        " folders down. Set `masks` if their folder has another name."
    )


def _holds(folder: Path) -> bool:
    return any(folder.glob("*.mat")) or any(folder.glob("*.png"))


def _splits(
    raw: Path, folder: Path, photos: Path, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> tuple[Mapping[str, str | None], tuple[Fault, ...]]:
    """{name: split} of the samples and what is wrong with the listing."""
    above, sets = folder if folder == raw else folder.parent, photos.parent / "ImageSets"
    for place in (sets / "SegmentationContext", folder, above, sets / "Main") if photos != folder else (folder, above):
        lists = [(split, place / f"{split}.txt") for split in ("train", "val") if (place / f"{split}.txt").exists()]
        if lists:
            break
    else:
        names, faults = voc.pairs(images, masks)
        return dict.fromkeys(names, None), faults
    places = (photos / "0.jpg", folder / f"0{next(iter(masks.values())).suffix}")
    # VOC's own lists may hold what PASCAL-Context does not have.
    splits, unmasked = voc.listed(lists, images, masks, places=places, optional=place.name == "Main")
    what, fix = "an image of VOC's lists has no mask, so it is left out", "Add its mask if that is not wanted."
    faults = tuple(Fault(kind="no_mask", what=what, example=f"{name}.jpg", fix=fix, severity=WARNING) for name in unmasked)
    return splits, faults


def _in_colour(folder: Path, masks: Mapping[str, Path]) -> bool:
    for path in masks.values():
        try:
            with Image.open(path) as mask:
                return mask.mode in ("RGB", "RGBA")
        except OSError:  # a damaged file is convert's to report; the next one tells as well
            continue
    raise ValueError(f"{folder}: none of the {len(masks)} masks can be read. Fetch them again.")


def _label_names(raw: Path, folder: Path) -> dict[int, str]:
    """{id: name} of labels.txt, whose lines are "id: name"."""
    above = folder if folder == raw else folder.parent
    places = [folder / "labels.txt", above / "labels.txt", *voc.find(raw, "labels.txt")]
    listed = next((path for path in places if path.exists()), None)
    if listed is None:
        raise ValueError(f"{above / 'labels.txt'}: missing. It names the labels of the .mat masks: {PAGE}labels.txt.")
    names: dict[int, str] = {}
    for number, line in enumerate(texts.read(listed).split("\n"), 1):
        value, colon, name = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not (colon and value.isdigit() and name) or int(value) in names or name in names.values():
            raise ValueError(f"{listed}, line {number}: {line!r}; should be a new number and a new name, such as '284: person'")
        names[int(value)] = name
    absent = [name for name in FREQUENT if name not in names.values()]
    if absent or set(names) != set(range(1, ALL + 1)):
        lacks = f", and without {', '.join(absent)}" if absent else ""
        raise ValueError(f"{listed}: {len(names)} labels{lacks}; should be 1 to {ALL}. Fetch {PAGE}labels.txt.")
    return names


def _all(names: Mapping[int, str]) -> tuple[tuple[ClassInfo, ...], dict[int, int]]:
    """All classes of labels.txt, in its order, and {label value: index}; 0, which the masks do not use, is ignored."""
    return tuple(_info(names[i], i) for i in range(1, ALL + 1)), {i: i - 1 for i in range(1, ALL + 1)} | {0: IGNORE_16}


def _frequent(classes: int, names: Mapping[int, str]) -> tuple[tuple[ClassInfo, ...], dict[int, int]]:
    """The 59 classes, after background if `classes` is 60, and {label value: index} for masks whose values mean `names`."""
    infos = tuple(_info(name, i) for i, name in enumerate(FREQUENT, 1))
    if classes == 60:
        infos = (_info("background", 0), *infos)
    index = {info.name: i for i, info in enumerate(infos)}
    rest = index.get("background", IGNORE)
    return infos, {0: rest} | {value: rest if name not in FREQUENT else index[name] for value, name in names.items()}


def _info(name: str, value: int) -> ClassInfo:
    # The masks have no instances; VOC's objects are marked as what comes in things, no list says it of the others.
    return ClassInfo(name=name, colour=voc.colour(value), thing=name in FREQUENT[: len(voc.OBJECTS)])
