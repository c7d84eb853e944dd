"""The true and the predicted pixels of one class on one image, and what surface metrics derive from them, each once.

All of it happens on the box around the two, which changes nothing: outside of it there is no pixel of either, and the box's edge
counts as their border just as the image's edge does.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from segpipe.metrics.blocks.distances import to_nearest

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPair:
    """`truth` and `prediction` are uint8 (h, w), 1 where the class is, both with at least one pixel."""

    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float] = (1.0, 1.0)
    """The distance of neighbouring pixels along rows and along columns, in the unit that distances shall have."""
    image_shape: tuple[int, int]
    """Height and width of the whole image in pixels."""

    @cached_property
    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """bool (h, w) of truth and of prediction: their pixels of which a 4-neighbour is not theirs, or is outside the image."""
        return border(self.truth), border(self.prediction)

    @cached_property
    def distances(self) -> tuple[np.ndarray, np.ndarray]:
        """From each border pixel of the truth to the nearest of the prediction, float64 (n,), and the other way, float64 (m,)."""
        truth, prediction = self.borders
        return to_nearest(truth, prediction, spacing=self.spacing), to_nearest(prediction, truth, spacing=self.spacing)

    def inner_bands(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """bool (h, w) of truth and of prediction: what `width` erosions with a 3 x 3 square take away, zeros around the image."""
        return inner_band(self.truth, width), inner_band(self.prediction, width)


def border(mask: np.ndarray) -> np.ndarray:
    """bool (h, w): the pixels of `mask` uint8 (h, w) that an erosion with a cross takes away; beyond the edge is outside."""
    eroded: np.ndarray = cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask != eroded


def inner_band(mask: np.ndarray, width: int) -> np.ndarray:
    """bool (h, w): the pixels of `mask` uint8 (h, w) within `width` steps, diagonal ones too, of a pixel that is not in it."""
    # One erosion with the larger square is the same; OpenCV does squares by rows and columns.
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    eroded: np.ndarray = cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask != eroded
