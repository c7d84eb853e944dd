"""Where the files of COCO 2017 lie: the official tree, and the ways in which others unpack it (listed in datasets/coco.py)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from segpipe.layout import WARNING, Fault

FEW = 50


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split's files, None for those that are not there. `pngs` is a folder or a zip archive."""

    split: str | None
    name: str
    images: Path | None = None
    objects: Path | None = None
    segments: Path | None = None
    pngs: Path | None = None
    maps: Path | None = None

    def has(self, task: str) -> bool:
        """Whether the labels for `semantic`, `things` or `stuff` are there."""
        wanted = {"semantic": (self.segments, self.pngs), "things": (self.objects,), "stuff": (self.maps,)}[task]
        return all(path is not None for path in wanted)

    def left_out(self, task: str) -> Fault | None:
        """The warning for a split that lacks its labels for `task` or its images; None if it lacks both."""
        if self.images is not None:
            what, kind = f"{self.name} has no annotations for the task {task!r}, so it is left out", "no_annotation"
            fix = "Right if it is not wanted; else add them."
            return Fault(kind=kind, what=what, example=self.images.name, fix=fix, severity=WARNING)
        if self.has(task):
            what, fix = (
                f"{self.name} has annotations but no folder of images, so it is left out",
                f"Put its images into {self.name}/.",
            )
            return Fault(kind="no_image", what=what, example=self.name, fix=fix, severity=WARNING)
        return None


def find(raw: Path) -> list[Part]:
    """The parts in `raw` or, if it has none, in the first folder that has one, at most two levels deep; else none."""
    for pattern in ("", "*/", "*/*/"):
        for base in sorted(raw.glob(pattern)) if pattern else [raw]:
            parts = [part for part in _parts(base) if any((part.objects, part.segments, part.maps))]
            if parts:
                return parts
    return []


def _parts(base: Path) -> Iterator[Part]:
    annotations = base / "annotations"
    for split in ("train", "val"):
        name = f"{split}2017"
        segments = _first(
            f for a in (annotations, base / "panoptic_segmentation" / "annotations") for f in [a / f"panoptic_{name}.json"]
        )
        beside = [] if segments is None else [segments.with_suffix(""), base / f"panoptic_{name}", segments.with_suffix(".zip")]
        yield Part(
            split=split,
            name=name,
            images=_first([base / name, base / "images" / name, base / f"{split}_img"]),
            objects=_first([annotations / f"instances_{name}.json"]),
            segments=segments,
            pngs=_first(beside),
            maps=_first(
                f
                for f in (base / "stuffthingmaps" / name, annotations / name, base / name, base / f"{split}_label")
                if _numbered(f)
            ),
        )
    examples = base / "panoptic_examples.json"
    if examples.exists():
        images = _first([base / "input_images"])
        yield Part(split=None, name="sample_data", images=images, segments=examples, pngs=_first([examples.with_suffix("")]))


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _numbered(folder: Path) -> bool:
    """Whether a folder holds PNGs that are named like COCO's images, by twelve digits."""
    return any(path.stem.isdigit() and len(path.stem) == 12 for path in islice(folder.glob("*.png"), FEW))
