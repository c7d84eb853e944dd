"""Lists of a split, train.txt, val.txt and test.txt, that lie beside a user's images and name one sample per line."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from segpipe.datasets.blocks import texts
from segpipe.datasets.blocks.mask_file import SUFFIXES
from segpipe.datasets.blocks.naming import list_files
from segpipe.datasets.blocks.pairing import Pair
from segpipe.datasets.blocks.patterns import SPLIT_WORDS
from segpipe.layout import WARNING, Fault


def with_splits(raw: Path, pairs: Sequence[Pair], others: Iterable[str]) -> tuple[list[Pair], list[Fault]]:
    """The pairs with their split: that of their folder, else that of the list in `raw` that names them, else None.

    A line is an id, or the name or path of an image (further words, as the path of the mask, are not read). `others` are the
    images without a mask, which a list may name. Where some pairs have a split, the rest is left out, with a warning for each.

    Raises:
        ValueError: a line names no image, or one that another list has; or there are lists in several folders.
    """
    lists = {} if any(pair.split for pair in pairs) else _find(raw)
    split_of = _read(raw, lists, pairs, others)
    placed = [replace(pair, split=pair.split or split_of.get(pair.image)) for pair in pairs]
    if not any(pair.split for pair in placed):
        return placed, []
    what = "an image is in none of the splits that the folders or lists name, and was left out"
    fix = f"Name it in {', '.join(sorted(lists))}, or remove it." if lists else "Move it to one of the split folders, or remove it."
    faults = [Fault(kind="no_split", what=what, example=p.image, fix=fix, severity=WARNING) for p in placed if p.split is None]
    return [pair for pair in placed if pair.split is not None], faults


def _find(raw: Path) -> dict[str, str]:
    """{path of a list: split}, those in the folder nearest to the top, or in VOC's Segmentation."""
    found: dict[PurePosixPath, dict[str, str]] = defaultdict(dict)
    for path in map(PurePosixPath, list_files(raw)):
        if path.suffix == ".txt" and path.stem.lower() in SPLIT_WORDS:
            found[path.parent][str(path)] = SPLIT_WORDS[path.stem.lower()]
    if not found:
        return {}
    depth = min(len(folder.parts) for folder in found)
    nearest = [folder for folder in found if len(folder.parts) == depth]
    nearest = [folder for folder in nearest if folder.name == "Segmentation"] or nearest
    if len(nearest) > 1:
        raise ValueError(f"{raw}: lists of splits in several folders, {', '.join(map(str, nearest))}; keep those of one")
    return found[nearest[0]]


def _read(raw: Path, lists: dict[str, str], pairs: Sequence[Pair], others: Iterable[str]) -> dict[str, str]:
    """{image: split} of the pairs that are listed."""
    images: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for name in (pair.id, pair.id.rpartition("/")[2], *_names(pair.image)):
            images[name].add(pair.image)
    unlabelled = {name for image in others for name in _names(image)}
    split_of: dict[str, str] = {}
    for source, split in lists.items():
        lines = texts.read(raw / source).splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{raw / source}, line {number}: {line.strip()!r}"
            words = [line.strip(), line.split()[0]]
            named = next((images[name] for word in words for name in reversed(_names(word)) if name in images), None)
            if named is None and not any(name in unlabelled for word in words for name in _names(word)):
                raise ValueError(f"{where}; no image is called that. Correct the line, or remove it.")
            for image in named or ():
                if len(named or ()) > 1:
                    raise ValueError(
                        f"{where}; {len(named or ())} images are called that. Write the path of the one that is meant."
                    )
                if split_of.setdefault(image, split) != split:
                    raise ValueError(
                        f"{where}; another list has it in {split_of[image]}. A sample is in one split: remove one line."
                    )
    return split_of


def _names(path: str) -> tuple[str, ...]:
    """The name without folders and ending, the last two folders with it, the whole path, each without ending."""
    pure = PurePosixPath(path.replace("\\", "/"))
    pure = pure.with_suffix("") if pure.suffix.lower() in SUFFIXES else pure
    return tuple(dict.fromkeys((pure.name, "/".join(pure.parts[-2:]), "/".join(pure.parts[-3:]), str(pure))))
