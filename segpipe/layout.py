"""What a dataset file tells the download and convert engines: its sources, its samples, and one decoded sample."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.shards import ClassInfo

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file to fetch; `urls` are mirrors of each other. `manual` tells a person where to go when a login is needed.

    `licence` names the terms, `allows` says in one sentence what a user may do with the data under them.
    """

    filename: str
    urls: tuple[str, ...]
    licence: str
    allows: str = ""
    size: int | None = None
    sha256: str | None = None
    manual: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with one file. The audit joins those of equal `kind` and `what`, so `what` holds no file name.

    `what` says what is wrong, with the value; `example` names the file; `fix` says what mends it.
    """

    kind: str
    what: str
    example: str
    fix: str
    severity: str = ERROR


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample of a source, undecoded. `group` is the sequence, patient or scene it belongs to; `extra` is the layout's own.

    `split` is None where the layout has no official split.
    """

    id: str
    split: str | None
    image: Path
    mask: Path | None
    group: str
    source: str
    """The image's path inside the raw folder."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """All samples of a source. `labels` maps each label value of the source to a class index or to `ignore_index`.

    With `colours` a label value is a packed colour, 65536 R + 256 G + B. `dimensions` is 3 where samples are volumes. `faults`
    are what the listing showed, such as an image without a mask; a warning may also tell what was recognised.
    """

    classes: tuple[ClassInfo, ...]
    items: tuple[Item, ...]
    labels: Mapping[int, int]
    ignore_index: int = 255
    task: str = "semantic"
    colours: bool = False
    dimensions: int = 2
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One decoded sample: the image's own bytes, labels as the source has them (H, W) or (D, H, W), and its instances.

    `image` is an encoded picture, or the bytes of a `.npy` file (D, H, W) for a volume. `labels` is of any integer dtype.
    `instances` rows are {category: class index, mask: bool (H, W), iscrowd: bool}, or hold `rle`, COCO's {size, counts}, in
    place of `mask`. `spacing` is the distance of neighbouring voxels along each axis of `labels`, in millimetres.
    """

    image: bytes
    labels: np.ndarray
    instances: list[dict[str, Any]] = field(default_factory=list)
    spacing: tuple[float, ...] | None = None
    faults: tuple[Fault, ...] = ()
