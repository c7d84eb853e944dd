"""Dice coefficient of each class, which is the F1 score of its pixels (Dice 1945)."""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = True


def compute(confusion: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), (..., K); NaN for a class in neither truth nor prediction, 0 for one that is only predicted."""
    right, true, predicted = marginals(confusion)
    return ratio(2 * right, true + predicted)
