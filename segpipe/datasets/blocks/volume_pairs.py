"""Which volume file is the image and which its labels: by the names of folders and files, or by two patterns.

A folder called like one of IMAGE_FOLDERS or LABEL_FOLDERS, or a word at the start or end of a file's name, says what a file is,
and a label word in the name outweighs an image folder. What is left of both paths without these words must be equal:

    imagesTr/la_003_0000.nii.gz   labelsTr/la_003.nii.gz     nnU-Net and Medical Decathlon; _0000 is the channel
    train/images/7.npy            train/labels/7.npy
    a.nii.gz                      a_ann.nii.gz, a_seg.nii.gz, a_label.nii.gz, a-mask.nii.gz
    img3d.tif                     mask3d.tif
    volume-0.nii                  segmentation-0.nii         LiTS
    case_1/imaging.nii.gz         case_1/segmentation.nii.gz KiTS
    anything.h5                   itself                     an HDF5 file holds both
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segpipe.datasets.blocks import naming, voxels
from segpipe.datasets.blocks.patterns import SPLIT_WORDS
from segpipe.layout import WARNING, Fault

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr", "imagests", "volumes", "scans")
LABEL_FOLDERS = ("labels", "label", "labelstr", "labelsts", "masks", "mask", "annotations", "segmentations", "segmentation", "gt")
IMAGE_WORDS = "images?|img|imaging|volume|vol|scan"
LABEL_WORDS = "labels?|mask|masks|seg|segmentation|annotation|ann|gt"
CHANNEL = re.compile(r"(.+)_(\d{4})")
NNUNET = ("imagestr", "imagests")
IMAGE, LABEL = "image", "label"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its labels (one HDF5 file may be both). `name` is the image's name without its ending and channel."""

    image: Path
    label: Path
    name: str
    split: str | None = None


def by_name(raw: Path, *, channel: int | None) -> tuple[list[Pair], list[Fault]]:
    """All pairs in `raw`, in the order of the images' paths, and a fault for each file without a partner.

    Of the nnU-Net channels of one image the one numbered `channel` is taken, 0 if None, with a warning if there are more. The split
    is that of a folder in the path called train, val or test, or the like; nnU-Net's Tr and Ts are train and test if there
    are labels for Ts, else there is no split: its train images are what folds are made of.
    """
    images: dict[tuple[str, ...], list[Path]] = {}
    labels: dict[tuple[str, ...], list[Path]] = {}
    faults, several = [], []
    for source in naming.list_files(raw):
        path = raw / source
        if voxels.ending(path) is None:
            continue
        role, key, number = _role(PurePosixPath(source))
        if number is not None and number != (channel or 0):
            several.append(path)
            continue
        (labels if role == LABEL else images).setdefault(key, []).append(path)
    pairs = []
    for key, found in images.items():
        partners, source = labels.get(key, []), found[0].relative_to(raw).as_posix()
        if not partners and voxels.ending(found[0]) in voxels.HDF5:
            partners = found
        if not partners and "ts" in key:
            continue  # a test set whose labels are withheld
        if not partners:
            fix = "Name it like the image, e.g. labels/<id> or <id>_seg, or give the options `images` and `labels`."
            faults.append(Fault(kind="no_mask", what="a volume has no label volume", example=source, fix=fix))
        elif len(found) > 1 or len(partners) > 1:
            names = ", ".join(path.relative_to(raw).as_posix() for path in dict.fromkeys([*found, *partners]))
            fix = "Say which belong together with the options `images` and `labels`."
            faults.append(Fault(kind="duplicate_id", what="more than two files belong together by name", example=names, fix=fix))
        else:
            pairs.append(Pair(image=found[0], label=partners[0], name=_name(found[0], channels=found[0] != partners[0])))
    for key in labels.keys() - images.keys():
        fix = "Add the image, or remove the label; or give the options `images` and `labels`."
        example = labels[key][0].relative_to(raw).as_posix()
        faults.append(Fault(kind="no_image", what="a label volume has no image", example=example, fix=fix))
    if several and channel is None:
        what, fix = "images have several channels, and only channel 0 is read", "Choose one with the option `channel`."
        faults += [_warning(what, path.relative_to(raw).as_posix(), fix) for path in several]
    tested = any("labelsts" in _folders(pair.label, raw) for pair in pairs)
    pairs = [Pair(image=p.image, label=p.label, name=p.name, split=_split(p, raw, tested)) for p in pairs]
    return pairs, sorted(faults, key=lambda fault: fault.example)


def by_pattern(raw: Path, images: str, labels: str | None) -> tuple[list[Pair], list[Fault]]:
    """The pairs of the files that fit two patterns, paths in `raw` such as "ct/{id}.nii.gz" and "{id}/{id}_seg.nii.gz".

    {id} is any part of one name, the same everywhere in both patterns; * is any part of one name. A file that fits both belongs to
    the longer one. Without `labels` every image, which must be HDF5, holds its own.

    Raises:
        ValueError: a pattern has no {id}, leaves the folder, or fits nothing; or one id fits two files.
    """
    found = _fitting(raw, images, option="images")
    partners = found if labels is None else _fitting(raw, labels, option="labels")
    if labels is None and any(voxels.ending(path) not in voxels.HDF5 for path in found.values()):
        raise ValueError(f"labels: missing; images is {images!r}, and only an HDF5 file can hold both. Give a pattern with {{id}}.")
    if labels is not None:
        general, special = (found, partners) if len(images) < len(labels) else (partners, found)
        for name in [name for name, path in general.items() if path in set(special.values())]:
            del general[name]
    faults = []
    for name in sorted(found.keys() ^ partners.keys()):
        missing = name in found
        path = found[name] if missing else partners[name]
        kind, what = ("no_mask", "a volume has no label volume") if missing else ("no_image", "a label volume has no image")
        fix = f"No file fits {(labels if missing else images)!r} with this id. Fetch it, or correct the pattern."
        faults.append(Fault(kind=kind, what=what, example=path.relative_to(raw).as_posix(), fix=fix))
    both = sorted(found.keys() & partners.keys())
    return [Pair(image=found[name], label=partners[name], name=name) for name in both], faults


def _role(path: PurePosixPath) -> tuple[str, tuple[str, ...], int | None]:
    """What a file is, what it has in common with its partner, and its nnU-Net channel."""
    folders = [folder.lower() for folder in path.parts[:-1]]
    place = next((i for i in reversed(range(len(folders))) if folders[i] in IMAGE_FOLDERS + LABEL_FOLDERS), None)
    role, number, base = None, None, _stem(path.name).lower()
    if place is not None:
        role = IMAGE if folders[place] in IMAGE_FOLDERS else LABEL
        channel = CHANNEL.fullmatch(base) if folders[place] in NNUNET else None
        if channel:
            base, number = channel[1], int(channel[2])
        folders[place] = folders[place][-2:] if folders[place].endswith(("tr", "ts")) else ""
    for words, meaning in ((LABEL_WORDS, LABEL), (IMAGE_WORDS, IMAGE)):
        shorter = re.sub(rf"^(?:{words})(?=[\W_\d]|$)|(?<=[\W_])(?:{words})$", "", base, count=1)
        if shorter != base:
            base, role = shorter, LABEL if LABEL in (meaning, role) else IMAGE
            break
    return role or IMAGE, (*folders, base.strip("_-. ")), number


def _fitting(raw: Path, pattern: str, *, option: str) -> dict[str, Path]:
    if "{id}" not in pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise ValueError(
            f"{option}: {pattern!r}; should be a path inside the folder with {{id}} in it, e.g. imagesTr/{{id}}.nii.gz"
        )
    first, *rest = (re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("{id}"))
    form = re.compile(first + "(?P<id>[^/]+)" + "(?P=id)".join(rest))
    found: dict[str, Path] = {}
    for path in sorted(raw.glob(pattern.replace("{id}", "*"))):
        fits = form.fullmatch(path.relative_to(raw).as_posix())
        if fits and voxels.ending(path) is not None:
            if fits["id"] in found:
                raise ValueError(f"{option}: {pattern!r}; the id {fits['id']!r} fits {found[fits['id']]} and {path}")
            found[fits["id"]] = path
    if not found:
        there = next((source for source in naming.list_files(raw) if voxels.ending(Path(source))), "no volume at all")
        raise ValueError(f"{option}: {pattern!r}; fits no volume file in {raw}. There is {there}.")
    return found


def _warning(what: str, example: str, fix: str) -> Fault:
    return Fault(kind="not_read", what=what, example=example, fix=fix, severity=WARNING)


def _stem(name: str) -> str:
    end = next((e for e in voxels.ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(end)]


def _name(path: Path, *, channels: bool) -> str:
    channel = CHANNEL.fullmatch(_stem(path.name)) if channels and path.parent.name.lower() in NNUNET else None
    return channel[1] if channel else _stem(path.name)


def _folders(path: Path, raw: Path) -> Iterator[str]:
    return (folder.lower() for folder in path.relative_to(raw).parts[:-1])


def _split(pair: Pair, raw: Path, tested: bool) -> str | None:
    for folder in _folders(pair.image, raw):
        if folder in SPLIT_WORDS:
            return SPLIT_WORDS[folder]
        if folder in NNUNET and tested:
            return "test" if folder.endswith("ts") else "train"
    return None
