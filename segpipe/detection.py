"""Which dataset file reads a folder, and what the folder's row in params.yaml must say about its splits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segpipe import components
from segpipe.audit import Audit
from segpipe.layout import Scan
from segpipe.shards import SPLITS
from segpipe.splits import DEFAULT, SALTS, assign

GENERAL = ("coco_json", "folder")
"""Formats that read many layouts, the more particular one first: any format of one dataset goes before them."""
STAND_INS: dict[str, dict[str, Any]] = {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.1}}
"""In this order: a test split is made of val, and val of train."""


def formats() -> list[str]:
    """The formats that read somebody's files: all but those that are drawn."""
    return [name for name in components.names("datasets") if not hasattr(components.load("datasets", name), "generate")]


def detect(folder: Path) -> tuple[dict[str, Scan], dict[str, str]]:
    """Let every format list `folder` with its default options: {format: scan} of those that found samples, and {format: reason}.

    Of the formats that read many layouts the first is named, and only where no other format found samples. A reason says why a
    format, though it found something of its layout, reads none of it; there is always one of the most general format.
    """
    found: dict[str, Scan] = {}
    reasons: dict[str, str] = {}
    for name in formats():
        try:
            scan = components.load("datasets", name).scan(folder)
        except (ValueError, OSError) as error:  # by their contract: this is not that layout, and why
            if name == GENERAL[-1] or _names_a_file(str(error), folder):
                reasons[name] = str(error).removeprefix(f"{folder}: ")
            continue
        if scan.items:
            found[name] = scan
        elif scan.faults:
            first = scan.faults[0]
            reasons[name] = f"{first.what}: {first.example}. {first.fix}"
    for name in reversed(GENERAL):
        if name in found and len(found) > 1:
            del found[name]
    return found, reasons


def _names_a_file(reason: str, folder: Path) -> bool:
    """Whether `reason` holds the path of something that is there, below `folder`."""
    _, *paths = reason.split(f"{folder}/")
    ends = ((path, end) for path in paths for end, letter in enumerate(f"{path} ") if letter in ":,; '\")")
    return any((folder / path[:end]).exists() for path, end in ends if path[:end].strip())


def settle_splits(scan: Scan, *, name: str) -> tuple[Scan, dict[str, Any], str]:
    """What the row of the dataset `name` must say so that all splits have samples: (scan, keys of the row, sentence).

    Keys and sentence are empty where the source has all three splits. Where no split can be drawn there are no keys either: the
    scan returned then has all samples in train, and the sentence says why.
    """
    there = {item.split for item in scan.items}
    if there == set(SPLITS) or not there:
        return scan, {}, ""
    missing = [split for split in SPLITS if split not in there]
    if None not in there and "train" in there and len(there) == 2:
        rules = STAND_INS if missing == ["test"] else {"val": STAND_INS["val"]}
        return scan, {"stand_in": rules}, f"There are no {missing[0]} samples; the row below says what stands in for them."
    why = "The source has no official split" if None in there else f"There are no {' and no '.join(missing)} samples"
    rule: dict[str, Any] = {**DEFAULT, "fractions": dict(DEFAULT["fractions"])}
    refused = ""
    for salt in range(SALTS):  # few groups may all fall into one split: then another draw is taken
        drawn = rule | {"salt": salt} if salt else rule
        try:
            assign(scan.items, drawn, name=name, audit=Audit(name))
        except ValueError as error:
            refused = refused or str(error)
            continue
        return scan, {"splits": drawn}, f"{why}; the row below draws the splits by group."
    everything = tuple(replace(item, split="train") for item in scan.items)
    return replace(scan, items=everything), {}, f"{why}, and none can be drawn; all were audited as train. {refused}"
