"""Streams a split through a network into per-image confusion counts, at the resolution of the ground truth.

Networks run in float32 whatever they were trained in, so that the same weights give the same scores on every device that
computes alike, and in the channels-last layout, which is the faster one on CPUs and no slower on GPUs.

With a CRF each image is scored twice, on the labels of the network alone and on those of the CRF. The CRF sees the image at its
own resolution and needs the logits of all of it at once, so images too large for that are refused before the first is predicted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import nn

from segpipe import confusion, results
from segpipe.crf_parameters import CrfParameters
from segpipe.inference import Tile, predict, predict_labels
from segpipe.shards import Split

AHEAD = 4
"""Images decoded while the network works on another."""
PRINTED_CLASSES = 24
"""Up to this many classes the drawn confusion matrix has its numbers in its cells."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a split's images scored: counts int64 (N, K, K), rows = truth; the N ids, groups and seconds in the split's order."""

    counts: np.ndarray
    ids: list[str]
    groups: list[str]
    seconds: np.ndarray
    """Seconds from the decoded image to its labels, per image; those of the CRF are in it."""
    class_names: list[str]
    tta: str
    tile: Tile
    metrics: Mapping[str, ModuleType]
    """Further metrics by name, see `results.score`."""
    crf: CrfParameters | None = None
    """What made the labels that `counts` is about out of the network's answers, if anything did."""
    counts_without_crf: np.ndarray | None = None
    """The same counts for the network's answers; None where there is no CRF."""

    @property
    def scores(self) -> dict[str, Any]:
        """The content of scores.json. `seconds_per_image` is the median, which the slower first image does not move.

        With a CRF all scores are those of its labels, and `crf`, `miou_without_crf` and `crf_gain` say what it made of them.
        """
        scores = {
            **results.score(self.counts, class_names=self.class_names, metrics=self.metrics),
            "seconds_per_image": float(np.median(self.seconds)),
            "tta": self.tta,
            "tile": self.tile if isinstance(self.tile, str) else list(self.tile),
        }
        if self.counts_without_crf is None:
            return scores
        before, after = results.score(self.counts_without_crf, class_names=self.class_names)["miou"], scores["miou"]
        gain = None if before is None or after is None else after - before
        return {**scores, "crf": str(self.crf), "miou_without_crf": before, "crf_gain": gain}


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    class_names: Sequence[str],
    ignore_index: int,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    tta: str = "none",
    tile: Tile = "auto",
    crf: CrfParameters | None = None,
    device: torch.device | str = "cpu",
    metrics: Mapping[str, ModuleType] | None = None,
    on_labels: Callable[[str, np.ndarray], None] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image of `split` and count its confusions. One image is in memory at a time, and `AHEAD` decoded ones.

    Args:
        model: a network as in `segpipe/architectures`; it is moved to `device`, into channels-last and into eval mode.
        split: what it is scored on.
        class_names: the K classes, unique.
        ignore_index: true label of the pixels that do not count.
        mean, std, size, tta, tile, device: see `segpipe.inference.predict`.
        crf: refines the network's answers; both are then counted.
        metrics: further ones to score with, by name, modules as in `segpipe/metrics`.
        on_labels: called with (id, predicted labels uint8/uint16 (H, W)) of each image, in order.
        on_image: called with (images done, images in all) after each image.

    Raises:
        ValueError: the split is empty, an image is too large for the CRF, or a mask holds a label that is no class (the message
            names the image).
    """
    if not len(split):
        raise ValueError(
            f"{split.folder}: the {split.name} split is empty, and evaluation needs one. Let `stand_in` of this dataset in"
            " params.yaml say what takes its place."
        )
    names = list(class_names)
    assert len(set(names)) == len(names), f"class names are not unique: {names}"
    model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # torch's own signature
    ids, groups = split.ids, split.column("group")
    if crf is not None:
        _check_sizes(split, len(names))
    counts = [np.zeros((len(split), len(names), len(names)), np.int64) for _ in range(1 if crf is None else 2)]
    how: dict[str, Any] = {"mean": mean, "std": std, "size": size, "tta": tta, "tile": tile, "device": device}
    seconds = np.zeros(len(split))
    for index, (image, mask) in enumerate(_decoded_ahead(split)):
        start = time.perf_counter()
        answers = [predict_labels(model, image, **how)] if crf is None else _with_crf(predict(model, image, **how), image, crf)
        seconds[index] = time.perf_counter() - start
        try:
            for table, labels in zip(counts, answers, strict=True):
                table[index] = confusion.count(mask, labels, num_classes=len(names), ignore_index=ignore_index)
        except ValueError as error:
            raise ValueError(f"{split.folder}: image {ids[index]!r} of {split.name}: {error}") from error
        if on_labels is not None:
            on_labels(ids[index], answers[0])
        if on_image is not None:
            on_image(index + 1, len(split))
    return Evaluation(
        counts=counts[0],
        ids=ids,
        groups=groups,
        seconds=seconds,
        class_names=names,
        tta=tta,
        tile=tile,
        metrics=metrics or {},
        crf=crf,
        counts_without_crf=None if crf is None else counts[1],
    )


def write_evaluation(folder: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Write the files of `evaluations/<experiment>/`, all but the predictions (`results.PredictionWriter`); return the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    counts, ids, groups = evaluation.counts, evaluation.ids, evaluation.groups
    results.write_counts(folder, counts, ids=ids, groups=groups)
    results.write_per_image(folder, results.per_image_table(counts, ids=ids, groups=groups, seconds=evaluation.seconds))
    draw_confusion(counts.sum(axis=0), class_names=evaluation.class_names, path=folder / results.DRAWING)
    results.write_scores(folder, evaluation.scores)
    return evaluation.scores


def draw_confusion(counts: np.ndarray, *, class_names: Sequence[str], path: Path) -> None:
    """Draw summed counts int64 (K, K) as a PNG: each row in per cent of its true pixels, the pixel count below.

    One hue from light to dark, readable in any colour vision and in print; the scale is a square root, so that rare confusions
    show. A class that truth lacks has a grey row.
    """
    true = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, true, out=np.full(counts.shape, np.nan), where=true > 0)
    classes, printed = len(class_names), len(class_names) <= PRINTED_CLASSES
    side = min(2.4 + (0.78 if printed else 0.16) * classes, 24.0)
    figure = Figure(figsize=(side + 1.2, side), layout="compressed", dpi=110)
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    drawn = axes.imshow(100 * share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    small = 8 if printed else 5
    axes.set_xticks(range(classes), class_names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small + 1)
    axes.set_yticks(range(classes), class_names, fontsize=small + 1)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    for row, column in np.ndindex(counts.shape) if printed else ():
        if counts[row, column]:
            text = f"{100 * share[row, column]:.1f}\n{_short(int(counts[row, column]))}"
            colour = "white" if share[row, column] > 0.3 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1 if printed else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    scale = figure.colorbar(
        drawn, ax=axes, shrink=0.8, aspect=30, label="% of the true pixels", ticks=[0, 1, 5, 10, 25, 50, 75, 100]
    )
    scale.outline.set_visible(False)  # type: ignore[operator]  # a Spine, whatever the stubs say
    # Without the version of matplotlib in it, the file depends on the counts alone.
    figure.savefig(path, metadata={"Software": None})


def _with_crf(logits: np.ndarray, image: np.ndarray, crf: CrfParameters) -> list[np.ndarray]:
    """The labels (H, W) of one image with the CRF and without, from its logits float32 (K, H, W)."""
    from segpipe.crf import mean_field  # here, as its compiler takes a third of a second to import

    kind = np.uint8 if len(logits) <= 254 else np.uint16
    return [values.argmax(axis=0).astype(kind) for values in (mean_field(logits, image, **asdict(crf)), logits)]


def _check_sizes(split: Split, classes: int) -> None:
    """Raise ValueError for the first image that is too large for the CRF."""
    from segpipe.crf import check_size

    for name, height, width in zip(split.ids, split.column("height"), split.column("width"), strict=True):
        try:
            check_size(classes, height, width)
        except ValueError as error:
            raise ValueError(
                f"{split.folder}: image {name!r} of {split.name}: {error}. Let `evaluate.crf` in params.yaml be none, or make the"
                " dataset's images smaller."
            ) from error


def _decoded_ahead(split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(image, mask) of each row in order; threads decode the next ones meanwhile (OpenCV lets go of the interpreter)."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        for index in range(len(split)):
            waiting.append(pool.submit(split.arrays, index))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _short(number: int) -> str:
    """1234567 as 1.2M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
