"""Accuracy of each class against the rest: the share of all pixels on which "is it this class?" is answered rightly.

Rare classes score near 1 whatever the model does, and a class in neither truth nor prediction scores exactly 1, since every pixel
of it is a true negative. Read it beside IoU and do not average it.
"""

import numpy as np

from segpipe.metrics._ratios import marginals, ratio

PER_CLASS = True


def compute(confusion: np.ndarray) -> np.ndarray:
    """(TP_k + TN_k) / N, (..., K); NaN without any pixel."""
    right, true, predicted = marginals(confusion)
    total = true.sum(axis=-1, keepdims=True)
    return ratio(total - true - predicted + 2 * right, total)
