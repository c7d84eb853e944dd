"""Do maps show what the network uses? What a map marks is taken out of the image first, and the class's logit must fall faster.

The deletion game of RISE (Petsiuk et al. 2018, arXiv 1806.07421) for a region of a segmentation: the score is the mean logit of
the class over the region, and the rival is a random order of the same cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from segpipe import inference
from segpipe.failures.grid import Axis, spread
from segpipe.failures.look import Viewer

REMOVED = (0.06, 0.15, 0.4, 0.6)
"""Shares of the cells that are taken out, most salient first."""
BATCH_PIXELS = 2**18


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The area under the curve of the logit, for the map's order and for a random one.

    Each is the mean over REMOVED of the logit, as a share (0..1) of the range that the logits of both orders and of the intact
    image span: smaller is better.
    """

    ordered: float
    random: float


def delete(
    viewer: Viewer,
    image: np.ndarray,
    region: np.ndarray,
    saliencies: Mapping[str, np.ndarray],
    axes: tuple[Axis, Axis],
    *,
    index: int,
    rng: np.random.Generator,
) -> dict[str, Deletion]:
    """Delete the cells of each map (h, w) of `saliencies`, largest first, and watch the mean logit of class `index` over `region`.

    A cell is replaced by the image's mean colour, with a soft edge (bilinear between cells). All maps have the same rival.

    Args:
        image: uint8 (H, W, 3), at the resolution that the network sees.
        region: bool (H, W).
        axes: the rows and columns of the cells in the image.
    """
    rows, columns = axes
    size = (image.shape[0], image.shape[1])
    cells = np.flatnonzero(_inside(rows, size[0])[:, None] & _inside(columns, size[1]))
    orders = [cells[rng.permutation(len(cells))]]
    for values in saliencies.values():
        # Equal values, such as the zeros of a local map, go in random order.
        drawn = rng.permutation(len(cells))
        orders.append(cells[drawn[np.argsort(-values.ravel()[cells[drawn]], kind="stable")]])
    masks = np.zeros((1 + len(orders) * len(REMOVED), rows.cells * columns.cells))
    for number, order in enumerate(orders):
        for step, share in enumerate(REMOVED):
            masks[1 + number * len(REMOVED) + step, order[: max(1, round(share * len(cells)))]] = 1
    holes = spread(masks.reshape(-1, rows.cells, columns.cells), rows=rows, columns=columns, size=size)
    intact, *logits = np.split(
        _mean_logits(viewer, image, region, holes, index), [1 + i * len(REMOVED) for i in range(len(orders))]
    )
    random, *ordered = logits
    return {name: _areas(own, random, intact) for name, own in zip(saliencies, ordered, strict=True)}


def _areas(own: np.ndarray, random: np.ndarray, intact: np.ndarray) -> Deletion:
    every = np.concatenate([own, random, intact])
    span = float(np.ptp(every)) or 1.0
    return Deletion(ordered=float((own - every.min()).mean() / span), random=float((random - every.min()).mean() / span))


def _mean_logits(viewer: Viewer, image: np.ndarray, region: np.ndarray, holes: np.ndarray, index: int) -> np.ndarray:
    """float64 (n,): the mean logit over the region for each of the holes (n, H, W) in 0..1."""
    x = inference.normalise(image, mean=viewer.mean, std=viewer.std, device=viewer.device)
    colour = x.mean(dim=(2, 3), keepdim=True)
    weights = torch.from_numpy(region / region.sum()).to(x)
    step = max(1, BATCH_PIXELS // region.size)
    found = []
    with torch.inference_mode():
        for start in range(0, len(holes), step):
            hole = torch.from_numpy(holes[start : start + step]).to(x)[:, None]
            logits = inference.forward_at_size(viewer.model, x * (1 - hole) + colour * hole)["out"]
            found.append((logits[:, index] * weights).sum(dim=(1, 2)).double().cpu().numpy())
    return np.concatenate(found)


def _inside(axis: Axis, size: int) -> np.ndarray:
    centres = axis.centres()
    return (centres >= 0) & (centres < size)
