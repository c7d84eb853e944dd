"""What a dataset file tells the download and convert engines: its sources, its samples, and one decoded sample."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.shards import ClassInfo


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file to fetch. `manual` tells a person where to go and where to put the file when a login is needed."""

    filename: str
    urls: tuple[str, ...]
    licence: str
    size: int | None = None
    sha256: str | None = None
    manual: str | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample of a source, undecoded. `group` is the sequence, patient or scene it belongs to; `extra` is the layout's own."""

    id: str
    split: str
    image: Path
    mask: Path | None
    group: str
    source: str
    """The image's path inside the raw folder."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """All samples of a source. `labels` maps each label value of the source to a class index or to `ignore_index`."""

    classes: tuple[ClassInfo, ...]
    items: tuple[Item, ...]
    labels: dict[int, int]
    ignore_index: int = 255
    task: str = "semantic"


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One decoded sample: the image's own bytes, labels as the source has them (H, W), and its instances.

    `instances` rows are {category: class index, mask: bool (H, W), iscrowd: bool}.
    """

    image: bytes
    labels: np.ndarray
    instances: list[dict[str, Any]] = field(default_factory=list)
