"""Division that knows "undefined", for the metrics beside it."""

import numpy as np


def marginals(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(right, true, predicted): per class the counts that are right, that truth holds, and that were predicted; each (..., K)."""
    confusion = np.asarray(confusion)
    assert confusion.ndim >= 2 and confusion.shape[-1] == confusion.shape[-2], f"{confusion.shape} is not (..., K, K)"
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1), confusion.sum(axis=-2)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; NaN where `whole` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
