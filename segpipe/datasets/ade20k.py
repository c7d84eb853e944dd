"""ADE20K in the form of the scene parsing challenge of 2016: indoor and outdoor scenes, 150 classes (Zhou et al. 2017).

Layout, in a folder ADEChallengeData2016/:

    objectInfo150.txt                                a row per class: number, pixel share, counts, names
    images/{training,validation}/ADE_*.jpg           20,210 and 2,000 images
    annotations/{training,validation}/ADE_*.png      0 = other, ignored; 1..150 = the row of objectInfo150.txt
    annotations_instance/{training,validation}/*.png optional: red = one of the 100 classes with instances, green = number

training is train, validation is val; labels of the test images were never released. Files may also lie in images/ and annotations/
themselves, as in the challenge's development kit; then ADE_train_ and ADE_val_ in the name tell the split, other names have none.
A class is called by the first of its names. objectInfo150.csv is not read: it cuts "chest of drawers" to pieces and would give two
classes "screen". sceneCategories.txt names the kind of place, not one place, so every image is its own group.

Instances are those of the Places Challenge 2017, of the same images; its annotations_instance.tar is a download of its own
(http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar), unpacked beside annotations/. Its 100 classes
are the things here, the other 50 are stuff (github.com/CSAILVision/placeschallenge, instancesegmentation/instanceInfo100_val.txt).
The file objectInfo150.csv draws that line elsewhere, at 35 stuff classes.

The full ADE20K (3,688 classes, groups.csail.mit.edu/vision/datasets/ADE20K, by registration) is another layout, not read here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat

from segpipe.datasets.blocks import palette, texts
from segpipe.layout import Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SOURCES = (
    Source(
        filename="ADEChallengeData2016.zip",
        urls=("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
        licence="ADE20K terms (MIT CSAIL): annotations and software under the BSD 3-Clause licence; MIT does not own the images.",
        allows="The images may be used for non-commercial research and education; ask their owners for anything else.",
        size=967382037,
        # Size and sha256 as published with the loader scene_parse_150 of Hugging Face datasets.
        sha256="7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
    ),
)
NUM_CLASSES = 150
STUFF = frozenset(
    # fmt: off
    (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        10,
        12,
        14,
        17,
        18,
        22,
        26,
        27,
        29,
        30,
        35,
        41,
        47,
        49,
        52,
        53,
        55,
        60,
        61,
        62,
        64,
        69,
        78,
        80,
        85,
        92,
        95,
        97,
        100,
        101,
        102,
        106,
        107,
        110,
        114,
        115,
        118,
        123,
        129,
        132,
        141,
        142,
        146,
    )
    # fmt: on
)
"""Label values without instances."""
THINGS = tuple(value for value in range(1, NUM_CLASSES + 1) if value not in STUFF)
"""Label values with instances; the instance masks number them 1..100 in this order."""
FOLDERS = {"training": "train", "validation": "val"}
PREFIXES = {"ADE_train_": "train", "ADE_val_": "val"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
NAMES, COLOURS = "objectInfo150.txt", "color150.mat"


def scan(raw: Path) -> Scan:
    """List the samples of the tree in `raw`, which is or contains (two levels deep) the folder that holds images/ and annotations/.

    An image without a mask and a mask without an image are faults, and no samples.

    Raises:
        ValueError: there is no such folder, objectInfo150.txt is missing or is not a table of 150 classes.
    """
    folder = _find(raw)
    items: list[Item] = []
    faults: list[Fault] = []
    for part in ("training", "validation", ""):
        images = _files(folder / "images" / part)
        masks, instances = (
            {path.stem: path for path in _files(folder / kind / part)} for kind in ("annotations", "annotations_instance")
        )
        for image in images:
            stem, source = image.stem, image.relative_to(raw).as_posix()
            if stem not in masks:
                fix = f"Put {stem}.png into {(folder / 'annotations' / part).relative_to(raw).as_posix()}, or remove the image."
                faults.append(Fault(kind="no_mask", what="an image has no annotation", example=source, fix=fix))
                continue
            split = FOLDERS.get(part) or next((s for prefix, s in PREFIXES.items() if stem.startswith(prefix)), None)
            extra = {"instances": str(instances[stem])} if stem in instances else {}
            items.append(Item(id=stem, split=split, image=image, mask=masks[stem], group=stem, source=source, extra=extra))
        for stem in sorted(masks.keys() - {image.stem for image in images}):
            example, fix = masks[stem].relative_to(raw).as_posix(), "Fetch the images again, or remove the annotation."
            faults.append(Fault(kind="no_image", what="an annotation has no image", example=example, fix=fix))
    if not items and not faults:
        raise ValueError(f"{folder}: no .jpg or .png in images/, images/training/ or images/validation/. Unpack it again.")
    labels = {value: value - 1 for value in range(1, NUM_CLASSES + 1)} | {0: 255}
    return Scan(classes=_classes(raw, folder), items=tuple(items), labels=labels, faults=tuple(faults))


def load(item: Item) -> Raw:
    """Decode one sample; its labels are 0..150 as in the file.

    Raises:
        ValueError: an instance mask is not RGB, or names a class above 100.
    """
    assert item.mask is not None
    rows = list(_instances(Path(item.extra["instances"]))) if "instances" in item.extra else []
    return Raw(image=item.image.read_bytes(), labels=np.asarray(Image.open(item.mask)), instances=rows)


def _instances(path: Path) -> Iterator[dict[str, Any]]:
    pixels = np.asarray(Image.open(path))
    if pixels.ndim != 3:
        raise ValueError(
            f"{path.name}: this is {pixels.shape}; an instance mask is RGB, red = class 1..{len(THINGS)}, green = number"
        )
    pairs = pixels[..., 0].astype(np.int32) * 256 + pixels[..., 1]
    for pair in np.unique(pairs[pixels[..., 0] > 0]):
        number = int(pair) // 256
        if number > len(THINGS):
            raise ValueError(f"{path.name}: red is {number} somewhere; the classes with instances are 1..{len(THINGS)}")
        yield {"category": THINGS[number - 1] - 1, "mask": pairs == pair, "iscrowd": False}


def _find(raw: Path) -> Path:
    for folder in (raw, *sorted(raw.glob("*/")), *sorted(raw.glob("*/*/"))):
        if (folder / "images").is_dir() and (folder / "annotations").is_dir():
            return folder
    raise ValueError(
        f"{raw}: no folder with images/ and annotations/ here or up to two levels deep. Unpack ADEChallengeData2016.zip there;"
        " the full ADE20K, with its _seg.png files, is another layout."
    )


def _files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."))


def _classes(raw: Path, folder: Path) -> tuple[ClassInfo, ...]:
    tables = [place / NAMES for place in (folder, folder.parent) if place.is_relative_to(raw)]
    table = next((path for path in tables if path.exists()), None)
    if table is None:
        raise ValueError(f"{folder / NAMES}: missing. It names the 150 classes and comes with ADEChallengeData2016.zip.")
    names = []
    for number, line in enumerate(texts.read(table).splitlines()[1:], 1):
        cells = line.split("\t")
        if len(cells) < 5 or cells[0].strip() != str(number) or not cells[4].strip():
            raise ValueError(f"{table}, line {number + 1}: {line!r}; should be {number}, share, train, val, names, parted by tabs")
        names.append(cells[4].split(",")[0].strip())
    if len(names) != NUM_CLASSES:
        raise ValueError(f"{table}: names {len(names)} classes, not {NUM_CLASSES}. Fetch it again.")
    matrix = next((path for depth in ("", "*/", "*/*/") for path in sorted(raw.glob(f"{depth}{COLOURS}"))), None)
    colours = (
        palette.distinct(NUM_CLASSES) if matrix is None else [(int(r), int(g), int(b)) for r, g, b in loadmat(matrix)["colors"]]
    )
    return tuple(
        ClassInfo(name=name, colour=colour, thing=value not in STUFF)
        for value, (name, colour) in enumerate(zip(names, colours, strict=True), 1)
    )
