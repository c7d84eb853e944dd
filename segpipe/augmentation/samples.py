"""One augmented sample: drawn, checked, drawn again where it came out bad, and reproducible alone from its row and its parent.

The row's `recipe` says which draw it is. Each draw's seed is `sample_seed(seed, "offline", parent id, copy, attempt)`, so that a
sample depends on the run's seed, its own id and its copy number, and on no other sample.
"""

import json
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from segpipe.augmentation.policy import Policy, build, sample_seed
from segpipe.shards import Sample, decode_image, decode_mask, encode_image, encode_mask

FALLBACK = "mirror"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a draw is bad. `attempts` bad draws in a row end in the mirrored parent.

    A class is lost when less than `keep_share` of its pixels are left; classes with fewer than `min_pixels` in the parent may go.
    Brightness and contrast are the mean and the standard deviation of the grey image in 0..1. A draw is too dark or too flat
    when it is below the limit and below half of its parent: dark parents may have dark copies.
    """

    attempts: int = 10
    keep_share: float = 0.2
    min_pixels: int = 32
    min_brightness: float = 0.08
    min_contrast: float = 0.03


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An augmented sample, the pixel count of each label value in its mask, and why earlier draws were thrown away."""

    sample: Sample
    labels: np.ndarray
    redrawn: Counter[str]
    fell_back: bool


def draw(parent: Sample, policy: Policy, *, seed: int, copy: int, ignore_index: int, limits: Limits) -> Drawn:
    """The `copy`-th augmented sample of `parent`, with the id `<parent id>~<copy>`."""
    image, mask = decode_image(parent.image), decode_mask(parent.mask)
    layers, numbers = to_layers(parent.instances, mask.shape, empty=ignore_index)
    before = label_counts(mask)
    grey_before = _grey(image)
    redrawn: Counter[str] = Counter()
    for attempt in range(limits.attempts):
        draw_seed = sample_seed(seed, "offline", parent.id, copy, attempt)
        new = policy.apply_with_layers(image, mask, layers, seed=draw_seed, ignore_index=ignore_index)
        after = label_counts(new[1])
        faults = _faults(before, after, grey_before, _grey(new[0]), ignore_index=ignore_index, limits=limits)
        if not faults:
            break
        redrawn.update(faults)
    else:
        policy, after = build(FALLBACK), before
        new = policy.apply_with_layers(image, mask, layers, seed=draw_seed, ignore_index=ignore_index)
    recipe = {
        "policy": policy.name,
        "seed": seed,
        "copy": copy,
        "attempt": attempt,
        "draw_seed": draw_seed,
        "ignore_index": ignore_index,
        **versions(),
    }
    sample = _sample(parent, new, numbers, copy=copy, recipe=recipe)
    return Drawn(sample=sample, labels=after, redrawn=redrawn, fell_back=policy.name == FALLBACK)


def reproduce(sample: Sample, *, parent: Sample) -> Sample:
    """Make an augmented `sample` again from its recipe and its parent alone.

    With the library versions that the recipe names it is equal, bytes included.

    Raises:
        ValueError: `sample` is not an augmented one, or not of this parent.
    """
    if sample.recipe is None or sample.parent != parent.id:
        raise ValueError(f"sample {sample.id!r}: its parent is {sample.parent!r}, not {parent.id!r}")
    recipe = json.loads(sample.recipe)
    image, mask = decode_image(parent.image), decode_mask(parent.mask)
    layers, numbers = to_layers(parent.instances, mask.shape, empty=recipe["ignore_index"])
    policy = build(recipe["policy"])
    new = policy.apply_with_layers(image, mask, layers, seed=recipe["draw_seed"], ignore_index=recipe["ignore_index"])
    return _sample(parent, new, numbers, copy=recipe["copy"], recipe=recipe)


@cache
def versions() -> dict[str, str]:
    """The libraries that an augmented image's exact bytes depend on."""
    return {"albumentations": version("albumentations"), "opencv": cv2.__version__}


def label_counts(mask: np.ndarray) -> np.ndarray:
    """int64 (256,) or (65536,): how many pixels have each label value."""
    return np.bincount(mask.ravel(), minlength=np.iinfo(mask.dtype).max + 1)


def to_layers(instances: list[dict[str, Any]], shape: tuple[int, ...], *, empty: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Instances as number images: uint16 (n, H, W), and for each instance its (layer, number).

    Instances that overlap go to different layers, so that nothing of them is lost; mostly one layer holds them all.
    """
    layers: list[np.ndarray] = []
    places = []
    for index, instance in enumerate(instances):
        number = index if index < empty else index + 1
        assert number < 2**16, f"{len(instances)} instances in one image"
        inside = inside_of(instance, shape)
        layer = next((i for i, taken in enumerate(layers) if (taken[inside] == empty).all()), len(layers))
        if layer == len(layers):
            layers.append(np.full(shape, empty, np.uint16))
        layers[layer][inside] = number
        places.append((layer, number))
    return (np.stack(layers) if layers else np.empty((0, *shape), np.uint16)), places


def inside_of(instance: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """bool (H, W): the pixels of one instance."""
    with warnings.catch_warnings():
        # numpy 2 warns at every decode that pycocotools' arrays lack a keyword, and then does without it.
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        return rle.decode({"size": list(shape), "counts": instance["rle"].encode()}).astype(bool)


def from_layers(instances: list[dict[str, Any]], layers: np.ndarray, places: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The instances with `rle`, `bbox` and `area` taken from number images; those that are nowhere left are gone."""
    found = []
    for instance, (layer, number) in zip(instances, places, strict=True):
        inside = layers[layer] == number
        if inside.any():
            code = rle.encode(np.asfortranarray(inside.astype(np.uint8)))
            box, area = [float(v) for v in rle.toBbox(code)], float(rle.area(code))
            found.append({**instance, "rle": code["counts"].decode(), "bbox": box, "area": area})
    return found


def _sample(
    parent: Sample,
    new: tuple[np.ndarray, np.ndarray, np.ndarray],
    places: list[tuple[int, int]],
    *,
    copy: int,
    recipe: dict[str, Any],
) -> Sample:
    image, mask, layers = new
    return replace(
        parent,
        id=f"{parent.id}~{copy}",
        # PNG, because a lossy file would not be what the policy drew; cv2's default settings are its fastest ones.
        image=encode_image(image),
        mask=encode_mask(mask),
        instances=from_layers(parent.instances, layers, places),
        parent=parent.id,
        recipe=json.dumps(recipe),
    )


def _faults(
    before: np.ndarray,
    after: np.ndarray,
    grey_before: tuple[float, float],
    grey_after: tuple[float, float],
    *,
    ignore_index: int,
    limits: Limits,
) -> list[str]:
    present = before >= limits.min_pixels
    present[ignore_index] = False
    checks = {
        "lost a class": bool((after[present] < limits.keep_share * before[present]).any()),
        "too dark": grey_after[0] < min(limits.min_brightness, grey_before[0] / 2),
        "too flat": grey_after[1] < min(limits.min_contrast, grey_before[1] / 2),
    }
    return [fault for fault, holds in checks.items() if holds]


def _grey(image: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the grey image, in 0..1."""
    mean, std = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return float(mean[0, 0]) / 255, float(std[0, 0]) / 255
