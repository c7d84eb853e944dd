"""Mean Dice coefficient over classes."""

import numpy as np

from segpipe.metrics import dice
from segpipe.metrics._ratios import mean_of_defined

PER_CLASS = False


def compute(confusion: np.ndarray) -> np.ndarray:
    """Mean of the classes' Dice, (...); classes in neither truth nor prediction are left out, NaN if that leaves none."""
    return mean_of_defined(dice.compute(confusion))
