"""What makes two error regions alike: the numbers that `clusters` groups them by, and what the network itself saw in them.

Each kind of property is one block, scaled so that two regions drawn at random are at most 2 apart in it (squared): a block of many
columns, such as the network's features, then weighs no more than the one of a region's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from segpipe import inference
from segpipe.failures.context import Context
from segpipe.failures.grid import gather
from segpipe.failures.look import Box, Viewer, axes_of

COMPONENTS = 32
"""Principal components kept of the network's features."""
FAR = 3.0
"""Standard deviations at which a number is cut, so that one odd region does not stretch a whole column."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One kind of property of n regions: `values` float64 (n, d), centred; `named` if it says which, not how much."""

    name: str
    values: np.ndarray
    named: bool


def blocks(regions: pd.DataFrame, features: np.ndarray, *, layer: str) -> list[Block]:
    """The properties of n chosen regions: mode, class pair, size, evidence, and the network's features.

    Args:
        regions: columns mode, true, predicted, area; `margin` and all numbers named `<layer>/hirescam_*` count as evidence, and
            that a map has none (NaN) is one more of them.
        features: float (n, C), a row of NaN where they are unknown; C may be 0.

    Returns:
        The blocks in which the regions differ at all.
    """
    numbers = [name for name in regions.columns if name.startswith(f"{layer}/hirescam_") and regions[name].dtype.kind == "f"]
    numbers += ["margin"] if "margin" in regions.columns else []
    evidence = regions[numbers].to_numpy(np.float64)
    missing = np.isnan(evidence).any(axis=1, keepdims=True).astype(np.float64)
    pair = np.hstack([_one_hot(regions["true"]), _one_hot(regions["predicted"])]) / np.sqrt(2)
    found = [
        Block(name="mode", values=_one_hot(regions["mode"]), named=True),
        Block(name="classes", values=pair, named=True),
        Block(name="size", values=_standard(np.log(regions[["area"]].to_numpy(np.float64))), named=False),
        Block(name="evidence", values=_standard(np.hstack([evidence, missing])), named=False),
        Block(name="features", values=_principal(features.astype(np.float64)), named=False),
    ]
    return [
        Block(name=b.name, values=b.values - b.values.mean(axis=0), named=b.named) for b in found if np.ptp(b.values, axis=0).any()
    ]


def _one_hot(values: pd.Series) -> np.ndarray:
    """float64 (n, kinds), kinds in sorted order."""
    codes, kinds = pd.factorize(values, sort=True)
    return np.eye(len(kinds))[codes]


def _standard(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and sd 1, cut at FAR, their squares summing to about 1 per row; NaN becomes 0, constant columns go."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - np.where(known, values, 0).sum(axis=0) / count, 0)
    sd = np.sqrt((centred**2).sum(axis=0) / count)
    kept = sd > 1e-9 * np.maximum(np.abs(np.where(known, values, 0)).max(axis=0, initial=0), 1e-30)
    scaled: np.ndarray = np.clip(centred[:, kept] / sd[kept], -FAR, FAR) / np.sqrt(max(int(kept.sum()), 1))
    return scaled


def _principal(features: np.ndarray) -> np.ndarray:
    """The first COMPONENTS principal components of standardised columns, their variances summing to 1; unknown rows are 0."""
    known = np.isfinite(features).all(axis=1)
    if known.sum() < 2 or features.shape[1] == 0:
        return np.zeros((len(features), 0))
    some = features[known]
    sd = some.std(axis=0)
    # A channel that is silent on all regions, or nearly so, would otherwise be blown up to the others' size.
    kept = sd > 1e-3 * max(float(sd.max()), 1e-30)
    left, size, _ = np.linalg.svd((some[:, kept] - some[:, kept].mean(axis=0)) / sd[kept], full_matrices=False)
    scores = (left * size)[:, :COMPONENTS]
    total = float((scores**2).sum() / len(scores))
    result = np.zeros((len(features), scores.shape[1]))
    result[known] = scores / np.sqrt(total) if total > 0 else 0.0
    return result


def of_regions(context: Context, ids: Sequence[str], regions: Sequence[np.ndarray]) -> np.ndarray:
    """The pooled features float32 (n, C) of n regions bool (H, W) of the images `ids`, on the viewer's first layer."""
    found: dict[int, np.ndarray] = {}
    for name in dict.fromkeys(ids):
        numbers = [number for number, other in enumerate(ids) if other == name]
        values = pooled(context.viewer, context.arrays(name)[0], [regions[number] for number in numbers])
        found |= dict(zip(numbers, values, strict=True))
    return np.stack([found[number] for number in range(len(ids))]) if found else np.zeros((0, 0), np.float32)


class _Enough(Exception):
    """The layer has been reached; the rest of the network need not run."""


def pooled(viewer: Viewer, image: np.ndarray, regions: Sequence[np.ndarray], *, layer: str | None = None) -> np.ndarray:
    """What the network saw in each region: the mean activation of a layer (the viewer's first) over its cells.

    The network runs up to that layer only, once for all regions, unless each has its own window of a large image.

    Args:
        image: uint8 (H, W, 3).
        regions: bool (H, W) each.

    Returns:
        float32 (n, C); cells count by the share of the region that lies in them.
    """
    name = layer or next(iter(viewer.layers))
    seen = image if viewer.size is None else inference.resize_image(image, viewer.size)
    height, width = seen.shape[:2]
    boxes: dict[Box, list[int]] = {}
    for number, region in enumerate(regions):
        boxes.setdefault(viewer.box(region, (height, width)), []).append(number)
    found: dict[int, np.ndarray] = {}
    for box, numbers in boxes.items():
        part = np.ascontiguousarray(seen[box[0] : box[2], box[1] : box[3]])
        activation, given = _activation(viewer, part, viewer.layers[name])
        axes = axes_of(activation.shape[1:], given, box, grid=viewer.grids[name], image=image.shape[:2], seen=(height, width))
        for number in numbers:
            weights = gather(regions[number].astype(np.float64), rows=axes[0], columns=axes[1])
            found[number] = (activation * (weights / weights.sum())).sum(axis=(1, 2)).astype(np.float32)
    return np.stack([found[number] for number in range(len(regions))])


def _activation(viewer: Viewer, part: np.ndarray, layer: nn.Module) -> tuple[np.ndarray, tuple[int, int]]:
    """The layer's activation float32 (C, h, w) for a part of an image, and the (height, width) that the network was given."""
    kept: list[np.ndarray] = []
    given: list[tuple[int, int]] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        kept.append(output[0].float().cpu().numpy())
        raise _Enough

    handles = [layer.register_forward_hook(keep)]
    handles.append(viewer.model.register_forward_pre_hook(lambda _, x: given.append((x[0].shape[-2], x[0].shape[-1]))))
    x = inference.normalise(part, mean=viewer.mean, std=viewer.std, device=viewer.device)
    try:
        with torch.inference_mode():
            inference.forward_at_size(viewer.model, x)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return kept[0], given[0]
