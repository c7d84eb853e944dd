"""Cityscapes: 2048 x 1024 street scenes of 50 cities, 19 classes in training (Cordts et al. 2016).

Layout, as in the official archives (the folders may also lie in leftImg8bit_trainvaltest/, gtFine_trainvaltest/ and the like):

    leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png       label ids 0..33
                                                  ..._gtFine_instanceIds.png    16 bit: id, or 1000 id + number of the instance
                                                  ..._gtFine_polygons.json      what the other two were drawn from
    gtCoarse/...                                                              the same with _gtCoarse_

19 of the label ids are the classes, in the order of their train ids; the other 15 are ignored. Where there is no labelIds PNG the
polygons are drawn, by the rule of github.com/mcordts/cityscapesScripts (preparation/json2labelImg.py and json2instanceImg.py):
Pillow's polygons in the order of the file, later ones on top; deleted ones and license plates (id -1) are skipped; "cargroup" is a
group of cars. Pillow's polygons have changed by single pixels over the years, so the drawing may differ from the published PNG
along outlines. A labelTrainIds PNG is read where only that exists.

Instances are those of the 8 thing classes among the 19; pixels of such a class without an instance number are a group, kept as
crowd. `annotation: coarse` takes gtCoarse, for val too; train_extra then joins train. The published masks of test are
empty, as its labels are withheld, so test is left out: let val stand in (`stand_in: {test: {from: val}}`). Frames of one
city are alike, so the group is the city; official splits never share one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

LICENCE = "Cityscapes terms of use (cityscapes-dataset.com/license)."
ALLOWS = "Non-commercial research and education by registered users; do not pass the data on."
MANUAL = (
    "Register at https://www.cityscapes-dataset.com, log in, and download leftImg8bit_trainvaltest.zip (11 GB) and"
    " gtFine_trainvaltest.zip (241 MB) into one folder; for coarse labels gtCoarse.zip and leftImg8bit_trainextra.zip (44 GB) too."
)
ARCHIVES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip", "gtCoarse.zip", "leftImg8bit_trainextra.zip")
# The portal shows checksums only to users who are logged in, so none is checked here. A folder needs not have all four.
SOURCES = tuple(Source(filename=name, urls=(), licence=LICENCE, allows=ALLOWS, manual=MANUAL) for name in ARCHIVES)
CLASSES = (
    ClassInfo(name="road", colour=(128, 64, 128)),
    ClassInfo(name="sidewalk", colour=(244, 35, 232)),
    ClassInfo(name="building", colour=(70, 70, 70)),
    ClassInfo(name="wall", colour=(102, 102, 156)),
    ClassInfo(name="fence", colour=(190, 153, 153)),
    ClassInfo(name="pole", colour=(153, 153, 153)),
    ClassInfo(name="traffic light", colour=(250, 170, 30)),
    ClassInfo(name="traffic sign", colour=(220, 220, 0)),
    ClassInfo(name="vegetation", colour=(107, 142, 35)),
    ClassInfo(name="terrain", colour=(152, 251, 152)),
    ClassInfo(name="sky", colour=(70, 130, 180)),
    ClassInfo(name="person", colour=(220, 20, 60), thing=True),
    ClassInfo(name="rider", colour=(255, 0, 0), thing=True),
    ClassInfo(name="car", colour=(0, 0, 142), thing=True),
    ClassInfo(name="truck", colour=(0, 0, 70), thing=True),
    ClassInfo(name="bus", colour=(0, 60, 100), thing=True),
    ClassInfo(name="train", colour=(0, 80, 100), thing=True),
    ClassInfo(name="motorcycle", colour=(0, 0, 230), thing=True),
    ClassInfo(name="bicycle", colour=(119, 11, 32), thing=True),
)
# fmt: off
NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk", "parking",
    "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light",
    "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train",
    "motorcycle", "bicycle",
)
# fmt: on
"""The label of each id 0..33."""
IDS = {name: number for number, name in enumerate(NAMES)} | {"license plate": -1}
INDEX = {IDS[c.name]: index for index, c in enumerate(CLASSES)}
"""The class index (train id) of each label id that has one."""
LABELS = {number: INDEX.get(number, 255) for number in range(-1, len(NAMES))}
FIRST_WITH_INSTANCES = IDS["person"]
"""From this id on the annotators told instances apart (caravans and trailers too, which are ignored here)."""
ENDINGS = ("labelIds.png", "polygons.json", "labelTrainIds.png")
"""What labels may come from, the best first."""
FOLDERS = {"fine": {"train": "train", "val": "val"}, "coarse": {"train": "train", "train_extra": "train", "val": "val"}}


def scan(raw: Path, *, annotation: str = "fine") -> Scan:
    """List the samples of the official tree in `raw` or up to two levels deep; `annotation` is `fine` or `coarse`.

    An image without labels, or the reverse, is a fault.

    Raises:
        ValueError: `annotation` is another word, leftImg8bit/ or the folder of labels is missing, or no image has labels.
    """
    if annotation not in FOLDERS:
        raise ValueError(f"annotation: {annotation!r}; should be one of: {', '.join(FOLDERS)}")
    kind = f"gt{annotation.capitalize()}"
    images, truth = _find(raw, "leftImg8bit"), _find(raw, kind)
    items, faults = [], []
    for folder, split in FOLDERS[annotation].items():
        found = {path.name.removesuffix("_leftImg8bit.png"): path for path in sorted(images.glob(f"{folder}/*/*_leftImg8bit.png"))}
        for name, image in found.items():
            source, city = image.relative_to(raw).as_posix(), image.parent.name
            stem = truth / folder / city / f"{name}_{kind}"
            mask = next((p for p in (Path(f"{stem}_{end}") for end in ENDINGS) if p.exists()), None)
            if mask is None:
                what = f"an image of {folder} has no labels"
                fix = f"Unpack all of {kind}/ beside leftImg8bit/, or remove the image."
                faults.append(Fault(kind="no_mask", what=what, example=source, fix=fix))
                continue
            items.append(Item(id=name, split=split, image=image, mask=mask, group=city, source=source))
        names = {(p.parent, p.name.split(f"_{kind}_")[0]) for p in truth.glob(f"{folder}/*/*_{kind}_*")}
        for where, name in sorted(names, key=lambda pair: (str(pair[0]), pair[1])):
            if name not in found:
                example = (where / name).relative_to(raw).as_posix()
                what, fix = f"labels of {folder} have no image", "Unpack the images of this split too if it should be used."
                faults.append(Fault(kind="no_image", what=what, example=example, fix=fix, severity=WARNING))
    if not items:
        pairs = f"<split>/<city>/*_leftImg8bit.png in {images} with labels of the same split and city in {truth}"
        raise ValueError(f"{raw}: no {pairs}. {MANUAL}")
    return Scan(classes=CLASSES, items=tuple(items), labels=LABELS, faults=tuple(faults))


def load(item: Item) -> Raw:
    """Decode one sample. Its labels are label ids 0..33, also where they were drawn from polygons or stored as train ids.

    Raises:
        ValueError: the polygons file is damaged, or the instance ids have another size than the labels.
    """
    assert item.mask is not None
    image = item.image.read_bytes()
    faults: list[Fault] = []
    if item.mask.suffix == ".json":
        numbers, faults = _draw(item.mask)
        labels = np.where(numbers >= 1000, numbers // 1000, numbers).astype(np.uint8)
        return Raw(image=image, labels=labels, instances=list(_instances(numbers)), faults=tuple(faults))
    labels = np.asarray(Image.open(item.mask))
    start, _, ending = item.mask.name.rpartition("_")
    if ending == "labelTrainIds.png":
        labels, faults = _from_train_ids(labels, item.source)
    path = item.mask.with_name(f"{start}_instanceIds.png")
    rows = []
    if path.exists():
        numbers = np.asarray(Image.open(path))
        if numbers.shape != labels.shape:
            raise ValueError(f"{path.name}: instance ids {numbers.shape}, labels {labels.shape}. Fetch both again.")
        rows = list(_instances(numbers))
    return Raw(image=image, labels=labels, instances=rows, faults=tuple(faults))


def _instances(numbers: np.ndarray) -> Iterator[dict[str, Any]]:
    """The rows of an image of instance ids (H, W): one for each instance, and one for each class that has pixels in groups."""
    columns = np.asfortranarray(numbers)  # run lengths go down the columns
    for number in np.flatnonzero(np.bincount(numbers.ravel())).tolist():
        label = number // 1000 if number >= 1000 else number
        index = INDEX.get(label)
        if index is not None and CLASSES[index].thing:
            rle = coco_mask.encode((columns == number).view(np.uint8))
            yield {"category": index, "rle": rle, "iscrowd": number < 1000}


def _from_train_ids(labels: np.ndarray, source: str) -> tuple[np.ndarray, list[Fault]]:
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise ValueError(f"{source}: its labelTrainIds are {labels.dtype} {labels.shape}; should be one byte per pixel")
    table = np.zeros(256, np.uint8)  # 0 is unlabeled, and so becomes ignored
    table[list(INDEX.values())] = list(INDEX)
    faults = [
        Fault(
            kind="unknown_label",
            what=f"the labelTrainIds mask holds the unknown label value {value}",
            example=source,
            fix="Known values: 0..18 and 255 = ignored. Make the masks again with cityscapesScripts.",
        )
        for value in np.unique(labels).tolist()
        if value >= len(CLASSES) and value != 255
    ]
    return table[labels], faults


def _draw(path: Path) -> tuple[np.ndarray, list[Fault]]:
    """The instance ids int32 (H, W) of a polygons file, and its faults."""
    faults = []
    try:
        document = json.loads(path.read_text())
        image = Image.new("I", (int(document["imgWidth"]), int(document["imgHeight"])), 0)
        objects = [
            (str(o["label"]), [(float(x), float(y)) for x, y in o["polygon"]])
            for o in document["objects"]
            if not o.get("deleted", 0)
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        should = "should have imgWidth, imgHeight and objects of label and polygon"
        raise ValueError(f"{path.name}: no Cityscapes polygons ({type(error).__name__} {error}); {should}") from error
    pen, count = ImageDraw.Draw(image), dict.fromkeys(NAMES, 0)
    for name, points in objects:
        is_group = name not in IDS and name.endswith("group")
        label = name.removesuffix("group") if is_group else name
        number = IDS.get(label)
        if number is None:
            fix = "Correct the label; it is one of cityscapesScripts, or one of them and 'group'."
            faults.append(
                Fault(kind="unknown_category", what=f"a polygon has the unknown label {name!r}", example=path.name, fix=fix)
            )
            continue
        if number >= FIRST_WITH_INSTANCES and not is_group:
            number, count[label] = 1000 * number + count[label], count[label] + 1
        if number < 0:
            continue
        if len(points) < 3:
            what, fix = f"a polygon of {name!r} has {len(points)} points and was left out", "Remove it, or draw it again."
            faults.append(Fault(kind="bad_polygon", what=what, example=path.name, fix=fix, severity=WARNING))
            continue
        pen.polygon(points, fill=number)
    return np.asarray(image), faults


def _find(raw: Path, name: str) -> Path:
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for folder in sorted(raw.glob(pattern)):
            if folder.is_dir():
                return folder
    raise ValueError(f"{raw}: no folder {name}/ here or up to two levels deep. {MANUAL}")
