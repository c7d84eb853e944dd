"""What the layouts of the PASCAL family share: the twenty objects, the colour map, folders, lists of names, and pairs of files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from segpipe.datasets.blocks import texts
from segpipe.layout import WARNING, Fault

OBJECTS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
PHOTOS = (".jpg", ".jpeg", ".png")
FLICKR = "PASCAL VOC: images from Flickr under Flickr's terms of use; the annotations are offered for research, without a licence."
RESEARCH = "Research with credit to the PASCAL VOC challenge; the images belong to their Flickr authors, so do not pass them on."


def colour(label: int) -> tuple[int, int, int]:
    """(r, g, b) of a label in VOC's colour map: its bits, lowest first, go to red, green and blue in turn, highest bits first."""
    channels = [0, 0, 0]
    for bit in range(24):
        channels[bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def find(raw: Path, name: str, *, depth: int = 2) -> list[Path]:
    """All files or folders called `name` on the first level with any: `raw`, its subfolders, ... down to `depth`."""
    for level in range(depth + 1):
        found = sorted(raw.glob("*/" * level + name))
        if found:
            return found
    return []


def find_one(raw: Path, name: str, *, depth: int = 2) -> Path | None:
    """What `find` finds, None if that is nothing.

    Raises:
        ValueError: there are several on one level.
    """
    found = find(raw, name, depth=depth)
    if len(found) > 1:
        places = ", ".join(str(path.parent) for path in found)
        raise ValueError(f"{raw}: {name} is there {len(found)} times, in {places}. Set `source` to one of them.")
    return found[0] if found else None


def by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files of `folder` with one of `suffixes` (lower case), by their names without it; of two, the earlier suffix wins."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes] if folder.is_dir() else []
    return {path.stem: path for path in sorted(files, key=lambda p: suffixes.index(p.suffix.lower()), reverse=True)}


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, name) for each line of a list; the name is the first word's, which may be a path, as in DeepLab's lists."""
    for number, line in enumerate(texts.read(path).split("\n"), 1):
        if line.strip():
            word = PurePosixPath(line.split()[0])
            yield number, word.stem if word.suffix.lower() in PHOTOS else word.name


def listed(
    lists: Iterable[tuple[str | None, Path]],
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    *,
    places: tuple[Path, Path],
    optional: bool = False,
) -> tuple[dict[str, str | None], list[str]]:
    """{name: split} of (split, list) pairs, in their order, and the names without a mask, which are left out if `optional`.

    `places` are a path of an image and of a mask, whose folder and suffix tell where a missing file should be.

    Raises:
        ValueError: a name stands twice, or a file of it is missing.
    """
    splits: dict[str, str | None] = {}
    unmasked = []
    for split, path in lists:
        for number, name in names_in(path):
            if name in splits:
                raise ValueError(f"{path}, line {number}: {name} is listed twice, first for {splits[name]}. Remove one.")
            for files, place in zip((images, masks), places, strict=True):
                if name not in files and not (optional and files is masks):
                    raise missing(place.with_name(name + place.suffix), path, number)
            if name in masks:
                splits[name] = split
            else:
                unmasked.append(name)
    return splits, unmasked


def missing(path: Path, listed: Path, number: int) -> ValueError:
    """The error for a file that is not there but named in a list."""
    return ValueError(f"{path}: missing, but named in {listed}, line {number}. Fetch it, or remove the line.")


def pairs(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[list[str], tuple[Fault, ...]]:
    """The names that have both, sorted; a mask without an image is an error, an image without a mask a warning."""
    faults = []
    for name in sorted(masks.keys() - images.keys()):
        fix = "Add the image under the mask's name, or remove the mask."
        faults.append(Fault(kind="no_image", what="a mask has no image of its name", example=masks[name].name, fix=fix))
    for name in sorted(images.keys() - masks.keys()):
        what, fix = "an image has no mask of its name, so it is left out", "Annotate it, or remove it if that is not wanted."
        faults.append(Fault(kind="no_mask", what=what, example=images[name].name, fix=fix, severity=WARNING))
    return sorted(images.keys() & masks.keys()), tuple(faults)
