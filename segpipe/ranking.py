"""How firm an order of models is: would other test images of the same kind rank them alike?"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What resampled test sets say of an order. `probabilities` is float64 (M, M): row = model, column = rank, best first.

    `first_stays` is the share of draws in which the first model is first; `kendall_tau` the mean over draws of Kendall's rank
    correlation with the order (1 = the same, -1 = reversed). Both are 1 for one model.
    """

    probabilities: np.ndarray
    first_stays: float
    kendall_tau: float


def ranking(draws: np.ndarray) -> Ranking:
    """The stability of the order of models under draws (M, R) of their scores, all on the same resampled test sets.

    The rows are in the order in question, best first. Models that tie in a draw share its ranks evenly. Draws in which a score
    is undefined are left out.
    """
    draws = draws[:, ~np.isnan(draws).any(axis=0)]
    models, count = draws.shape
    assert count, "no draw in which every model has a score"
    above = np.array([(draws > row).sum(axis=0) for row in draws])
    equal = np.array([(draws == row).sum(axis=0) for row in draws])
    ranks = np.arange(models)
    probabilities = np.array(
        [[(((rank >= above[m]) & (rank < above[m] + equal[m])) / equal[m]).mean() for rank in ranks] for m in range(models)]
    )
    first, second = np.triu_indices(models, 1)
    kept = np.sign(draws[first] - draws[second]).mean() if len(first) else 1.0
    return Ranking(probabilities=probabilities, first_stays=float(probabilities[0, 0]), kendall_tau=float(kept))
