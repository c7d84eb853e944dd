"""IoU averaged over classes with each class's share of the true pixels as its weight (Long et al. 2015, arXiv 1411.4038)."""

import numpy as np

from segpipe.metrics import iou
from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = False


def compute(confusion: np.ndarray) -> np.ndarray:
    """sum_k row_k / N * IoU_k, (...); NaN without any pixel. A class that truth lacks has no weight."""
    _, true, _ = marginals(confusion)
    weighted = np.where(true > 0, true * iou.compute(confusion), 0.0)
    return ratio(weighted.sum(axis=-1), true.sum(axis=-1))
