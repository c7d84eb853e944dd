"""ISBI 2012 EM challenge, data of the U-Net paper: 30 sections of a larva's nerve cord, membrane or cell (Arganda-Carreras 2015).

Two layouts, each anywhere below the raw folder:

    train-volume.tif, train-labels.tif      the official stacks, one page per section (and test-volume.tif, test-labels.tif)
    image/0.png ..., label/0.png ...        one file per section, as many copies of the data have it

512 x 512, 8-bit grey (16-bit stacks work too). Labels: 0 = membrane, 255 = inside of a cell; both are classes, in this order,
and nothing is ignored. The challenge counts the cells as foreground.

A section is 50 nm thick, so neighbours show the same cells: they are near-duplicates, and the honest unit is the stack. There is
only one with labels, which leaves no way to split by stack; so the group is a stretch of `stretch` consecutive sections. Then
only sections at the border of two stretches have a neighbour in another split, while a split by single sections puts a
neighbour of nearly every test section into train, and flatters. `stretch: 1` is that.

The training stack has no official split (None). The challenge withheld the labels of its test stack, another volume of the same
animal; today's archive carries a test-labels.tif, of which the challenge's page says nothing. `test_stack: true` makes that stack
the test split, and the training stack train.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.layout import Fault, Item, Raw, Scan, Source
from segpipe.shards import ClassInfo

SOURCES = (
    Source(
        filename="ISBI-2012-challenge.zip",
        # The challenge's own server (brainiac2.mit.edu) is gone; imagej.net, home of the challenge's page, hosts this archive.
        urls=("https://downloads.imagej.net/ISBI-2012-challenge.zip",),
        licence="ISBI 2012 EM segmentation challenge: no licence is stated.",
        allows="Offered for the challenge and for research; cite Arganda-Carreras et al. 2015 and Cardona et al. 2010, and ask the"
        " organisers before any other use.",
        # No size or checksum is published.
    ),
)
CLASSES = (
    ClassInfo(name="membrane", colour=(214, 96, 77)),
    ClassInfo(name="cell", colour=(67, 147, 195)),
)
LABELS = {0: 0, 255: 1}
SECTIONS = 30


def scan(raw: Path, *, stretch: int = 5, test_stack: bool = False) -> Scan:
    """List the sections of the labelled stack below `raw`, in their order; the stacks are preferred where both layouts are there.

    `stretch` is the number of consecutive sections that make a group. `test_stack` adds the test stack as the test split.

    Raises:
        ValueError: no layout is found, a stack is missing, unreadable or of another length than its labels, a section has no
            number, or an option has a value that it cannot have.
    """
    if not (isinstance(stretch, int) and stretch >= 1):
        raise ValueError(f"stretch: {stretch!r}; must be 1 or more sections")
    volumes = _nearest(raw.rglob("train-volume.tif"))
    if volumes is not None:
        items = _stack(raw, volumes.parent, "train", split="train" if test_stack else None, stretch=stretch)
        if test_stack:
            items += _stack(raw, volumes.parent, "test", split="test", stretch=stretch)
        return Scan(classes=CLASSES, items=tuple(items), labels=LABELS)
    folder = _nearest(path.parent for path in raw.rglob("label") if path.is_dir() and (path.parent / "image").is_dir())
    if folder is None:
        raise ValueError(f"{raw}: holds neither train-volume.tif and train-labels.tif nor the folders image/ and label/")
    if test_stack:
        raise ValueError(f"test_stack: the labels of the test stack come as test-labels.tif, but {folder} holds single sections")
    items, faults = _sections(raw, folder, stretch=stretch)
    return Scan(classes=CLASSES, items=tuple(items), labels=LABELS, faults=tuple(faults))


def load(item: Item) -> Raw:
    """Decode one section; its labels are 0 and 255 as in the file. A page of a stack becomes a PNG of the same 8 or 16 bits.

    Raises:
        ValueError: a page holds other values than 8- or 16-bit ones.
    """
    assert item.mask is not None
    if "page" not in item.extra:
        return Raw(image=item.image.read_bytes(), labels=_pixels(item.mask, 0))
    image = _pixels(item.image, item.extra["page"])
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"page {item.extra['page']} holds {image.dtype} values; save the stack with 8 or 16 bits per pixel")
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return Raw(image=encoded.getvalue(), labels=_pixels(item.mask, item.extra["page"]))


def _stack(raw: Path, folder: Path, name: str, *, split: str | None, stretch: int) -> list[Item]:
    """The pages of `<name>-volume.tif` and `<name>-labels.tif`, which must be as many."""
    image, mask = folder / f"{name}-volume.tif", folder / f"{name}-labels.tif"
    for path in (image, mask):
        if not path.exists():
            raise ValueError(f"{path}: missing. It comes with {SOURCES[0].filename}.")
    pages, labelled = _pages(image), _pages(mask)
    if pages != labelled:
        raise ValueError(f"{mask}: {labelled} pages, but {image.name} has {pages}. Fetch both stacks again.")
    return [
        Item(
            id=f"{name}-{page:02d}",
            split=split,
            image=image,
            mask=mask,
            group=_group(name, page, stretch),
            source=f"{image.relative_to(raw).as_posix()}#{page}",
            extra={"page": page},
        )
        for page in range(pages)
    ]


def _sections(raw: Path, folder: Path, *, stretch: int) -> tuple[list[Item], list[Fault]]:
    """The pairs image/N.png and label/N.png in the order of N (10 after 9), and what is there without its other half."""
    images, masks = _numbered(folder / "image"), _numbered(folder / "label")
    faults = []
    for number in sorted(images.keys() ^ masks.keys()):
        kind, there, other = ("no_mask", images, "label") if number in images else ("no_image", masks, "image")
        what = f"a section has no {other}"
        example = there[number].relative_to(raw).as_posix()
        faults.append(Fault(kind=kind, what=what, example=example, fix=f"Add {other}/{number}.png, or remove this file."))
    items = [
        Item(
            id=f"train-{number:02d}",
            split=None,
            image=images[number],
            mask=masks[number],
            group=_group("train", number, stretch),
            source=images[number].relative_to(raw).as_posix(),
        )
        for number in sorted(images.keys() & masks.keys())
    ]
    return items, faults


def _numbered(folder: Path) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for path in sorted(folder.glob("*.png")):
        if not (path.stem.isascii() and path.stem.isdigit()) or int(path.stem) in paths or int(path.stem) >= SECTIONS:
            raise ValueError(
                f"{path}: a section is named by its number, 0.png to {SECTIONS - 1}.png. Rename or remove it; for other data than"
                " the challenge's take the format folder."
            )
        paths[int(path.stem)] = path
    return paths


def _group(name: str, number: int, stretch: int) -> str:
    first = number // stretch * stretch
    return f"{name}-{first:02d}-{first + stretch - 1:02d}"


def _pages(path: Path) -> int:
    try:
        with Image.open(path) as stack:
            return int(getattr(stack, "n_frames", 1))
    except (OSError, SyntaxError, TypeError, ValueError, KeyError) as error:  # what Pillow raises for a damaged list of pages
        raise ValueError(f"{path}: damaged, or no TIFF stack ({type(error).__name__}). Fetch it again.") from error


def _pixels(path: Path, page: int) -> np.ndarray:
    """The values of one page as stored, in this machine's byte order; a 1-bit page has 0 and 255."""
    with Image.open(path) as stack:
        stack.seek(page)
        values = np.asarray(stack.convert("L") if stack.mode == "1" else stack)
    return values.astype(values.dtype.newbyteorder("="))


def _nearest(paths: Iterable[Path]) -> Path | None:
    return min(paths, key=lambda path: (len(path.parts), path), default=None)
