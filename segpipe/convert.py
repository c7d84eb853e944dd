"""Any source layout becomes the one format: Arrow shards, dataset.json, audit.json and contact sheets.

Samples are decoded, checked and re-encoded in worker processes and written in the order of the scan, so the bytes of the result do
not depend on the number of workers. Everything is written to a temporary sibling that replaces the old folder only when the
whole source has been read without an error.
"""

import io
import json
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from segpipe import drawing, shards
from segpipe.audit import WARNING, Audit, check_ids
from segpipe.layout import Item, Raw, Scan
from segpipe.splits import stand_in

ITEMS_PER_TASK = 8
SMALL = 200
"""Up to this many samples, starting processes takes longer than it saves."""
EXIF_ORIENTATION = 0x0112

Load = Callable[[Item], Raw]


@dataclass(kw_only=True)
class Converted:
    """What a worker hands back for one item: its row, or the faults that prevent one, and its exact integer statistics."""

    sample: shards.Sample | None = None
    faults: list[dict[str, str]] = field(default_factory=list)
    pixels: np.ndarray | None = None
    sums: np.ndarray | None = None
    """int64 (2, 3): per channel the sum of the values and of their squares."""
    reencoded: str | None = None


def convert(
    raw: Path,
    out: Path,
    *,
    name: str,
    scan: Scan,
    load: Load,
    stand_ins: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int | None = None,
    previews: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[shards.DatasetInfo, Audit]:
    """Write the dataset `scan` found in `raw` to the folder `out`, replacing it.

    `load` decodes one item in any process. `stand_ins` settles missing splits (see `segpipe.splits.stand_in`). `workers` is the
    number of processes, all cores if None. `previews` is the number of samples on each contact sheet. `progress(done, total)`
    is called after each sample.

    Raises:
        AuditError: the data holds errors; all of them are listed and `out` is left as it was.
        ValueError: a split is missing and nothing stands in for it.
    """
    audit = Audit()
    items, settled = stand_in(scan.items, stand_ins or {}, name=name, audit=audit)
    check_ids(audit, ((item.id, item.source) for item in items))
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        work = partial(convert_item, load=load, labels=scan.labels, num_classes=len(scan.classes), ignore_index=scan.ignore_index)
        ordered = [item for split in shards.SPLITS for item in items if item.split == split]
        results = _in_order(work, ordered, workers=workers)
        told = raw / "provenance.json"
        provenance = (json.loads(told.read_text()) if told.exists() else {}) | {"stand_in": settled}
        info = _write(temporary, results, ordered, name=name, scan=scan, audit=audit, provenance=provenance, progress=progress)
        audit.check(name)
        audit.write(temporary / "audit.json")
        _write_previews(temporary, info, count=previews)
        shards.write_info(temporary, info)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return info, audit


def _write(
    folder: Path,
    results: Iterator[tuple[int, Converted]],
    items: Sequence[Item],
    *,
    name: str,
    scan: Scan,
    audit: Audit,
    provenance: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> shards.DatasetInfo:
    """Write the shards from the results for `items`, record the faults, and add up what dataset.json holds."""
    digests, counts, reencoded = {}, {}, Counter[str]()
    pixels = {split: np.zeros(len(scan.classes), np.int64) for split in shards.SPLITS}
    sums, values = np.zeros((2, 3), np.int64), 0
    for split in shards.SPLITS:
        with shards.SplitWriter(folder, split) as writer:
            for _ in range(sum(item.split == split for item in items)):
                done, result = next(results)
                for fault in result.faults:
                    audit.add(**fault)
                if result.sample is not None:
                    assert result.pixels is not None and result.sums is not None
                    writer.write(result.sample)
                    pixels[split] += result.pixels
                    reencoded.update([result.reencoded] if result.reencoded else [])
                    if split == "train":
                        sums += result.sums
                        values += result.sample.height * result.sample.width
                if progress is not None:
                    progress(done, len(items))
            counts[split], digests[split] = writer.count, writer.close()
    for split in shards.SPLITS:
        for index in np.flatnonzero(pixels[split] == 0) if counts[split] else ():
            what = f"the class {scan.classes[index].name!r} has no pixel in {split}"
            fix = "Its score is undefined there; if it should occur, look at the masks."
            audit.add("absent_class", what, example=split, fix=fix, severity=WARNING)
    mean = sums[0] / max(values, 1) / 255
    std = np.sqrt(np.maximum(sums[1] / max(values, 1) / 255**2 - mean**2, 1e-12))
    return shards.DatasetInfo(
        name=name,
        classes=scan.classes,
        ignore_index=scan.ignore_index,
        task=scan.task,
        dimensions=2,
        splits=counts,
        pixels={split: [int(n) for n in table] for split, table in pixels.items()},
        mean=tuple(round(float(m), 6) for m in mean),
        std=tuple(round(float(s), 6) for s in std),
        provenance=provenance | {"reencoded": dict(sorted(reencoded.items()))},
        digest=shards.dataset_digest(digests, scan.classes),
    )


def convert_item(item: Item, *, load: Load, labels: Mapping[int, int], num_classes: int, ignore_index: int) -> Converted:
    """Decode, check and re-encode one item. Faults of its files come back as findings, never as an exception."""
    try:
        decoded = load(item)
        image, note = normal_image(decoded.image, mask_size=decoded.labels.shape[:2])
        pixels = shards.decode_image(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all that Pillow raises for bad files
        files = item.source if item.mask is None else f"{item.source} or its mask {item.mask.name}"
        what, fix = f"a file cannot be read ({_plain(error)})", "Fetch it again, or take the sample out of the source."
        return Converted(faults=[{"kind": "unreadable", "what": what, "example": files, "fix": fix}])
    if decoded.labels.ndim != 2 or decoded.labels.dtype.kind not in "ui":
        what = f"the mask is {decoded.labels.dtype} {decoded.labels.shape}, not one whole number per pixel"
        fix = "Is it a colour picture of the labels? Save the class index per pixel as a grey or palette PNG."
        return Converted(faults=[{"kind": "not_labels", "what": what, "example": item.source, "fix": fix}])
    faults = []
    if decoded.labels.shape != pixels.shape[:2]:
        what = f"image and mask differ in size, {pixels.shape[:2]} and {decoded.labels.shape} (height, width)"
        fix = "Export the mask again at the image's own size."
        faults.append({"kind": "size_mismatch", "what": what, "example": item.source, "fix": fix})
    mask, unknown = relabel(decoded.labels, labels, ignore_index=ignore_index)
    for value, count in unknown.items():
        known = ", ".join(str(v) for v in sorted(labels)[:20]) + (", ..." if len(labels) > 20 else "")
        what = f"the mask holds the unknown label value {value}"
        fix = f"Known values: {known}. Mend the masks, or map the value to a class or to ignore in the dataset file."
        example = f"{item.source} ({count} pixels)"
        faults.append({"kind": "unknown_label", "what": what, "example": example, "fix": fix})
    if faults:
        return Converted(faults=faults)
    if note and note.startswith("orientation"):
        what = f"the image asks to be turned when shown ({note})"
        fix = "It was turned where that fits the mask; look at the preview."
        faults.append({"kind": "orientation", "what": what, "example": item.source, "fix": fix, "severity": WARNING})
    levels = np.arange(256)
    histogram = np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)])
    sample = shards.Sample(
        id=item.id,
        image=image,
        mask=shards.encode_mask(mask),
        height=mask.shape[0],
        width=mask.shape[1],
        group=item.group,
        source=item.source,
        instances=[encode_instance(row) for row in decoded.instances],
    )
    counted = np.bincount(mask[mask != ignore_index], minlength=num_classes)
    sums = np.stack([histogram @ levels, histogram @ levels**2])
    return Converted(sample=sample, faults=faults, pixels=counted, sums=sums, reencoded=note)


def relabel(source: np.ndarray, labels: Mapping[int, int], *, ignore_index: int) -> tuple[np.ndarray, dict[int, int]]:
    """Source label values (H, W) to class indices uint8 (uint16 if `ignore_index` is above 255), by a table.

    Returns the mask and the values that `labels` does not hold, each with its number of pixels; these become ignored.
    """
    dtype = np.uint8 if ignore_index <= 255 else np.uint16
    if source.dtype in (np.uint8, np.uint16):  # a table over all values is much faster than sorting the pixels
        counts = np.bincount(source.ravel())
        values = np.flatnonzero(counts)
        table = np.full(len(counts), ignore_index, dtype)
        table[values] = [labels.get(int(v), ignore_index) for v in values]
        mask, counts = table[source], counts[values]
    else:
        values, inverse, counts = np.unique(source, return_inverse=True, return_counts=True)
        mask = np.array([labels.get(int(v), ignore_index) for v in values], dtype)[inverse].reshape(source.shape)
    return mask, {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in labels}


def normal_image(encoded: bytes, *, mask_size: tuple[int, ...]) -> tuple[bytes, str | None]:
    """The image as 8-bit RGB in a JPEG or PNG: the source's own bytes where they are that, else a PNG and what was changed.

    Grey, palette, transparent (the alpha channel is dropped), CMYK and 16-bit images and other file types become RGB PNG; 16-bit
    values keep the 8 highest bits in use. A picture with an EXIF orientation is turned if it then fits the mask.

    Raises:
        OSError, SyntaxError, ValueError: the bytes are no complete image (what Pillow raises).
    """
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        image: Image.Image = opened
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        eight_bit_rgb = image.mode == "RGB" and (opened.format == "JPEG" or encoded[24:26] == b"\x08\x02")
        if opened.format in ("JPEG", "PNG") and eight_bit_rgb and orientation == 1:
            return encoded, None
        note = f"{opened.format} {image.mode}"
        if orientation != 1:
            note = f"orientation {orientation}"
            turned = ImageOps.exif_transpose(image)
            if (turned.height, turned.width) == tuple(mask_size):
                image = turned
        if image.mode.startswith("I") or image.mode == "F":
            values = np.asarray(image)
            if image.mode == "F" or values.min() < 0 or values.max() > 65535:
                raise ValueError(f"values {values.min()}..{values.max()} of mode {image.mode} are no 8- or 16-bit grey levels")
            grey = (values.astype(np.int64) >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8)
            image = Image.fromarray(grey)
        return shards.encode_image(np.asarray(image.convert("RGB"))), note


def encode_instance(row: Mapping[str, Any]) -> dict[str, Any]:
    """An instance {category, mask bool (H, W), iscrowd} with its mask as COCO's compressed run lengths, box (xywh) and area."""
    rle = coco_mask.encode(np.asfortranarray(row["mask"], np.uint8))
    return {
        "category": int(row["category"]),
        "rle": rle["counts"].decode("ascii"),
        "bbox": [float(v) for v in coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle)),
        "iscrowd": bool(row["iscrowd"]),
    }


def _in_order(work: Callable[[Item], Converted], items: Sequence[Item], *, workers: int | None) -> Iterator[tuple[int, Converted]]:
    """(number done, result) for each item, in order; at most a few tasks per worker are in memory at once."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if len(items) > SMALL else 1
    if workers <= 1:
        yield from enumerate(map(work, items), 1)
        return
    done = 0
    # Spawned, not forked: this process may hold threads of cv2 and pyarrow, which do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[list[Converted]]] = deque()
        for start in range(0, len(items), ITEMS_PER_TASK):
            waiting.append(pool.submit(_work_through, work, items[start : start + ITEMS_PER_TASK]))
            while len(waiting) > 3 * workers or (start + ITEMS_PER_TASK >= len(items) and waiting):
                for result in waiting.popleft().result():
                    done += 1
                    yield done, result


def _work_through(work: Callable[[Item], Converted], items: Sequence[Item]) -> list[Converted]:
    return [work(item) for item in items]


def _write_previews(folder: Path, info: shards.DatasetInfo, *, count: int) -> None:
    (folder / "preview").mkdir()
    for split, total in info.splits.items():
        samples = shards.Split(folder, split)
        chosen = sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))})
        rows = [(samples[i].id, *samples.arrays(i)) for i in chosen]
        title = f"{info.name} · {split} · {total} samples, {len(rows)} shown"
        sheet = drawing.contact_sheet(rows, info.classes, title=title, ignore_index=info.ignore_index)
        (folder / "preview" / f"{split}.png").write_bytes(shards.encode_image(sheet))


def _plain(error: Exception) -> str:
    """The error in words, without the memory addresses that Pillow puts into some."""
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    return "no image file" if "cannot identify image file" in text else text
