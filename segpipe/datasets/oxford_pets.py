"""Oxford-IIIT Pet: 7349 photographs of cats and dogs of 37 breeds, with trimaps (Parkhi, Vedaldi, Zisserman, Jawahar 2012).

    images/<name>.jpg                       the breed is the name without its number
    annotations/trimaps/<name>.png          1 = pet, 2 = background, 3 = border (not classified)
    annotations/{trainval,test}.txt         name, class id 1..37, species 1 = cat or 2 = dog, breed id; lines with # are comments

trainval is the train split and test the test split; there is no val. The lists decide: images in no list, the .mat files
and macOS's ._*.png beside the trimaps are not looked at. Some .jpg are PNG or GIF inside, which convert takes as they are.

The border is a band around each animal: `border: ignore` leaves it out of loss and scores, `class` makes it a class of its own,
`foreground` adds it to the animal. `classes: species` or `breed` gives the animal the class of its image in place of `pet`; since
the trimap does not tell it, its pixels then carry 1000 + the species or class id.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import texts
from segpipe.layout import Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SITES = ("https://thor.robots.ox.ac.uk/datasets/pets", "https://www.robots.ox.ac.uk/~vgg/data/pets/data")
LICENCE = "CC BY-SA 4.0; the photographs' copyright remains with their owners"
ALLOWS = "Any use with credit to the authors; what is derived from it and passed on must carry the same licence."
SOURCES = (
    Source(
        filename="images.tar.gz",
        urls=tuple(f"{site}/images.tar.gz" for site in SITES),
        licence=LICENCE,
        allows=ALLOWS,
        size=791918971,
        sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    ),
    Source(
        filename="annotations.tar.gz",
        urls=tuple(f"{site}/annotations.tar.gz" for site in SITES),
        licence=LICENCE,
        allows=ALLOWS,
        size=19173078,
        sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
    ),
)
LISTS = {"trainval": "train", "test": "test"}
PET, BACKGROUND, BORDER = 1, 2, 3
OWN = 1000
"""Added to a species or class id, so that it is no value of a trimap."""
SPECIES = ("cat", "dog")
BREEDS = (
    "Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer British_Shorthair"
    " chihuahua Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired great_pyrenees havanese japanese_chin"
    " keeshond leonberger Maine_Coon miniature_pinscher newfoundland Persian pomeranian pug Ragdoll Russian_Blue saint_bernard"
    " samoyed scottish_terrier shiba_inu Siamese Sphynx staffordshire_bull_terrier wheaten_terrier yorkshire_terrier"
).split()
"""In the order of the class ids 1..37."""
NAMES = {"pet": ("pet",), "species": SPECIES, "breed": tuple(BREEDS)}
BORDERS = ("ignore", "class", "foreground")


def scan(raw: Path, *, classes: str = "pet", border: str = "ignore") -> Scan:
    """List the samples of the lists in `raw`, which is or contains (two levels deep) the folder of images/ and annotations/.

    `classes` is pet, species or breed; `border` is ignore, class or foreground.

    Raises:
        ValueError: no list is found, a line is malformed, a listed file is missing, or an option has another value.
    """
    if classes not in NAMES:
        raise ValueError(f"classes: {classes!r}; choices: {', '.join(NAMES)}")
    if border not in BORDERS:
        raise ValueError(f"border: {border!r}; choices: {', '.join(BORDERS)}")
    folder = _find(raw)
    items = []
    for name, split in LISTS.items():
        listed = folder / "annotations" / f"{name}.txt"
        lines = texts.read(listed).split("\n") if listed.exists() else []
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                items.append(_item(raw, folder, line, f"{listed}, line {number}", split, classes=classes, border=border))
    names = NAMES[classes]
    table = [ClassInfo(name="background", colour=(90, 90, 90))]
    for i, name in enumerate(names):
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.75 if i % 2 else 0.55, 0.9)
        table.append(ClassInfo(name=name.replace("_", " "), colour=(int(255 * red), int(255 * green), int(255 * blue))))
    labels = {BACKGROUND: 0}
    labels |= {PET: 1} if classes == "pet" else {OWN + i: i for i in range(1, len(names) + 1)}
    if border == "class":
        table.append(ClassInfo(name="border", colour=(250, 250, 250)))
        labels[BORDER] = len(table) - 1
    elif border == "ignore":
        labels[BORDER] = 255
    elif classes == "pet":
        labels[BORDER] = 1
    return Scan(classes=tuple(table), items=tuple(items), labels=labels)


def load(item: Item) -> Raw:
    """Decode one sample; its labels are 1, 2 and 3 as in the trimap, or uint16 with 1000 + its id in place of 1."""
    assert item.mask is not None
    with Image.open(item.mask) as image:
        labels = np.asarray(image)
    if "label" in item.extra:
        labels = np.where(np.isin(labels, item.extra["of"]), np.uint16(item.extra["label"]), labels.astype(np.uint16))
    return Raw(image=item.image.read_bytes(), labels=labels)


def _item(raw: Path, folder: Path, line: str, where: str, split: str, *, classes: str, border: str) -> Item:
    words = line.split()
    numbers = [int(word) for word in words[1:] if word.isascii() and word.isdigit()]
    if len(words) != 4 or len(numbers) != 3 or not 1 <= numbers[0] <= len(BREEDS) or numbers[1] not in (1, 2):
        raise ValueError(f"{where}: {line!r}; should be a name, a class id 1..{len(BREEDS)}, a species 1 or 2 and a breed id")
    name = words[0]
    image, mask = folder / "images" / f"{name}.jpg", folder / "annotations" / "trimaps" / f"{name}.png"
    for path in (image, mask):
        if not path.exists():
            raise ValueError(f"{path}: missing, but named in {where}. Fetch it, or remove the line.")
    own = {"species": numbers[1], "breed": numbers[0]}
    of = (PET, BORDER) if border == "foreground" else (PET,)
    extra = {"label": OWN + own[classes], "of": of} if classes in own else {}
    source = image.relative_to(raw).as_posix()
    return Item(id=name, split=split, image=image, mask=mask, group=name, source=source, extra=extra)


def _find(raw: Path) -> Path:
    for folder in (raw, *sorted(raw.glob("*")), *sorted(raw.glob("*/*"))):
        if any((folder / "annotations" / f"{name}.txt").is_file() for name in LISTS) and (folder / "images").is_dir():
            return folder
    raise ValueError(
        f"{raw}: no folder here or two levels deep holds images/ and annotations/trainval.txt or test.txt. Unpack both"
        " images.tar.gz and annotations.tar.gz into one folder."
    )
