"""What every step of a failure analysis is handed: the images, what was predicted for them, and the network."""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from segpipe.failures.look import Viewer
from segpipe.shards import Split

KEPT = 8
"""Decoded images that `Context.arrays` keeps, the last ones asked for."""
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""image uint8 (H, W, 3), target and prediction labels (H, W)."""


class Predictions(Protocol):
    """Predicted label maps (H, W) by image id, such as `segpipe.results.read_predictions` returns; a dict is one too."""

    def __getitem__(self, name: str, /) -> np.ndarray: ...


@runtime_checkable
class Confident(Protocol):
    """Predictions that know how sure the network was."""

    def confidence(self, name: str, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """One model and one split. `units` int64 (N,): the independent unit of each image, from `resampling.units_of`.

    `predictions` fit `split` (one label map per image, at its size), and `seed` is the analysis', from which each step derives
    its own random numbers.
    """

    split: Split
    predictions: Predictions
    viewer: Viewer
    class_names: tuple[str, ...]
    ignore_index: int
    units: np.ndarray
    seed: int
    _kept: OrderedDict[str, Arrays] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The row of each image id in `split`."""
        return {name: row for row, name in enumerate(self.split.ids)}

    def arrays(self, name: str) -> Arrays:
        """image uint8 (H, W, 3), target (H, W) and prediction (H, W) of one id.

        The last `KEPT` stay decoded: do not write to them.
        """
        if name in self._kept:
            self._kept.move_to_end(name)
        else:
            image, target = self.split.arrays(self.positions[name])
            self._kept[name] = (image, target, self.predictions[name])
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[name]

    def confidence(self, name: str) -> np.ndarray | None:
        """The predicted class's probability, uint8 (H, W) = round(255 * p), or None where predictions do not hold it."""
        if not isinstance(self.predictions, Confident):
            return None
        try:
            return self.predictions.confidence(name)
        except ValueError:  # an evaluation may be written without
            return None
