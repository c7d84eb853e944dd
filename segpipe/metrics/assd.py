"""The average symmetric surface distance of each class, over the border pixels of both masks together (MedPy, MONAI)."""

import math

from segpipe.metrics.blocks.mask_pair import MaskPair

KEYS = ("assd",)
ONE_EMPTY = math.nan
DISTANCE = True


def measure(pair: MaskPair) -> tuple[float, ...]:
    """The mean distance from a border pixel of one mask to the border of the other. The mask with more border counts more."""
    forth, back = pair.distances
    return (float((forth.sum() + back.sum()) / (forth.size + back.size)),)
