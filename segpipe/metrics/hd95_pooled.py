"""The 95 % Hausdorff distance of each class, over the distances of both directions together.

Tools differ in what they call HD95, up to a factor of two on the same masks (Podobnik and Vrtovec 2024, arXiv 2410.02630), so the
name says which one this is: that of MedPy. `hd95_directed_max` is MONAI's.
"""

import math

import numpy as np

from segpipe.metrics.blocks.mask_pair import MaskPair

KEYS = ("hd95_pooled",)
ONE_EMPTY = math.nan
DISTANCE = True


def measure(pair: MaskPair) -> tuple[float, ...]:
    """The 95th percentile, linear between neighbours, of the distances from each border pixel to the other mask's border."""
    return (float(np.percentile(np.concatenate(pair.distances), 95)),)
