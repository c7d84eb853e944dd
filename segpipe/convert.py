"""Any source layout becomes the one format: Arrow shards, dataset.json, audit.json and contact sheets.

Samples are decoded, checked and re-encoded in worker processes and written in the order of the scan, so the bytes of the result do
not depend on the number of workers. Everything is written to a temporary sibling that replaces the old folder only when the
whole source has been read without an error.
"""

import json
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segpipe import class_map, drawing, shards
from segpipe.audit import Audit, AuditError, check_ids
from segpipe.dataset_checks import Images, check_classes, check_groups, check_images
from segpipe.folders import put
from segpipe.items import Converted, Load, Rules, convert_item
from segpipe.layout import Item, Scan
from segpipe.splits import assign, stand_in
from segpipe.statistics import DatasetStatistics
from segpipe.workers import end_with_parent

ITEMS_PER_TASK = 8
SMALL = 200
"""Up to this many samples, starting processes takes longer than it saves."""
TASKS_PER_WORKER = 3
"""Tasks in memory at once for each worker: decoded results that wait for their turn to be written."""


def convert(
    raw: Path,
    out: Path,
    *,
    name: str,
    scan: Scan,
    load: Load,
    splits: Mapping[str, Any] | None = None,
    stand_ins: Mapping[str, Mapping[str, Any]] | None = None,
    classes: Mapping[str, Any] | None = None,
    severities: Mapping[str, str] | None = None,
    complete: bool = True,
    workers: int | None = None,
    previews: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[shards.DatasetInfo, Audit]:
    """Write the dataset `scan` found in `raw` to the folder `out`, replacing it.

    `load` decodes one item in any process. `splits` is a rule of `segpipe.splits.assign`, None for the official ones; `stand_ins`
    settles missing splits (see `segpipe.splits.stand_in`), and a split may be empty only if not `complete`; `classes` is a class
    map (see `segpipe.class_map`); `severities` gives kinds of finding another severity. `workers` is the number of processes, all
    cores if None. `previews` is the number of samples on each contact sheet. `progress(done, total)` is called after each sample.

    Raises:
        AuditError: the data holds errors; all of them are listed and `out` is left as it was.
        ValueError: a rule is malformed or names what is not there, or a split is missing and nothing stands in for it.
    """
    audit = Audit(name, severities=severities)
    scan, categories = class_map.apply(scan, classes or {}, where=f"datasets.{name}.class_map")
    for fault in scan.faults:
        audit.add_fault(fault)
    items, rule = assign(scan.items, splits, name=name, audit=audit)
    items, settled = stand_in(items, stand_ins or {}, name=name, audit=audit, complete=complete)
    check_ids(audit, ((item.id, item.source) for item in items))
    check_groups(audit, items)
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        rules = Rules(
            labels=scan.labels,
            class_names=tuple(c.name for c in scan.classes),
            categories=categories,
            ignore_index=scan.ignore_index,
            colours=scan.colours,
            dimensions=scan.dimensions,
        )
        ordered = [item for split in shards.SPLITS for item in items if item.split == split]
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if len(ordered) > SMALL else 1
        results = _in_order(partial(convert_item, load=load, rules=rules), ordered, workers=workers)
        told = raw / "provenance.json"
        provenance = json.loads(told.read_text()) if told.exists() else {}
        provenance |= {"splits": rule, "stand_in": settled, "class_map": dict(classes or {})}
        info = _write(temporary, results, ordered, name=name, scan=scan, audit=audit, provenance=provenance, progress=progress)
        if audit.errors:
            raise AuditError(name, audit, info.statistics)
        if complete and not all(info.splits.values()):
            raise ValueError(f"{name}: of {info.splits} samples could be used; every split needs one. See the warnings: {audit}")
        audit.write(temporary / "audit.json")
        if info.dimensions == 2:
            _write_previews(temporary, info, count=previews, threads=workers)
        shards.write_info(temporary, info)
        put(temporary, out)
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
    statistics = DatasetStatistics([c.name for c in scan.classes])
    images = Images()
    for split in shards.SPLITS:
        with shards.SplitWriter(folder, split) as writer:
            for _ in range(sum(item.split == split for item in items)):
                done, result = next(results)
                for fault, value in result.faults:
                    audit.add_fault(fault, value=value, picture=result.picture)
                if result.sample is not None:
                    assert result.statistics is not None
                    writer.write(result.sample, image_digest=result.digest)
                    statistics.add(split, result.statistics)
                    images.add(result.sample, split, writer.count - 1, digest=result.digest, fingerprint=result.fingerprint)
                    reencoded.update([result.reencoded] if result.reencoded else [])
                if progress is not None:
                    progress(done, len(items))
            counts[split], digests[split] = writer.count, writer.close()
    pixels = {split: statistics.pixels(split) for split in shards.SPLITS}
    check_classes(audit, scan, pixels, counts)
    if scan.dimensions == 2:
        check_images(audit, images, folder)
    summary = statistics.summary()
    mean, std = statistics.mean_and_std("train")
    return shards.DatasetInfo(
        name=name,
        classes=scan.classes,
        ignore_index=scan.ignore_index,
        task=scan.task,
        dimensions=scan.dimensions,
        splits=counts,
        pixels=pixels,
        mean=mean,
        std=std,
        provenance=provenance | {"reencoded": dict(sorted(reencoded.items()))},
        digest=shards.dataset_digest(digests, scan.classes),
        statistics=summary,
    )


def _in_order(work: Callable[[Item], Converted], items: Sequence[Item], *, workers: int) -> Iterator[tuple[int, Converted]]:
    """(number done, result) for each item, in order; at most a few tasks per worker are in memory at once."""
    if workers <= 1:
        yield from enumerate(map(work, items), 1)
        return
    done = 0
    # Spawned, not forked: this process may hold threads of cv2 and pyarrow, which do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start) as pool:
        waiting: deque[tuple[Sequence[Item], Future[list[Converted]]]] = deque()
        for start in range(0, len(items), ITEMS_PER_TASK):
            task = items[start : start + ITEMS_PER_TASK]
            waiting.append((task, pool.submit(_work_through, work, task)))
            while len(waiting) > TASKS_PER_WORKER * workers or (start + ITEMS_PER_TASK >= len(items) and waiting):
                task, future = waiting.popleft()
                for item, result in zip(task, future.result(), strict=True):
                    done += 1
                    yield done, _with_image(result, item)


def _start() -> None:
    end_with_parent()
    cv2.setNumThreads(1)  # the processes are the parallelism; cv2's threads would contend for the same cores


def _work_through(work: Callable[[Item], Converted], items: Sequence[Item]) -> list[Converted]:
    """The results; an image that is its source's file to the byte is left out, as reading it again is cheaper than a pipe."""
    results = [work(item) for item in items]
    for item, result in zip(items, results, strict=True):
        sample = result.sample
        if sample is not None and item.image.is_file() and item.image.read_bytes() == sample.image:
            result.sample = replace(sample, image=b"")
    return results


def _with_image(result: Converted, item: Item) -> Converted:
    if result.sample is not None and not result.sample.image:
        result.sample = replace(result.sample, image=item.image.read_bytes())
    return result


def _write_previews(folder: Path, info: shards.DatasetInfo, *, count: int, threads: int) -> None:
    (folder / "preview").mkdir()

    def write(split: str) -> None:
        samples = shards.Split(folder, split)
        chosen = sorted({int(i) for i in np.linspace(0, len(samples) - 1, min(count, len(samples)))})
        rows = [(samples[i].id, *samples.arrays(i)) for i in chosen]
        title = f"{info.name} · {split} · {len(samples)} samples, {len(rows)} shown"
        sheet = drawing.contact_sheet(rows, info.classes, title=title, ignore_index=info.ignore_index)
        (folder / "preview" / f"{split}.png").write_bytes(shards.encode_image(sheet))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, [split for split, total in info.splits.items() if total]))
