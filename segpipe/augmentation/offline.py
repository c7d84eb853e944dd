"""Offline augmentation: new training samples on disk, in the dataset format, made by all cores.

Every sample is a function of its parent, the seed and its copy number (`samples.py`), and samples are written in the order
of their parents, so that the files are byte for byte the same for any number of workers.
"""

import json
import multiprocessing
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from segpipe import drawing
from segpipe.augmentation.policy import build
from segpipe.augmentation.samples import Drawn, Limits, draw, label_counts, versions
from segpipe.folders import put
from segpipe.shards import (
    DatasetInfo,
    Split,
    SplitWriter,
    dataset_digest,
    decode_mask,
    encode_image,
    read_info,
    write_info,
)
from segpipe.workers import end_with_parent

PARENTS_PER_JOB = 4
PREVIEW_PARENTS, PREVIEW_COPIES = 6, 2


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `augment` did. It holds no times: equal inputs give equal files."""

    dataset: str
    policy: str
    copies: int
    seed: int
    parents: int
    samples: int
    redrawn: dict[str, int]
    """How many draws were thrown away, by reason; a draw with two reasons counts in both."""
    fallbacks: list[str]
    """Ids of samples whose draws were all bad; these are the mirrored parent."""
    balance: dict[str, dict[str, float]]
    """Each class's share of the labelled pixels: `before` in the parents, `after` in the augmented samples."""


def augment(
    converted: Path,
    out: Path,
    *,
    policy: str,
    copies: int,
    seed: int,
    workers: int = 1,
    limits: Limits | None = None,
) -> Report:
    """Write `copies` augmented samples of each training sample of the dataset `converted` to the folder `out`.

    `out` gets train-*.arrow, dataset.json (same classes, mean and std; the digest of its own content; the parent's digest in
    `provenance`), report.json and, where there are samples, preview.png. It appears at once and complete, or not at all.

    Args:
        converted: a finished dataset folder; only its train split is read.
        out: the folder to write; an earlier dataset there is replaced.
        policy: see `policy.build`. With `none`, or with 0 copies, the train split is empty.
        copies: samples per parent, 0 or more; they are numbered from 1.
        seed: decides every draw.
        workers: processes; they change the speed, never the result.
        limits: when a draw is bad and drawn again.

    Raises:
        ValueError: an argument is out of range, `out` is something else than a dataset, or a sample cannot be decoded.
    """
    converted, out, limits = Path(converted), Path(out), limits or Limits()
    info = read_info(converted)
    _check(copies >= 0, "copies", copies, "0 or more")
    _check(workers >= 1, "workers", workers, "1 or more")
    _check(limits.attempts >= 1, "attempts", limits.attempts, "1 or more")
    _check(0 <= limits.keep_share <= 1, "keep_share", limits.keep_share, "between 0 and 1")
    if build(policy).name == "none":
        copies = 0
    if copies and info.dimensions != 2:
        raise ValueError(f"{converted}: {info.dimensions}-dimensional images; policy {policy!r} needs 2. Use policy none.")
    if out.exists() and any(out.iterdir()) and not (out / "dataset.json").exists():
        raise ValueError(f"{out}: holds files that are no dataset, so it is not replaced. Remove it or choose another folder.")
    temporary = out.parent / f".{out.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    maker = _Maker(converted, policy=policy, copies=copies, seed=seed, ignore_index=info.ignore_index, limits=limits)
    try:
        report = _write(temporary, maker, info, workers=workers)
        if report.samples:
            sheet = _preview(maker.split, Split(temporary, "train"), info=info, report=report)
            (temporary / "preview.png").write_bytes(encode_image(sheet))
        (temporary / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
        put(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write(folder: Path, maker: "_Maker", info: DatasetInfo, *, workers: int) -> Report:
    """Write the train split and dataset.json into `folder`."""
    before, after = np.zeros(2**16, np.int64), np.zeros(2**16, np.int64)
    redrawn: Counter[str] = Counter()
    fallbacks = []
    with SplitWriter(folder, "train") as writer:
        for labels, drawn in _made(maker, workers=workers):
            before[: len(labels)] += labels
            for one in drawn:
                writer.write(one.sample)
                after[: len(one.labels)] += one.labels
                redrawn.update(one.redrawn)
                fallbacks += [one.sample.id] if one.fell_back else []
        digest = writer.close()
    before, after = before[: info.num_classes], after[: info.num_classes]
    nothing = [0] * info.num_classes
    write_info(
        folder,
        replace(
            info,
            splits={"train": writer.count, "val": 0, "test": 0},
            pixels={"train": after.tolist(), "val": nothing, "test": nothing},
            digest=dataset_digest({"train": digest}, info.classes),
            provenance={
                "augmented_from": {"name": info.name, "digest": info.digest, "provenance": info.provenance},
                "policy": maker.policy.name,
                "copies": maker.copies,
                "seed": maker.seed,
                "limits": asdict(maker.limits),
                **versions(),
            },
        ),
    )
    shares = [counts / max(counts.sum(), 1) for counts in (before, after)]
    return Report(
        dataset=info.name,
        policy=maker.policy.name,
        copies=maker.copies,
        seed=maker.seed,
        parents=len(maker.split),
        samples=writer.count,
        redrawn=dict(sorted(redrawn.items())),
        fallbacks=fallbacks,
        balance={name: {"before": float(shares[0][i]), "after": float(shares[1][i])} for i, name in enumerate(info.class_names)},
    )


def _preview(parents: Split, samples: Split, *, info: DatasetInfo, report: Report) -> np.ndarray:
    """A contact sheet, uint8 (h, w, 3): some parents, evenly spread, each beside its first copies."""
    shown = min(report.copies, PREVIEW_COPIES)
    rows = []
    for index in sorted({round(i) for i in np.linspace(0, len(parents) - 1, PREVIEW_PARENTS)}):
        rows.append((parents[index].id, *parents.arrays(index)))
        for row in range(index * report.copies, index * report.copies + shown):
            rows.append((samples[row].id, *samples.arrays(row)))
    title = f"{info.name}: training images and their augmented copies, policy {report.policy}"
    return drawing.contact_sheet(rows, info.classes, title=title, ignore_index=info.ignore_index, columns=1 + shown)


class _Maker:
    """Makes the augmented samples of any parent, in any process."""

    def __init__(self, converted: Path, *, policy: str, copies: int, seed: int, ignore_index: int, limits: Limits) -> None:
        self.split, self.policy = Split(converted, "train"), build(policy)
        self.copies, self.seed, self.ignore_index, self.limits = copies, seed, ignore_index, limits

    def make(self, index: int) -> tuple[np.ndarray, list[Drawn]]:
        """The label counts of parent number `index`, and its copies."""
        parent = self.split[index]
        try:
            labels = label_counts(decode_mask(parent.mask))
            return labels, [
                draw(parent, self.policy, seed=self.seed, copy=copy, ignore_index=self.ignore_index, limits=self.limits)
                for copy in range(1, self.copies + 1)
            ]
        except ValueError as error:
            raise ValueError(f"{self.split.folder}, train sample {parent.id!r}: {error}") from error


_worker: _Maker | None = None


def _start(maker: _Maker) -> None:
    global _worker
    end_with_parent()
    cv2.setNumThreads(1)
    _worker = maker


def _make(indices: range) -> list[tuple[np.ndarray, list[Drawn]]]:
    assert _worker is not None
    return [_worker.make(index) for index in indices]


def _made(maker: _Maker, *, workers: int) -> Iterator[tuple[np.ndarray, list[Drawn]]]:
    """The results of `maker.make` for all parents, in order."""
    count = len(maker.split)
    jobs = [range(start, min(start + PARENTS_PER_JOB, count)) for start in range(0, count, PARENTS_PER_JOB)]
    workers = min(workers, len(jobs)) if maker.copies else 1
    if workers <= 1:
        for index in range(count):
            yield maker.make(index)
        return
    # A fork server imports the libraries once for all workers; forking this process instead could copy a lock that one of
    # its threads holds.
    context = multiprocessing.get_context("forkserver")
    modules = ["segpipe.augmentation.offline"] + ["segpipe.augmentation.transforms"] * maker.policy.uses_transforms
    context.set_forkserver_preload(modules)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(maker,)) as pool:
        waiting: deque[Future[list[tuple[np.ndarray, list[Drawn]]]]] = deque()
        # No more than a few jobs ahead of the writer, so that the memory held does not grow with the dataset.
        for job in jobs:
            waiting.append(pool.submit(_make, job))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _check(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r} must be {rule}")
