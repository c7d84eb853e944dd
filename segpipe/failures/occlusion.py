"""Does the network use what a map of a segment shows outside it? That is hidden, and the class's logit in the segment is watched.

The deletion game of RISE (Petsiuk et al. 2018, arXiv 1806.07421) on the surroundings of a segment, which itself is never touched.
As in `deletion.py` the rival is the same map moved elsewhere, and the network sees a part of the image around the segment, half as
high and wide: that is a quarter of the cost.
"""

import math

import numpy as np
import torch

from segpipe import inference
from segpipe.failures.grid import Axis, spread
from segpipe.failures.look import Viewer, at_size, window_around

HIDDEN = (0.2,)
"""Shares of the cells outside that are hidden, most salient first. Each more costs half a forward pass per segment."""
PART, CELLS = 0.5, 6
"""The part is this share of the image's sides, and at least this many cells of the layer."""
AWAY = 0.25
"""The rival map is moved by at least this share of a side."""
MOSTLY = 0.5
"""A cell of which the segment fills this share is no place outside it."""


def deletion_score(
    viewer: Viewer,
    image: np.ndarray,
    region: np.ndarray,
    saliency: np.ndarray,
    axes: tuple[Axis, Axis],
    *,
    stride: float,
    index: int,
    rng: np.random.Generator,
) -> float:
    """How much lower the mean logit of class `index` over the segment is when the salient cells outside are hidden than when those
    of the moved map are: the mean over HIDDEN, as a share (-1..1) of the range of all logits seen. 0 if none of them moves it.

    Cells are replaced by the part's mean colour, with soft edges (bilinear between cells).

    Args:
        image: uint8 (H, W, 3).
        region: bool (H, W), the segment.
        saliency: float (h, w) >= 0 on the layer's cells.
        axes: their rows and columns in the image.
        stride: a cell's side in pixels that the network sees.
    """
    seen = image if viewer.size is None else inference.resize_image(image, viewer.size)
    height, width = seen.shape[:2]
    limit = tuple(max(math.ceil(PART * side), math.ceil(CELLS * stride)) for side in (height, width))
    box = window_around(region, seen=(height, width), limit=(limit[0], limit[1]))
    part = np.ascontiguousarray(seen[box[0] : box[2], box[1] : box[3]])
    weights = at_size(region, (height, width))[box[0] : box[2], box[1] : box[3]]
    inside = weights >= weights.max() / 2
    rows, columns = (_moved(axis, box[i], image.shape[i] / seen.shape[i]) for i, axis in enumerate(axes))
    whole = [_within(axis, part.shape[i]) for i, axis in enumerate((rows, columns))]
    cells = saliency[np.ix_(*whole)]
    filled = _filled(inside, rows, columns)[np.ix_(*whole)]
    free = np.flatnonzero(filled.ravel() < MOSTLY)
    if not len(free) or cells.size < 4:
        return float("nan")
    ties = rng.random(cells.size)
    holes = []
    for values in (cells, np.roll(cells, _shift(cells.shape, rng), axis=(0, 1))):
        order = free[np.lexsort((ties[free], -values.ravel()[free]))]
        for share in HIDDEN:
            mask = np.zeros(cells.size)
            mask[order[: max(1, round(share * len(free)))]] = 1
            full = np.zeros(saliency.shape)
            full[np.ix_(*whole)] = mask.reshape(cells.shape)
            holes.append(spread(full, rows=rows, columns=columns, size=(part.shape[0], part.shape[1])) * ~inside)
    logits = _mean_logits(viewer, part, inside, np.stack([np.zeros_like(holes[0]), *holes]), index)
    span = float(logits.max() - logits.min())
    own, other = logits[1 : 1 + len(HIDDEN)].mean(), logits[1 + len(HIDDEN) :].mean()
    return float((other - own) / span) if span > 0 else 0.0


def _mean_logits(viewer: Viewer, part: np.ndarray, inside: np.ndarray, holes: np.ndarray, index: int) -> np.ndarray:
    """float64 (n,): the mean logit over `inside` with each of the holes (n, h, w) in 0..1."""
    x = inference.normalise(part, mean=viewer.mean, std=viewer.std, device=viewer.device)
    colour = x.mean(dim=(2, 3), keepdim=True)
    hole = torch.from_numpy(holes).to(x)[:, None]
    with torch.inference_mode():
        logits = inference.forward_at_size(viewer.model, x * (1 - hole) + colour * hole)["out"][:, index]
        means = (logits * torch.from_numpy(inside / inside.sum()).to(x)).sum(dim=(1, 2))
    found: np.ndarray = means.double().cpu().numpy()
    return found


def _moved(axis: Axis, start: int, factor: float) -> Axis:
    """The axis for a part that starts at `start` of the image as seen, one pixel of which is `factor` pixels of the image."""
    return Axis(cells=axis.cells, scale=axis.scale * factor, shift=axis.shift + axis.scale * factor * start)


def _within(axis: Axis, size: int) -> np.ndarray:
    """The cells whose middle lies in the part."""
    centres = axis.centres()
    return np.flatnonzero((centres >= 0) & (centres < size))


def _filled(inside: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """(h, w): how much of each cell `inside` bool (H, W) fills."""
    sums = [axis.weights(inside.shape[i]) for i, axis in enumerate((rows, columns))]
    weights = sums[0].T @ inside @ sums[1]
    filled: np.ndarray = weights / np.maximum(np.outer(sums[0].sum(axis=0), sums[1].sum(axis=0)), 1e-9)
    return filled


def _shift(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """A shift on the torus of (h, w) cells, at least AWAY of a side in one direction."""
    far = [(y, x) for y in range(shape[0]) for x in range(shape[1]) if _away(y, shape[0]) or _away(x, shape[1])]
    return far[int(rng.integers(len(far)))]


def _away(shift: int, side: int) -> bool:
    return min(shift, side - shift) >= max(AWAY * side, 1)
