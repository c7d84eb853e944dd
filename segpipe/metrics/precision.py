"""Precision of each class: the share of the pixels predicted as the class that truly are."""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = True


def compute(confusion: np.ndarray) -> np.ndarray:
    """TP_k / column_k, (..., K); NaN for a class that was never predicted."""
    right, _, predicted = marginals(confusion)
    return ratio(right, predicted)
