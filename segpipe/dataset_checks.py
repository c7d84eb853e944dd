"""What only the whole dataset shows: equal or almost equal images across splits, torn groups, absent and rare classes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from segpipe import drawing, duplicates, shards
from segpipe.audit import MAX_PICTURES, Audit
from segpipe.layout import WARNING, Item, Scan
from segpipe.splits import groups_in_two_splits

RARE_PIXELS = 1000
"""A class with fewer pixels than this in a split has a score that a few pixels decide."""
MAX_PAIRS = 100
"""Pairs of near-duplicates that are looked at; a video has thousands."""
SMALL = 220


class Images:
    """What is remembered of every written image: its id, split, place, file, sha256 and perceptual hash."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.splits: list[str] = []
        self.rows: list[int] = []
        self.sources: list[str] = []
        self.digests: list[bytes] = []
        self.hashes: list[int | None] = []

    def add(self, sample: shards.Sample, split: str, row: int, *, digest: bytes, fingerprint: int | None) -> None:
        """Remember `sample`, the `row`-th of `split`."""
        self.ids.append(sample.id)
        self.splits.append(split)
        self.rows.append(row)
        self.sources.append(sample.source)
        self.digests.append(digest)
        self.hashes.append(fingerprint)


def check_groups(audit: Audit, items: Iterable[Item]) -> None:
    """Warn of groups that lie in more than one split."""
    for group, places in groups_in_two_splits(items).items():
        what = f"samples of one group are in {' and '.join(places)}"
        fix = "They resemble each other (frames of one drive, slices of one scan), so scores may flatter."
        audit.add("group_in_two_splits", what, example=group, fix=fix, severity=WARNING)


def check_classes(audit: Audit, scan: Scan, pixels: Mapping[str, Sequence[int]], counts: Mapping[str, int]) -> None:
    """Warn of classes that a split lacks or hardly has; an error if nothing but the first class and ignored pixels exist."""
    for split in (s for s in shards.SPLITS if counts[s]):
        for c, found in zip(scan.classes, pixels[split], strict=True):
            if found == 0:
                fix = "Their score is undefined there; if they should occur, look at the masks."
                audit.add("absent_class", f"classes without a pixel in {split}", example=c.name, fix=fix, severity=WARNING)
            elif found < RARE_PIXELS:
                what, example = f"classes with fewer than {RARE_PIXELS} pixels in {split}", f"{c.name} ({found} pixels)"
                fix = "A few pixels decide their score; merge them with another class or add images."
                audit.add("rare_class", what, example=example, fix=fix, severity=WARNING)
    present = [c.name for i, c in enumerate(scan.classes) if any(pixels[split][i] for split in shards.SPLITS)]
    if len(present) == 1 and len(scan.classes) > 1 and any(counts.values()):
        what = f"all labelled pixels of the whole dataset are {present[0]!r}"
        fix = f"Nothing can be learned from it. Does {scan.ignore_index}, which means ignored, mark the objects?"
        audit.add("ignore_as_foreground", what, example=", ".join(s for s in shards.SPLITS if counts[s]), fix=fix)


def check_images(audit: Audit, images: Images, folder: Path) -> None:
    """Find the same image twice, and almost the same image in two splits. `folder` holds the shards, for the pictures."""
    first: dict[bytes, int] = {}
    leaked: set[int] = set()
    for i, digest in enumerate(images.digests):
        j = first.setdefault(digest, i)
        if i == j:
            continue
        example = f"{images.sources[j]} and {images.sources[i]}"
        if images.splits[i] == images.splits[j]:
            fix = "It counts twice in every score and every epoch; remove one."
            what = f"the same image is twice in {images.splits[i]}"
            audit.add("same_image", what, example=example, fix=fix, severity=WARNING, picture=_pair(images, (j, i), folder))
        else:
            what = f"the same image is in {images.splits[j]} and in {images.splits[i]}"
            fix = "The model is tested on what it was trained on; remove one of the two."
            leaked |= {i, j}
            audit.add("leaked_image", what, example=example, fix=fix, picture=_pair(images, (j, i), folder))
    hashes = np.array([h or 0 for h in images.hashes], np.uint64)
    valid = np.array([h is not None and i not in leaked for i, h in enumerate(images.hashes)], bool)
    pairs, samples = duplicates.near_pairs(hashes, valid, np.array(images.splits), limit=MAX_PAIRS)
    for number, (i, j, distance) in enumerate(pairs):
        what = f"almost the same image in two splits ({samples} samples have such a twin)"
        names = " and ".join(f"{images.sources[k]} ({images.splits[k]})" for k in (i, j))
        example = f"{names}, {distance} of 64 bits differ"
        fix = "Neighbouring frames or crops of one picture make scores flatter; give them one group and split by group."
        shown = _pair(images, (i, j), folder) if number < MAX_PICTURES else None
        audit.add("near_duplicate", what, example=example, fix=fix, severity=WARNING, picture=shown)


def _pair(images: Images, pair: tuple[int, int], folder: Path) -> tuple[str, bytes]:
    """(caption, JPEG) of two written images side by side."""
    halves = []
    for index in pair:
        pixels, _ = shards.Split(folder, images.splits[index]).arrays(images.rows[index])
        scale = SMALL / pixels.shape[1]
        halves.append(cv2.resize(pixels, (SMALL, max(1, round(pixels.shape[0] * scale))), interpolation=cv2.INTER_AREA))
    return " and ".join(f"{images.sources[i]} ({images.splits[i]})" for i in pair), drawing.side_by_side(halves)
