"""Which mask belongs to which image in a folder that somebody arranged in their own way: told by names alone.

Three arrangements are found by themselves, below any folders:

- a folder of images and one of masks, by the words of `blocks.naming` (images/ and masks/, img_dir/ and ann_dir/,
  image/ and groundTruth/, train/ and trainannot/), each with a folder train, val or test above or below it, or none;
- one folder with both, masks told by an affix: 7.png and 7_mask.png;
- one folder with both, masks told by the ending: 7.jpg and 7.png.

In two folders a mask has the name of its image, or both differ by an affix: 7_image.png and 7_annotation.png. Anything else
takes patterns (see `blocks.patterns`). Where two arrangements fit, nothing is guessed.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from segpipe.datasets.blocks.mask_file import SUFFIXES
from segpipe.datasets.blocks.naming import IMAGE_SUFFIXES, PRECEDENCE, names_of, role, split_and_rest
from segpipe.datasets.blocks.patterns import SPLIT_WORDS, compile_pattern
from segpipe.layout import WARNING, Fault

EXAMPLE = 'images: "photos/{id}.jpg" and masks: "labels/{id}_label.png"'


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that may be an image or a mask. `names` are what its id may be, the plain name first; `rest` are folders around it."""

    source: str
    names: tuple[str, ...]
    split: str | None = None
    rest: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its mask, as paths inside the folder."""

    id: str
    image: str
    mask: str
    split: str | None
    group: str | None


@dataclass(kw_only=True)
class Found:
    """What was found: the pairs, the images and masks left alone, and the images with several masks."""

    pairs: list[Pair] = field(default_factory=list)
    images: list[File] = field(default_factory=list)
    masks: list[File] = field(default_factory=list)
    several: list[tuple[File, list[File]]] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    """Files among the images that are named like their masks, where the masks lie elsewhere."""

    def faults(self) -> tuple[Fault, ...]:
        """A warning for each file that is left out, and an error for each image with several masks."""
        lonely = "Add its mask, or remove it; an image without any object needs a mask of background only."
        fault = [
            Fault(kind="no_mask", what="an image has no mask and was left out", example=f.source, fix=lonely, severity=WARNING)
            for f in self.images
        ]
        fix = "Add its image, or remove it."
        what = "a mask has no image and was left out"
        fault += [Fault(kind="no_image", what=what, example=f.source, fix=fix, severity=WARNING) for f in self.masks]
        what, fix = "a file among the images is named like a mask and was left out", "The masks were found elsewhere: remove it."
        fault += [Fault(kind="spare_mask", what=what, example=source, fix=fix, severity=WARNING) for source in self.spare]
        fix = 'Keep one of them, or say which by a pattern with an ending, e.g. masks: "masks/{id}.png".'
        for image, masks in self.several:
            named = f"{image.source}: {', '.join(mask.source for mask in masks)}"
            fault.append(Fault(kind="two_masks", what="an image has several masks", example=named, fix=fix))
        return tuple(fault)


def find(raw: Path, files: Sequence[str], *, images: str | None = None, masks: str | None = None) -> Found:
    """Pair the images and masks among `files`; `images` and `masks` are patterns or folders, None to find them.

    Raises:
        ValueError: no pair is found, or several arrangements fit; the message has file names and the option to set.
    """
    right = {masks: _matching(files, masks, "masks")} if masks else _by_word(files, "mask")
    taken = {file.source for group in right.values() for file in group}
    spare = {} if images else _masks_by_affix([source for source in files if source not in taken])
    candidates = [source for source in files if source not in taken and source not in spare]
    left = {images: _matching(candidates, images, "images")} if images else _by_word(candidates, "image")
    found = _match(left, right)
    if not found and images is None:  # train/ beside trainannot/, or photographs in a folder of any name
        found = _match({"the other folders": _elsewhere(candidates)}, right)
    if not found and images is None and masks is None:
        found, spare = _match(*_by_affix(files)) or _match(*_by_ending(files)), {}
    if len(found) > 1:
        pairs = "; ".join(f"{i} with {m} ({len(f.pairs)} pairs)" for (i, m), f in found.items())
        (i, m), _ = next(iter(found.items()))
        raise ValueError(
            f'{raw}: several folders may be the images and masks: {pairs}. Say which, e.g. images: "{i}" and masks: "{m}".'
        )
    if not found:
        raise ValueError(_nothing(raw, files, images, masks))
    chosen = _with_unique_ids(next(iter(found.values())))
    folders = {pair.image.rpartition("/")[0] for pair in chosen.pairs}
    chosen.spare = sorted(source for source in spare if source.rpartition("/")[0] in folders)
    return chosen


def _matching(files: Iterable[str], pattern: str, option: str) -> list[File]:
    expression, found = compile_pattern(pattern, option=option), []
    for source in files:
        match = expression.fullmatch(source)
        if match is None or PurePosixPath(source).suffix.lower() not in SUFFIXES:
            continue
        parts = match.groupdict()
        folders = [part for key in ("above", "below") for part in (parts.get(key) or "").split("/") if part]
        split, rest = split_and_rest(folders)
        split = SPLIT_WORDS[parts["split"].lower()] if parts.get("split") else split
        file = File(source=source, names=(parts.get("id") or "",), split=split, rest=rest, group=parts.get("group"))
        found.append(replace(file, names=names_of(source, option)) if "file" in parts else file)
    return found


def _by_word(files: Iterable[str], kind: str) -> dict[str, list[File]]:
    """The files below folders whose names have a word of the kind, "image" or "mask", by the name of the folder."""
    found: dict[str, list[File]] = defaultdict(list)
    suffixes = IMAGE_SUFFIXES if kind == "image" else SUFFIXES
    for source in files:
        path = PurePosixPath(source)
        if path.suffix.lower() not in suffixes:
            continue
        roles = [role(part) for part in path.parts[:-1]]
        last = max((i for i, (_, k, _) in enumerate(roles) if k is not None), default=None)
        if last is None or roles[last][1] != kind:
            continue
        split, rest = split_and_rest(part for i, part in enumerate(path.parts[:-1]) if i != last)
        own_split, _, name = roles[last]
        found[name].append(File(source=source, names=names_of(source, kind), split=own_split or split, rest=rest))
    return dict(found)


def _elsewhere(files: Iterable[str]) -> list[File]:
    found = []
    for source in files:
        path = PurePosixPath(source)
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(role(part)[1] for part in path.parts[:-1]):
            split, rest = split_and_rest(path.parts[:-1])
            found.append(File(source=source, names=names_of(source, "image"), split=split, rest=rest))
    return found


def _masks_by_affix(files: Iterable[str]) -> dict[str, str]:
    """{file: the plain name} of files named like a mask of an image in the same folder, such as 7_mask.png beside 7.png."""
    every = [PurePosixPath(f) for f in files if PurePosixPath(f).suffix.lower() in SUFFIXES]
    known = {(path.parent, name) for path in every for name in names_of(str(path), "image")}
    bare = {path: names_of(str(path), "mask")[1:] for path in every}
    return {str(path): name[0] for path, name in bare.items() if name and (path.parent, name[0]) in known}


def _by_affix(files: Sequence[str]) -> tuple[dict[str, list[File]], dict[str, list[File]]]:
    """Images, and masks by their affix, in folders that hold both."""
    bare = _masks_by_affix(files)
    images, masks = [], defaultdict(list)
    for source in files:
        path = PurePosixPath(source)
        split, rest = split_and_rest(path.parts[:-1])
        if source in bare:
            masks[path.stem.replace(bare[source], "{id}")].append(
                File(source=source, names=(bare[source],), split=split, rest=rest)
            )
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(File(source=source, names=names_of(source, "image"), split=split, rest=rest))
    return {"{id}": images}, dict(masks)


def _by_ending(files: Sequence[str]) -> tuple[dict[str, list[File]], dict[str, list[File]]]:
    """Images and masks of equal names in one folder: of two files the one whose ending is later in PRECEDENCE is the mask."""
    same: dict[str, list[str]] = defaultdict(list)
    for source in files:
        if PurePosixPath(source).suffix.lower() in PRECEDENCE:
            same[source.rpartition(".")[0]].append(source)
    images, masks = [], []
    for twins in same.values():
        twins.sort(key=lambda source: PRECEDENCE.index(PurePosixPath(source).suffix.lower()))
        split, rest = split_and_rest(PurePosixPath(twins[0]).parts[:-1])
        made = [File(source=s, names=(PurePosixPath(s).stem,), split=split, rest=rest) for s in twins]
        images += made[:1]
        masks += made[1:]
    return {"*": images}, {"*": masks}


def _match(left: dict[str, list[File]], right: dict[str, list[File]]) -> dict[tuple[str, str], Found]:
    """All ways to pair a group of images with a group of masks that give any pair."""
    ways = {(i, m): _best(_without_common(left[i]), _without_common(right[m])) for i in left for m in right}
    return {way: found for way, found in ways.items() if found.pairs}


def _without_common(files: list[File]) -> list[File]:
    """The files without the folders that all of them lie in."""
    common = os.path.commonprefix([file.rest for file in files])
    return [replace(file, rest=file.rest[len(common) :]) for file in files]


def _best(images: list[File], masks: list[File]) -> Found:
    """Paired by the plain names, or by those without affix if that gives more pairs."""
    return max((_pair(images, masks, which) for which in (0, -1)), key=lambda found: len(found.pairs))


def _pair(images: list[File], masks: list[File], which: int) -> Found:
    splits = any(f.split for f in images) and any(f.split for f in masks)
    groups = any(f.group for f in images) and any(f.group for f in masks)

    def key(file: File) -> tuple[object, ...]:
        return file.names[which], file.rest, file.split if splits else None, file.group if groups else None

    masks_of: dict[tuple[object, ...], list[File]] = defaultdict(list)
    for mask in masks:
        masks_of[key(mask)].append(mask)
    found, used = Found(), set()
    for image in images:
        own = [mask for mask in masks_of[key(image)] if mask.source != image.source]
        used |= {mask.source for mask in own}
        if not own:
            found.images.append(image)
        elif len(own) > 1:
            found.several.append((image, own))
        else:
            name = "/".join([*([image.group] if image.group else []), *image.rest, image.names[which]])
            split, group = image.split or own[0].split, image.group or own[0].group
            found.pairs.append(Pair(id=name, image=image.source, mask=own[0].source, split=split, group=group))
    found.masks = [mask for mask in masks if mask.source not in used]
    return found


def _with_unique_ids(found: Found) -> Found:
    """With the split before every id where two splits use the same names."""
    if len({pair.id for pair in found.pairs}) < len(found.pairs):
        found.pairs = [replace(p, id=f"{p.split}/{p.id}") if p.split else p for p in found.pairs]
    return found


def _nothing(raw: Path, files: Sequence[str], images: str | None, masks: str | None) -> str:
    firsts = list({file.rpartition("/")[0]: file for file in reversed(files)}.values())[::-1][:5]  # of each of a few folders
    more = f" and {len(files) - len(firsts)} more" if len(files) > len(firsts) else ""
    shown = f"{', '.join(firsts)}{more}" if files else "no file at all"
    if images or masks:
        asked = " and ".join(f"{key}: {value!r}" for key, value in (("images", images), ("masks", masks)) if value)
        return f"{raw}: no image with a mask is named by {asked}. The folder holds {shown}."
    return (
        f"{raw}: no images with masks found. Looked for a folder images (image, img, JPEGImages, ...) beside one masks (labels,"
        f" annotations, gt, SegmentationClass, ...), for 7.png with 7_mask.png, and for 7.jpg with 7.png. The folder holds {shown}."
        f" Say how they are named, e.g. {EXAMPLE}."
    )
