"""DRIVE: blood vessels in 40 photographs of the retina, 565 x 584, scored inside the round field of view (Staal et al. 2004).

    training/images/21_training.tif        test/images/01_test.tif             RGB
    training/1st_manual/21_manual1.gif     test/1st_manual/01_manual1.gif      0 and 255 = vessel
    training/mask/21_training_mask.gif     test/mask/01_test_mask.gif          0 and 255 = inside the field of view
                                           test/2nd_manual/01_manual2.gif      the second observer

in the raw folder, in DRIVE/ or one folder deeper. Today's download withholds the labels of the test part; older copies have them.
Training images are train, test images with labels are test, and there is no val. Each image is of another person.

Labels are composed: 0 and 255 as in the file, and 256 outside the field of view, which becomes ignored: the surround is black, no
vessel can be there, and a score over it would flatter. A GIF may store 255 as palette entry 1; the colour is what counts here, so
the palette is applied.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.layout import Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SOURCES = tuple(
    Source(
        filename=name,
        urls=(),
        licence="DRIVE (Staal, Abramoff, Niemeijer, Viergever, van Ginneken; Image Sciences Institute, Utrecht)",
        allows="Free for research and education; no redistribution and no commercial use; publications cite Staal et al. 2004.",
        manual=f"Register at https://drive.grand-challenge.org, join, and download {name}; put both archives into one folder.",
    )
    for name in ("training.zip", "test.zip")
)
CLASSES = (
    ClassInfo(name="background", colour=(70, 70, 78)),
    ClassInfo(name="vessel", colour=(227, 74, 51)),
)
OUTSIDE = 256
"""The label outside the field of view: a value that no 8-bit mask holds."""
SPLITS = {"training": "train", "test": "test"}
SUFFIXES = (".gif", ".png", ".tif")


def scan(raw: Path, *, observer: int = 1, field_of_view: bool = True) -> Scan:
    """List the images that have labels. A part without any labels is left out.

    `observer: 2` takes the second observer's labels of the test part; the training part has one observer only. With
    `field_of_view: false` the surround is background.

    Raises:
        ValueError: no folder training/images or test/images is found, or `observer` is neither 1 nor 2.
    """
    if observer not in (1, 2):
        raise ValueError(f"observer: {observer}; must be 1 or 2")
    folder = _find(raw)
    items, faults = [], []
    for part, split in SPLITS.items():
        number = observer if part == "test" else 1
        manual = folder / part / ("1st_manual" if number == 1 else "2nd_manual")
        if not manual.is_dir():
            continue
        for image in sorted((folder / part / "images").glob(f"*_{part}.tif")):
            name, source = image.stem.split("_")[0], image.relative_to(raw).as_posix()
            labels = _image(manual, f"{name}_manual{number}")
            view = _image(folder / part / "mask", f"{name}_{part}_mask")
            missing = [] if labels else [f"{manual.name}/{name}_manual{number}.gif"]
            missing += [f"mask/{name}_{part}_mask.gif"] if field_of_view and view is None else []
            for path in missing:
                what = "an image has no vessel labels" if path.startswith(manual.name) else "an image has no field of view"
                fix = f"Add {part}/{path}, or remove the image."
                faults.append(Fault(kind="no_mask", what=what, example=source, fix=fix))
            if labels is not None and not missing:
                extra = {"view": str(view)} if field_of_view else {}
                items.append(
                    Item(id=image.stem, split=split, image=image, mask=labels, group=image.stem, source=source, extra=extra)
                )
    return Scan(classes=CLASSES, items=tuple(items), labels={0: 0, 255: 1, OUTSIDE: 255}, faults=tuple(faults))


def load(item: Item) -> Raw:
    """Decode one sample; its labels are uint16, 0 and 255 as in the file and 256 outside the field of view."""
    assert item.mask is not None
    labels = _grey(item.mask).astype(np.uint16)
    faults: list[Fault] = []
    if "view" in item.extra:
        view = _grey(Path(item.extra["view"]))
        example = f"the field of view of {item.source}"
        if view.shape != labels.shape:
            what = f"the field of view is {view.shape}, the labels are {labels.shape} (height, width)"
            fix = "Fetch both again; they are made for one another."
            faults.append(Fault(kind="size_mismatch", what=what, example=example, fix=fix))
        elif not np.isin(view, (0, 255)).all():
            what, fix = "a field of view holds more values than 0 and 255", "Save it without smooth resizing, as GIF or PNG."
            faults.append(Fault(kind="smeared_mask", what=what, example=example, fix=fix))
        else:
            labels[view == 0] = OUTSIDE
    return Raw(image=item.image.read_bytes(), labels=labels, faults=tuple(faults))


def _grey(path: Path) -> np.ndarray:
    """uint8 (H, W): what the file shows, as grey levels."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def _image(folder: Path, stem: str) -> Path | None:
    """The file of this name in `folder`: a GIF, or the PNG or TIFF that some copies have instead."""
    return next((folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()), None)


def _find(raw: Path) -> Path:
    for folder in (raw, raw / "DRIVE", *sorted(path for path in raw.glob("*")), *sorted(path for path in raw.glob("*/*"))):
        if any((folder / part / "images").is_dir() for part in SPLITS):
            return folder
    raise ValueError(f"{raw}: holds neither training/images nor test/images, here, in DRIVE/ or in another folder")
