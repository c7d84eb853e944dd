"""Streams a split through a network into everything that is known of its answers, at the resolution of the ground truth.

Networks run in float32 whatever they were trained in, so that the same weights give the same scores on every device that
computes alike, and in the channels-last layout, which is the faster one on CPUs and no slower on GPUs.

With a CRF each image is scored twice, on the labels of the network alone and on those of the CRF. The CRF sees the image at its
own resolution and needs the logits of all of it at once, so images too large for that are refused before the first is predicted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from segpipe import confusion, corruptions, surfaces
from segpipe.answers import answer, fitted_temperature
from segpipe.calibration import Calibration
from segpipe.crf_parameters import CrfParameters
from segpipe.inference import predict_labels
from segpipe.instance_scores import InstanceScores, has_things
from segpipe.shards import ClassInfo, Split
from segpipe.tiles import Tile
from segpipe.variants import Variant, declared

AHEAD = 4
"""Images decoded while the network works on another."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured on a split's N images with K classes, in the split's order; `evaluation_files.py` makes the files of it."""

    counts: np.ndarray
    """Confusion counts int64 (N, K, K), rows = truth."""
    ids: list[str]
    groups: list[str]
    seconds: np.ndarray
    """Seconds from the decoded image to its labels, per image; those of the CRF are in it."""
    class_names: list[str]
    tta: str
    tile: Tile
    metrics: Mapping[str, ModuleType]
    """Further metrics of confusion counts by name, see `results.score`."""
    crf: CrfParameters | None = None
    """What made the labels that `counts` is about out of the network's answers, if anything did."""
    network_counts: np.ndarray
    """The same counts for the network's own answers: those without CRF."""
    network_seconds: np.ndarray
    masks: dict[str, np.ndarray]
    """Metrics of label masks by key, float64 (N, K); NaN where undefined."""
    distance_unit: str
    """"mm", or "px" where a row of the split does not know its spacing."""
    trimap: np.ndarray
    """Counts int64 (R, K, K) in bands of `surfaces.TRIMAP_RADII` around the contours, summed over images."""
    calibration: Calibration
    calibration_images: int
    """Images of val that the temperature was fitted on; with 0 there is none, and it is 1."""
    instances: dict[str, Any] | None
    """`InstanceScores.document`; None where the dataset has no countable objects."""
    variants: list[Variant]
    variant_counts: np.ndarray
    """int64 (V, N, K, K): of the network's own answers."""
    variant_seconds: np.ndarray
    """float64 (V, N)."""
    seed: int


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    tta: str = "none",
    tile: Tile = "auto",
    crf: CrfParameters | None = None,
    modes: Sequence[str] = (),
    damages: Sequence[str] = (),
    val: Split | None = None,
    device: torch.device | str = "cpu",
    metrics: Mapping[str, ModuleType] | None = None,
    seed: int = 0,
    on_answer: Callable[[str, np.ndarray, np.ndarray], None] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image of `split` and measure the answers. One image is in memory at a time, and `AHEAD` decoded ones.

    Args:
        model: a network as in `segpipe/architectures`; it is moved to `device`, into channels-last and into eval mode.
        split: what it is scored on.
        classes: the K classes, names unique.
        ignore_index: true label of the pixels that do not count.
        mean, std, size, tta, tile, device: see `segpipe.inference.predict`.
        crf: refines the network's answers; both are then counted.
        modes, damages: further ways to predict the split and corruptions of its images, see `segpipe.variants.declared`.
        val: the split on which the temperature of the confidence is fitted; with None it stays as it is.
        metrics: further ones by name, modules as in `segpipe/metrics`, both kinds.
        seed: of what is drawn: corruptions, pixels of val, and resamples of the scores' intervals.
        on_answer: called with (id, labels uint8/uint16 (H, W), confidence uint8 (H, W)) of each image, in order.
        on_image: called with (images done, images in all) after each image.

    Raises:
        ValueError: the split is empty, an image is too large for the CRF, a variant is unknown, or a mask holds a label that is no
            class (the message names the image).
    """
    if not len(split):
        raise ValueError(
            f"{split.folder}: the {split.name} split is empty, and evaluation needs one. Let `stand_in` of this dataset in"
            " params.yaml say what takes its place."
        )
    names, ids = [c.name for c in classes], split.ids
    assert len(set(names)) == len(names), f"class names are not unique: {names}"
    variants = declared(modes, damages, tta=tta, tile=tile)
    of_counts, of_masks = surfaces.split(metrics or {})
    if crf is not None:
        _check_sizes(split, len(names))
    model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # torch's own signature
    ways: dict[str, Any] = {"mean": mean, "std": std, "size": size, "device": device}
    how = {**ways, "tta": tta, "tile": tile}
    counting: dict[str, Any] = {"num_classes": len(names), "ignore_index": ignore_index}
    temperature, fitted_on = fitted_temperature(model, val, tests=len(split), ignore_index=ignore_index, seed=seed, how=how)
    calibration = Calibration(temperature=temperature, ignore_index=ignore_index)
    instances = InstanceScores(classes, ignore_index=ignore_index) if has_things(classes) else None
    spacings, unit = _spacings(split)
    shape = (len(split), len(names), len(names))
    counts, network_counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    variant_counts, variant_seconds = np.zeros((len(variants), *shape), np.int64), np.zeros((len(variants), len(split)))
    masks: dict[str, np.ndarray] = {key: np.full(shape[:2], np.nan) for metric in of_masks.values() for key in metric.KEYS}
    trimap = np.zeros((len(surfaces.TRIMAP_RADII), *shape[1:]), np.int64)
    seconds, network_seconds = np.zeros(len(split)), np.zeros(len(split))
    for index, (image, mask) in enumerate(_decoded_ahead(split)):
        with _naming(split, ids[index]):
            found = answer(model, image, mask, reliability=calibration, crf=crf, how=how)
            counts[index] = confusion.count(mask, found.labels, **counting)
            network_counts[index] = counts[index] if crf is None else confusion.count(mask, found.network, **counting)
            measured = surfaces.measure(mask, found.labels, **counting, metrics=of_masks, spacing=spacings[index])
            for key, values in measured.items():
                masks[key][index] = values
            trimap += surfaces.trimap_counts(mask, found.labels, **counting)
            if instances is not None:
                instances.add(split[index].instances, mask, found.labels, found.confidence)
            for number, variant in enumerate(variants):
                labels, variant_seconds[number, index] = _predicted(model, image, variant, image_id=ids[index], seed=seed, how=ways)
                variant_counts[number, index] = confusion.count(mask, labels, **counting)
        seconds[index], network_seconds[index] = found.seconds, found.network_seconds
        if on_answer is not None:
            on_answer(ids[index], found.labels, found.confidence)
        if on_image is not None:
            on_image(index + 1, len(split))
    return Evaluation(
        counts=counts,
        ids=ids,
        groups=split.column("group"),
        seconds=seconds,
        class_names=names,
        tta=tta,
        tile=tile,
        metrics=of_counts,
        crf=crf,
        network_counts=network_counts,
        network_seconds=network_seconds,
        masks=masks,
        distance_unit=unit,
        trimap=trimap,
        calibration=calibration,
        calibration_images=fitted_on,
        instances=None if instances is None else instances.document(),
        variants=variants,
        variant_counts=variant_counts,
        variant_seconds=variant_seconds,
        seed=seed,
    )


def _predicted(
    model: nn.Module, image: np.ndarray, variant: Variant, *, image_id: str, seed: int, how: Mapping[str, Any]
) -> tuple[np.ndarray, float]:
    """The labels (H, W) of one image in another way, and the seconds from the (damaged) image to them."""
    if variant.corruption is not None:
        image = corruptions.corrupt(image, name=variant.corruption, severity=variant.severity, seed=seed, image_id=image_id)
    start = time.perf_counter()
    labels = predict_labels(model, image, tta=variant.tta, tile=variant.tile, **how)
    return labels, time.perf_counter() - start


def _spacings(split: Split) -> tuple[list[Sequence[float] | None], str]:
    """The distance of neighbouring pixels along rows and columns of each image, and its unit.

    Distances are averaged over images, so they are in millimetres only where every image knows its spacing.
    """
    found = [None if spacing is None or len(spacing) < 2 else spacing[-2:] for spacing in split.column("spacing")]
    if any(spacing is None or min(spacing) <= 0 for spacing in found):
        return [None] * len(found), "px"
    return found, "mm"


@contextmanager
def _naming(split: Split, name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{split.folder}: image {name!r} of {split.name}: {error}") from error


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
