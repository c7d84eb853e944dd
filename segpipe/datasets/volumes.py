"""Your own volumes: NIfTI, HDF5, .npy or multi-page TIFF, each a 3D image with labels of the same shape.

Files find their partner by name (`blocks/volume_pairs.py` lists the layouts: nnU-Net, images/ + labels/, <id> + <id>_seg, img3d +
mask3d, one HDF5 with both, ...), or by the patterns `images` and `labels`, e.g. {id}/{id}_flair.nii.gz and {id}/{id}_seg.nii.gz.

Axes are (D, H, W). A NIfTI array is stored (x, y, z) and is transposed to (z, y, x); HDF5, .npy and TIFF stay as stored, so in
the left-atrium data of 2018 (HDF5) axis 2 is the one through the body. Nothing is turned into an anatomical orientation.

A sample is a volume, its image as stored; or, with `slices` (0, 1 or 2), every slice across that axis is a sample for 2D networks,
<volume>-0012 with the volume as its group. Pictures have 8 bits in the end, and all slices of a volume must share one scale, so:

    uint8                as it is
    uint16               the 8 highest bits in use in the volume
    any other number     `window: [low, high]` becomes 0..255; without it the 0.5th and the 99.5th percentile of the volume's
                         finite values (of at most 2^24 evenly spaced ones)

`window` also applies to uint8 and uint16 where it is given. `spacing` is taken from the header (NIfTI) or from an attribute
`spacing` (HDF5), and from the option where a file has none.

Classes are `classes` ([background, tumour] or {0: background, 4: tumour}), or "labels" in nnU-Net's dataset.json, or the values
found in a few label volumes. 255 is ignored unless it is a class. With `instances: true` labels are numbers of instances of one
class, the second of `classes`, and 0 is the first. In slices every instance is kept (its part in a slice is one instance, even if
it falls apart there); an instance has no form in three dimensions here, so whole volumes keep the class alone.

Splits are those of lists train.list, val.list and test.list (or .txt), one volume's name in a line, or of folders train/, val/ and
test/; otherwise there are none.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import volume_classes, volume_lists, volume_pairs, voxels
from segpipe.layout import WARNING, Fault, Item, Raw, Scan, Source

SOURCES: tuple[Source, ...] = ()
MOST_SAMPLED = 2**24
LOW, HIGH = 0.5, 99.5
"""Percentiles."""


def scan(
    raw: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
    channel: int | None = None,
    classes: Sequence[str] | Mapping[Any, Any] | None = None,
    instances: bool = False,
    slices: int | None = None,
    spacing: Sequence[float] | None = None,
    window: Sequence[float] | None = None,
) -> Scan:
    """List the volumes in `raw`, or with `slices` the slices across that axis; only headers are read, and labels for the classes.

    `image_key` and `label_key` name the datasets in an HDF5 file. `channel` is the nnU-Net channel, or the place on the fourth axis
    of a NIfTI. `spacing` is in mm along (D, H, W); `window` in the image's own units.

    Raises:
        ValueError: there are no volumes, an option is wrong, a list names a volume that is not there, or no classes can be found.
    """
    _check(slices, spacing, window, labels if images is None else None)
    pairs, faults = volume_pairs.by_name(raw, channel=channel) if images is None else volume_pairs.by_pattern(raw, images, labels)
    if not pairs and not faults:
        raise ValueError(
            f"{raw}: no volumes here ({', '.join(voxels.ENDINGS)}) with labels. Set `source`, or `images` and `labels`."
        )
    named, unlisted = volume_lists.settle(raw, pairs)
    faults += unlisted
    table = volume_classes.given(classes, instances=instances) if classes is not None or instances else volume_classes.of_json(raw)
    if table is None:
        table, told = volume_classes.found(raw, [pair for _, _, pair in named], label_key=label_key)
        faults.append(told)
    if instances and slices is None:
        what, fix = "whole volumes keep the class of an instance, not its number", "Set `slices` to keep instances, slice by slice."
        faults.append(Fault(kind="not_read", what=what, example=raw.name, fix=fix, severity=WARNING))
    extra = {
        "keys": (image_key, label_key),
        "channel": channel,
        "instances": instances,
        "axis": slices,
        "spacing": None if spacing is None else tuple(float(s) for s in spacing),
        "window": None if window is None else tuple(float(v) for v in window),
    }
    items = []
    for name, split, pair in named:
        source = pair.image.relative_to(raw).as_posix()
        item = Item(id=name, split=split, image=pair.image, mask=pair.label, group=name, source=source, extra=extra)
        if slices is None:
            items.append(item)
            continue
        try:
            count = voxels.header(pair.image, key=image_key, channel=channel).shape[slices]
        except ValueError as error:
            fix = "Fetch it again, or take the sample out of the source."
            faults.append(Fault(kind="unreadable", what="a volume's header cannot be read", example=f"{source} ({error})", fix=fix))
            continue
        items += [_slice(item, index) for index in range(count)]
    return Scan(
        classes=tuple(replace(c, thing=instances and index == 1) for index, c in enumerate(table.classes)),
        items=tuple(items),
        labels={255: table.ignore_index} | table.labels,
        ignore_index=table.ignore_index,
        dimensions=3 if slices is None else 2,
        faults=tuple(faults),
    )


def load(item: Item) -> Raw:
    """Decode one volume or slice. The labels are the file's own values, or 0 and 1 with `instances`.

    Neighbouring slices are read from a volume that this process has decoded once.

    Raises:
        ValueError: a file is no readable volume, or (slices) image and labels differ in shape; the message names the file.
    """
    assert item.mask is not None
    axis, index, keys = item.extra["axis"], item.extra.get("index", 0), item.extra["keys"]
    header = _header(item.image, keys[0], item.extra["channel"], _stamp(item.image))
    spacing = header.spacing or item.extra["spacing"]
    faults = _turned(item, header.axes) if index == 0 else ()
    if axis is None:
        volume = io.BytesIO()
        np.save(volume, voxels.read(item.image, key=keys[0], channel=item.extra["channel"]), allow_pickle=False)
        labels = voxels.read_labels(item.mask, key=keys[1])
        labels = (labels > 0).astype(np.uint8) if item.extra["instances"] else labels
        return Raw(image=volume.getvalue(), labels=labels, spacing=spacing, faults=faults)
    grey = _grey(item.image, keys[0], item.extra["channel"], item.extra["window"], _stamp(item.image))
    every = _labels(item.mask, keys[1], _stamp(item.mask))
    if grey.shape != every.shape:
        raise ValueError(f"{item.mask.name}: is {every.shape}, but the image {item.image.name} is {grey.shape}; should be equal")
    picture = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey.take(index, axis))).save(picture, "PNG")
    labels = np.ascontiguousarray(every.take(index, axis))
    rows: list[dict[str, Any]] = []
    if item.extra["instances"]:
        rows = [{"category": 1, "mask": labels == number, "iscrowd": False} for number in np.unique(labels[labels > 0])]
        labels = (labels > 0).astype(np.uint8)
    flat = None if spacing is None else spacing[:axis] + spacing[axis + 1 :]
    return Raw(image=picture.getvalue(), labels=labels, instances=rows, spacing=flat, faults=faults)


def _slice(item: Item, index: int) -> Item:
    return replace(item, id=f"{item.id}-{index:04d}", source=f"{item.source}#{index}", extra=item.extra | {"index": index})


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does, so that no old volume is taken from the cache."""
    known = path.stat()
    return known.st_mtime_ns, known.st_size


@lru_cache(maxsize=1)
def _header(path: Path, key: str, channel: int | None, _stamp: tuple[int, int]) -> voxels.Header:
    return voxels.header(path, key=key, channel=channel)


@lru_cache(maxsize=1)
def _labels(path: Path, key: str, _stamp: tuple[int, int]) -> np.ndarray:
    return voxels.read_labels(path, key=key)


@lru_cache(maxsize=1)
def _grey(path: Path, key: str, channel: int | None, window: tuple[float, float] | None, _stamp: tuple[int, int]) -> np.ndarray:
    """uint8 (D, H, W): the volume in 8 bits, on one scale for all slices."""
    volume = voxels.read(path, key=key, channel=channel)
    if window is None and volume.dtype == np.uint8:
        return volume
    if window is None and volume.dtype == np.uint16:
        return (volume >> max(0, int(volume.max()).bit_length() - 8)).astype(np.uint8)
    low, high = window or _percentiles(volume, path)
    grey = np.empty(volume.shape, np.uint8)
    for index, plane in enumerate(volume):  # slice by slice: a whole volume in floats would be several times its size
        scaled = (plane.astype(np.float64) - low) * (255 / (high - low) if high > low else 0)
        grey[index] = np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0), 0, 255))
    return grey


def _percentiles(volume: np.ndarray, path: Path) -> tuple[float, float]:
    some = volume.ravel()[:: 1 + (volume.size - 1) // MOST_SAMPLED]
    some = some[np.isfinite(some)]
    if not some.size:
        raise ValueError(f"{path.name}: holds no finite value")
    low, high = np.percentile(some, (LOW, HIGH))
    return float(low), float(high)


def _turned(item: Item, axes: str | None) -> tuple[Fault, ...]:
    """A warning if the headers of two NIfTI files say that image and labels lie differently in space."""
    assert item.mask is not None
    if axes is None or voxels.ending(item.mask) not in (".nii", ".nii.gz"):
        return ()
    other = voxels.header(item.mask).axes
    if other is None or other == axes:
        return ()
    what = f"the image's axes point to {axes}, those of its labels to {other}: mirrored or turned, unless the header is wrong"
    fix = "Look at the preview; if they do not lie on each other, resample the labels to the image."
    return (Fault(kind="orientation", what=what, example=item.source, fix=fix, severity=WARNING),)


def _check(slices: Any, spacing: Any, window: Any, lonely: str | None) -> None:
    if slices not in (None, 0, 1, 2) or isinstance(slices, bool):
        raise ValueError(f"slices: {slices!r}; choices: 0, 1 or 2, the axis to cut across, or leave it out for whole volumes")
    if spacing is not None and (np.shape(spacing) != (3,) or not all(s > 0 for s in spacing)):
        raise ValueError(f"spacing: {spacing!r}; should be three lengths in mm, along (D, H, W)")
    if window is not None and (np.shape(window) != (2,) or not window[0] < window[1]):
        raise ValueError(f"window: {window!r}; should be [low, high] in the units of the image, e.g. [-160, 240]")
    if lonely is not None:
        raise ValueError(f"labels: {lonely!r}; give `images` too, both with {{id}}, or neither")
