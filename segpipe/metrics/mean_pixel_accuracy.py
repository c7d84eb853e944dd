"""Mean pixel accuracy: the share of each class's own pixels that are right, averaged over classes (arXiv 1411.4038)."""

import numpy as np

from segpipe.metrics._ratios import marginals, mean_of_defined, ratio

PER_CLASS = False


def compute(confusion: np.ndarray) -> np.ndarray:
    """Mean of TP_k / row_k over the classes that truth holds, (...); NaN without any pixel."""
    right, true, _ = marginals(confusion)
    return mean_of_defined(ratio(right, true))
