"""Do maps show what the network uses? What a map marks is taken out of the image first, and the class's logit must fall faster.

The deletion game of RISE (Petsiuk et al. 2018, arXiv 1806.07421) for a region of a segmentation: the score is the mean logit of a
class over the region, and the rival is a random order of the same cells. The game needs a filling that does not itself speak for
the class: where an object was missed, whatever replaces it looks even more like the background that was predicted. So of the
region's two classes the one is played whose logit falls more when the whole image is filled, and where neither falls there is
no game. Neither choice looks at a map.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from segpipe import inference
from segpipe.failures.grid import Axis, spread
from segpipe.failures.look import Question, Viewer

REMOVED = (0.06, 0.15, 0.4, 0.6)
"""Shares of the cells that are taken out, most salient first."""
BATCH_PIXELS = 2**18


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The area under the curve of the logit, for the map's order and for a random one.

    Each is the mean over REMOVED of the logit, as a share (0..1) of the range that the logits of both orders, of the intact and
    of the filled image span: smaller is better.
    """

    ordered: float
    random: float


def delete(
    viewer: Viewer,
    image: np.ndarray,
    question: Question,
    maps: Mapping[str, np.ndarray],
    axes: tuple[Axis, Axis],
    *,
    rng: np.random.Generator,
) -> dict[str, Deletion]:
    """Delete the cells of each map, largest first, and watch the mean logit of its class over the region.

    A cell is replaced by the image's mean colour, with a soft edge (bilinear between cells). All maps have the same rival. Empty
    where there is no game.

    Args:
        image: uint8 (H, W, 3), at the resolution that the network sees; `question` is about it.
        maps: by name, those of the true and of the predicted class (2, h, w).
        axes: the rows and columns of the cells in the image.
    """
    rows, columns = axes
    size = (image.shape[0], image.shape[1])
    pair = (question.true, question.predicted)
    ends = _mean_logits(viewer, image, question.region, np.stack([np.zeros(size), np.ones(size)]))[:, pair]
    played = int(np.argmax(ends[0] - ends[1]))
    if not ends[0, played] > ends[1, played]:
        return {}
    cells = np.flatnonzero(_inside(rows, size[0])[:, None] & _inside(columns, size[1]))
    orders = [cells[rng.permutation(len(cells))]]
    for values in maps.values():
        # Equal values, such as the zeros of a local map, go in random order.
        drawn = rng.permutation(len(cells))
        orders.append(cells[drawn[np.argsort(-values[played].ravel()[cells[drawn]], kind="stable")]])
    masks = np.zeros((len(orders), len(REMOVED), rows.cells * columns.cells))
    for number, order in enumerate(orders):
        for step, share in enumerate(REMOVED):
            masks[number, step, order[: max(1, round(share * len(cells)))]] = 1
    holes = spread(masks.reshape(-1, rows.cells, columns.cells), rows=rows, columns=columns, size=size)
    logits = _mean_logits(viewer, image, question.region, holes)[:, pair[played]]
    random, *ordered = np.split(logits, len(orders))
    return {name: _areas(own, random, ends[:, played]) for name, own in zip(maps, ordered, strict=True)}


def _areas(own: np.ndarray, random: np.ndarray, ends: np.ndarray) -> Deletion:
    every = np.concatenate([own, random, ends])
    span = float(np.ptp(every)) or 1.0
    return Deletion(ordered=float((own - every.min()).mean() / span), random=float((random - every.min()).mean() / span))


def _mean_logits(viewer: Viewer, image: np.ndarray, region: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """float64 (n, K): the mean logits over the region for each of the holes (n, H, W) in 0..1."""
    x = inference.normalise(image, mean=viewer.mean, std=viewer.std, device=viewer.device)
    colour = x.mean(dim=(2, 3), keepdim=True)
    weights = torch.from_numpy(region / region.sum()).to(x)
    step = max(1, BATCH_PIXELS // region.size)
    found = []
    with torch.inference_mode():
        for start in range(0, len(holes), step):
            hole = torch.from_numpy(holes[start : start + step]).to(x)[:, None]
            logits = inference.forward_at_size(viewer.model, x * (1 - hole) + colour * hole)["out"]
            found.append((logits * weights).sum(dim=(2, 3)).double().cpu().numpy())
    return np.concatenate(found)


def _inside(axis: Axis, size: int) -> np.ndarray:
    centres = axis.centres()
    return (centres >= 0) & (centres < size)
