"""Recall of each class: the share of the class's true pixels that were found."""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = True


def compute(confusion: np.ndarray) -> np.ndarray:
    """TP_k / row_k, (..., K); NaN for a class that truth lacks."""
    right, true, _ = marginals(confusion)
    return ratio(right, true)
