"""Boundary IoU of each class: the IoU of what lies near the class's edge (Cheng et al. 2021, arXiv 2103.16562).

The band reaches 2 % of the image's diagonal inwards from the edge of each mask. Unlike IoU it does not forgive a bad contour
because the object is large. The reference implementation takes the smaller of this and the mask's IoU for instances only.
"""

import math

import numpy as np

from segpipe.metrics.blocks.mask_pair import MaskPair

KEYS = ("boundary_iou",)
ONE_EMPTY = 0.0
DISTANCE = False
SHARE_OF_DIAGONAL = 0.02


def band_width(image_shape: tuple[int, int]) -> int:
    """The pixels that the band reaches inwards on an image of so many rows and columns: at least 1."""
    return max(1, round(SHARE_OF_DIAGONAL * math.hypot(*image_shape)))


def measure(pair: MaskPair) -> tuple[float, ...]:
    """Overlap of the two inner bands divided by their union, 0..1. The spacing has no part in it."""
    truth, prediction = pair.inner_bands(band_width(pair.image_shape))
    return (float(np.count_nonzero(truth & prediction) / np.count_nonzero(truth | prediction)),)
