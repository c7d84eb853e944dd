"""Pixel accuracy: the share of all pixels that are right. Large classes decide it (Long et al. 2015, arXiv 1411.4038)."""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = False


def compute(confusion: np.ndarray) -> np.ndarray:
    """sum_k TP_k / N, (...); NaN without any pixel."""
    right, true, _ = marginals(confusion)
    return ratio(right.sum(axis=-1), true.sum(axis=-1))
