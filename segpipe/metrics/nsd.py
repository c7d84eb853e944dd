"""Normalised surface distance of each class, also called surface Dice, at a few tolerances (Nikolov et al. 2018, arXiv 1809.04430).

Borders are pixels, as in MONAI's default; DeepMind's own code weighs parts of contours between pixels and differs by about 1 %.
"""

import numpy as np

from segpipe.metrics.blocks.mask_pair import MaskPair

TOLERANCES = (1, 2, 5)
"""In pixels; where the spacing differs between rows and columns, pixels of the finer one."""
KEYS = tuple(f"nsd_tau{tolerance}px" for tolerance in TOLERANCES)
ONE_EMPTY = 0.0
DISTANCE = False
ROUNDING = 1e-9


def measure(pair: MaskPair) -> tuple[float, ...]:
    """Per tolerance the share of the border pixels of both masks that lie within it of the other's border, 0..1."""
    forth, back = pair.distances
    limits = [tolerance * min(pair.spacing) * (1 + ROUNDING) for tolerance in TOLERANCES]
    within = [np.count_nonzero(forth <= limit) + np.count_nonzero(back <= limit) for limit in limits]
    return tuple(float(count / (forth.size + back.size)) for count in within)
