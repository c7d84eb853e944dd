"""The 95 % Hausdorff distance of each class, the larger one of the two directions, as MONAI defines it. See `hd95_pooled`."""

import math

import numpy as np

from segpipe.metrics.blocks.mask_pair import MaskPair

KEYS = ("hd95_directed_max",)
ONE_EMPTY = math.nan
DISTANCE = True


def measure(pair: MaskPair) -> tuple[float, ...]:
    """The 95th percentile of the distances from truth to prediction or from prediction to truth, whichever is larger."""
    return (max(float(np.percentile(distances, 95)) for distances in pair.distances),)
