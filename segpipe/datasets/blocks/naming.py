"""What the names of files and folders tell: image or mask, which split, and the name that an image shares with its mask."""

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

from segpipe.datasets.blocks.mask_file import SUFFIXES
from segpipe.datasets.blocks.patterns import SPLIT_WORDS

IMAGE_WORDS = frozenset(
    "image images img imgs im jpegimages pngimages rgb photo photos picture pictures input inputs frames leftimg8bit".split()
)
MASK_WORDS = frozenset(
    "mask masks label labels annotation annotations annot annots ann anns gt gts groundtruth groundtruths truth target targets"
    " seg segs segmentation segmentations segmentationclass segmentationclasspng segmentationclassaug manual manual1"
    " labelids".split()
)
IMAGE_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in (".mat", ".npy"))
IMAGE_AFFIXES = (*IMAGE_WORDS, "training", "test", "sat", "original", "raw")
MASK_AFFIXES = (*MASK_WORDS, "training_mask", "ground_truth", "gtfine_labelids", "l", "p")
PRECEDENCE = (".jpg", ".jpeg", ".webp", ".ppm", ".tif", ".tiff", ".bmp", ".png", ".pgm", ".gif", ".npy", ".mat")
"""Of two files 7.*, the image is the one whose ending is earlier here."""


def list_files(raw: Path) -> list[str]:
    """The paths of all files below `raw`, sorted; hidden ones and what a Mac leaves in archives are left out.

    Raises:
        ValueError: a file's name is not UTF-8.
    """
    found = []
    for folder, below, names in os.walk(raw, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")) and not _leads_back(folder, name))
        inside = Path(folder).relative_to(raw)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    for path in found:
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise ValueError(f"{raw}: the name {ascii(path)} is not UTF-8. Rename the file.")
    return sorted(found)


def _leads_back(folder: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in, so that following it would never end."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


@cache
def role(part: str) -> tuple[str | None, str | None, str]:
    """(split, kind, the name with {split} for the split) that a folder's name tells; a name with both kinds of word is a mask's."""
    split, kinds, name = None, set(), part
    for word in re.findall(r"[a-z0-9]+", part.lower()):
        begins = next((s for s in sorted(SPLIT_WORDS, key=len, reverse=True) if word.startswith(s)), None)
        after = word.removeprefix(begins or "")
        if begins is not None and (not after or after in IMAGE_WORDS | MASK_WORDS):
            split, word = SPLIT_WORDS[begins], after
            name = re.sub(begins, "{split}", name, count=1, flags=re.IGNORECASE)
        kinds |= {kind for kind, words in (("image", IMAGE_WORDS), ("mask", MASK_WORDS)) if word in words}
    kind = "mask" if "mask" in kinds else "image" if kinds else None
    return split, kind, name if kind else part


def split_and_rest(folders: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    split, rest = None, []
    for part in folders:
        if part.lower() in SPLIT_WORDS:
            split = SPLIT_WORDS[part.lower()]
        else:
            rest.append(part)
    return split, tuple(rest)


def names_of(source: str, kind: str) -> tuple[str, ...]:
    """The file's name without its ending, and also without a word for its kind at either end if there is one."""
    stem = PurePosixPath(source).stem
    at_the_end, at_the_start = _affixes(IMAGE_AFFIXES if kind.startswith("image") else MASK_AFFIXES)
    bare = at_the_end.sub("", stem)
    if bare == stem:
        bare = at_the_start.sub("", stem)
    return (stem, bare) if bare not in ("", stem) else (stem,)


@cache
def _affixes(words: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    either = "|".join(sorted(words, key=len, reverse=True))
    at_the_end, at_the_start = rf"[-_. ]+(?:{either})$", rf"^(?:{either})(?:[-_. ]+|(?=\d))"
    return re.compile(at_the_end, re.IGNORECASE), re.compile(at_the_start, re.IGNORECASE)
