"""Intersection over union of each class, the Jaccard index (PASCAL VOC, Everingham et al. 2010)."""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = True


def compute(confusion: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN), (..., K); NaN for a class in neither truth nor prediction, 0 for one that is only predicted."""
    right, true, predicted = marginals(confusion)
    return ratio(right, true + predicted - right)
