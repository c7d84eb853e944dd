"""What a network looked at: it is shown an image, or a part of it, and asked for the maps of a region's two classes.

This is where a region of the image, the network's padded input and a layer's cells are brought together; the maps come back
with the axes that lay them over the image again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segpipe import inference
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures.gradcam import Activation, Target, class_activation
from segpipe.failures.grid import Axis, gather, stretched

KINDS = ("gradcam", "hirescam")
WINDOW = (1024, 1024)
"""Of images with more pixels than this, the network is shown a window of this size around each region."""
Box = tuple[int, int, int, int]
"""top, left, bottom, right; half open."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One region, bool (H, W), and the two classes whose maps are wanted."""

    region: np.ndarray
    true: int
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The maps of one region.

    `logits` are the mean logits of the true and of the predicted class over the region; `maps[layer][kind]` is float32 (2, h, w),
    true class before predicted, before the ReLU; `axes[layer]` are the rows and columns of its cells in the image; `window` is the
    part of the image that the network was shown.
    """

    logits: tuple[float, float]
    maps: dict[str, dict[str, np.ndarray]]
    axes: dict[str, tuple[Axis, Axis]]
    window: tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A network and how it sees: the layers to map and where their cells lie in its input, the scaling of its input, and the size
    that images are resized to first."""

    model: nn.Module
    layers: Mapping[str, nn.Module]
    grids: Mapping[str, CamGrid]
    mean: Sequence[float]
    std: Sequence[float]
    size: Sequence[int] | None
    device: torch.device | str

    def ask(self, image: np.ndarray, questions: Sequence[Question]) -> list[Answer]:
        """Answer all questions about one image uint8 (H, W, 3).

        One forward pass serves them all, unless the image is larger than what the network is shown at once: then each
        region has its own window around it.
        """
        seen = image if self.size is None else inference.resize_image(image, self.size)
        boxes: dict[Box, list[int]] = {}
        for number, question in enumerate(questions):
            boxes.setdefault(self.box(question.region, seen.shape[:2]), []).append(number)
        answers: dict[int, Answer] = {}
        for box, numbers in boxes.items():
            found = self._activation(seen, box, [questions[number] for number in numbers])
            axes = {
                name: axes_of(
                    maps.gradcam.shape[1:], found.given, box, grid=self.grids[name], image=image.shape[:2], seen=seen.shape[:2]
                )
                for name, maps in found.layers.items()
            }
            last = -1
            for number in numbers:
                first = last + 1
                last = first + (questions[number].true != questions[number].predicted)
                pair = [first, last]
                maps = {
                    name: {kind: getattr(layer, kind)[pair].astype(np.float32) for kind in KINDS}
                    for name, layer in found.layers.items()
                }
                true, predicted = (float(score) for score in found.scores[pair])
                window = _scaled(box, image=image.shape[:2], seen=seen.shape[:2])
                answers[number] = Answer(logits=(true, predicted), maps=maps, axes=axes, window=window)
        return [answers[number] for number in range(len(questions))]

    def box(self, region: np.ndarray, seen: tuple[int, int]) -> Box:
        """The part of the resized image that the network is shown for `region`: all of it, or a window around its middle."""
        rule = self._rule()
        if rule.fixed is not None:
            limit = (rule.fixed[0] - 2 * rule.margin, rule.fixed[1] - 2 * rule.margin)
        elif seen[0] * seen[1] > WINDOW[0] * WINDOW[1]:
            limit = WINDOW
        else:
            limit = seen
        return window_around(region, seen=seen, limit=limit)

    def _activation(self, seen: np.ndarray, box: Box, questions: Sequence[Question]) -> Activation:
        part = (slice(box[0], box[2]), slice(box[1], box[3]))
        targets = []
        for question in questions:
            weights = at_size(question.region, seen.shape[:2])[part]
            weights = weights / weights.sum()
            # Where both classes are the same one, its map is asked for once.
            targets += [Target(class_index=c, weights=weights) for c in dict.fromkeys((question.true, question.predicted))]
        x = inference.normalise(seen[part], mean=self.mean, std=self.std, device=self.device)
        return class_activation(self.model, x, layers=self.layers, targets=targets, forward=_logits)

    def _rule(self) -> InputRule:
        rule = self.model.input_rule
        assert isinstance(rule, InputRule), f"{type(self.model).__name__}.input_rule is {rule!r}"
        return rule


def window_around(region: np.ndarray, *, seen: tuple[int, int], limit: tuple[int, int]) -> Box:
    """The box of at most `limit` (height, width) around the middle of `region` bool (H, W), in the image resized to `seen`."""
    rows, columns = np.nonzero(region)
    # The middle is the region's own pixel nearest to its centroid, so that even a ring lies in its window.
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    spans = []
    for at, side, full, most in zip((rows[nearest], columns[nearest]), region.shape, seen, limit, strict=True):
        length = min(most, full)
        start = min(max(int(at * full / side) - length // 2, 0), full - length)
        spans.append((start, start + length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def axes_of(
    cells: tuple[int, ...], given: tuple[int, int], box: Box, *, grid: CamGrid, image: tuple[int, int], seen: tuple[int, int]
) -> tuple[Axis, Axis]:
    """The rows and columns of a layer's cells in the image.

    Args:
        cells: their number down and across.
        given: the (height, width) that the network was given for `box`, a part of the resized image.
        grid: where the cells lie in what it was given.
        image, seen: the (height, width) of the image, and of the image resized.
    """
    pair = []
    for i in (0, 1):
        # inference mirrors evenly on both sides, the odd pixel at the end
        before = (given[i] - (box[2 + i] - box[i])) // 2
        pair.append(
            Axis(cells=cells[i], scale=seen[i] / image[i] / grid.stride, shift=(before - box[i] - grid.start) / grid.stride)
        )
    return pair[0], pair[1]


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return inference.forward_at_size(model, x)["out"]


def at_size(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights on logits of `size` whose weighted sum is the sum over `region` of the logits upsampled to its size."""
    if region.shape == size:
        return region.astype(np.float32)
    rows, columns = (stretched(side, cells=cells) for side, cells in zip(region.shape, size, strict=True))
    return gather(region.astype(np.float32), rows=rows, columns=columns)


def _scaled(box: Box, *, image: tuple[int, int], seen: tuple[int, int]) -> tuple[slice, slice]:
    spans = [slice(box[i] * image[i] // seen[i], -(-box[2 + i] * image[i] // seen[i])) for i in (0, 1)]
    return spans[0], spans[1]
