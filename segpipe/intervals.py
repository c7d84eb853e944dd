"""Intervals from bootstrap draws: Efron's percentile and BCa ones, both beside each other, corrected for few units.

Which of the two stands on the pages is `compare.interval` in params.yaml; how often each covers the truth was simulated
(`benchmarks/simulate_comparison.py`, its numbers are in docs/simulations.md), and the better one is the default.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

METHODS = ("percentile", "bca")
HEADLINE_METHOD = "percentile"
"""The default of `compare.interval`: the one that covered better in the simulation."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far the choice of test images moves a number: its interval by the chosen method, both intervals, and the sd of the draws.

    All NaN where the number, or every draw of it, is undefined.
    """

    low: float
    high: float
    percentile: tuple[float, float]
    bca: tuple[float, float]
    sd: float


def spread(draws: np.ndarray, value: float, jackknife: np.ndarray, *, alpha: float, method: str = HEADLINE_METHOD) -> Spread:
    """What bootstrap draws (R,) of `value`, and its values without each of the units (U,), say of it at level 1 - alpha.

    Undefined draws are left out; both intervals have the correction of `widened` for so many units.
    """
    draws = draws[~np.isnan(draws)]
    if math.isnan(value) or not draws.size:
        return Spread(low=math.nan, high=math.nan, percentile=(math.nan,) * 2, bca=(math.nan,) * 2, sd=math.nan)
    rate = widened(alpha, len(jackknife))
    found = {"percentile": percentile(draws, alpha=rate), "bca": bca(draws, value, jackknife, alpha=rate)}
    low, high = found[method]
    return Spread(low=low, high=high, **found, sd=float(draws.std(ddof=1)) if len(draws) > 1 else 0.0)


def percentile(draws: np.ndarray, *, alpha: float) -> tuple[float, float]:
    """The percentile interval of bootstrap draws (R,) at level 1 - alpha (Efron 1979)."""
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def bca(draws: np.ndarray, value: float, jackknife: np.ndarray, *, alpha: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval at level 1 - alpha (Efron 1987; Efron and Tibshirani 1993, chapter 14.3).

    `draws` (R,) are of the number whose `value` on all units is known; `jackknife` (U,) are its values without each unit, NaN
    left out. The bias z0 comes from the share of draws below `value` (ties count half), the acceleration from the skewness of
    `jackknife`; where that has no spread it is 0. Where all draws lie on one side of `value`, half a draw is taken to lie on
    the other. An end whose formula leaves 0..1 is the most extreme draw.
    """
    below = (np.count_nonzero(draws < value) + np.count_nonzero(draws <= value)) / (2 * len(draws))
    bias = special.ndtri(min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws)))
    left = jackknife[~np.isnan(jackknife)]
    influence = left.mean() - left if left.size else np.zeros(1)
    scale = float((influence**2).sum()) ** 1.5
    # Below this the differences are those of rounding.
    acceleration = float((influence**3).sum()) / (6 * scale) if scale > 1e-36 else 0.0
    ends = []
    quantile = special.ndtri(alpha / 2)
    for step in (bias + quantile, bias - quantile):
        stretch = 1 - acceleration * step
        ends.append(float(special.ndtr(bias + step / stretch)) if stretch > 0 else float(step > 0))
    low, high = np.quantile(draws, ends)
    return float(low), float(high)


def widened(alpha: float, units: int) -> float:
    """The error rate to ask of a bootstrap interval over few units so that it covers 1 - alpha; `alpha` itself for one unit.

    Draws from n units spread less than new test sets do, by sqrt((n - 1) / n), and the sd itself is uncertain, as in Student's
    t: Hesterberg's "expanded" intervals ("What teachers should know about the bootstrap", 2015, arXiv 1411.5279).
    """
    if units < 2:
        return alpha
    tail = special.ndtr(math.sqrt(units / (units - 1)) * special.stdtrit(units - 1, alpha / 2))
    return max(2 * float(tail), 1e-300)  # whose quantile is still a number


def over_seeds(scores: np.ndarray, *, alpha: float) -> tuple[float, float]:
    """Student's interval of the mean score over all seeds, from the scores (S,) of at least two, cut to 0..1 where scores lie."""
    half = -float(special.stdtrit(len(scores) - 1, alpha / 2)) * float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
    return max(0.0, float(scores.mean() - half)), min(1.0, float(scores.mean() + half))
