"""Which of many attributes go with an outcome: one permutation test for all, in which the items of a unit stay together.

Each permutation hands every unit (an image) the items' attributes of another unit, and leaves outcomes where they are. So the items
of one unit may depend on each other as they like, in their outcomes and in their attributes. Where units hold different numbers
of items the other's are taken in turn, from any of them on. An attribute's statistic is the largest over its cells of the
standardised sum of outcomes (a maximally selected statistic, Lausen and Schumacher 1992, Biometrics 48): looking at many cuts
costs power and not honesty. Besag and Clifford's early stop (1991, Biometrika 78) saves the draws on hopeless attributes.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

DRAWS = 999
"""Permutations of a round."""
ROUNDS = 10
ENOUGH = 10
"""An attribute whose statistic so many draws of the first round reached is drawn no further."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """For P outcomes and each attribute, (P, attributes): two-sided p (NaN where the attribute has no cell), the signed
    standardised statistic, and the cell where it is largest (-1 for none)."""

    p: np.ndarray
    strength: np.ndarray
    best: np.ndarray


def permutation_test(
    residuals: np.ndarray,
    cells: np.ndarray,
    attribute: np.ndarray,
    units: np.ndarray,
    *,
    attributes: int,
    seed: int,
    rounds: int = ROUNDS,
) -> Tested:
    """Test each outcome against each attribute.

    Args:
        residuals: (n, P) outcomes of n items less what is expected of them; they sum to zero.
        cells: float32 (n, C), 1 where an item lies in the cell.
        attribute: int (C,), the attribute 0..attributes - 1 that each cell belongs to.
        units: (n,) the independent unit of each item, sorted.
        rounds: of DRAWS permutations each; p is at least 1 / (1 + rounds * DRAWS).
    """
    assert (np.diff(units) >= 0).all(), "sorted by unit"
    r, count = residuals.astype(np.float32), residuals.shape[1]
    starts = np.append(np.flatnonzero(np.diff(units, prepend=units[0] - 1)), len(units)).astype(np.int64)
    rng = np.random.default_rng([seed, 101])
    first = _draw(r, cells, starts, rng)
    # Each item is as likely to be handed any unit's attributes, and the residuals sum to zero: so do the expected statistics.
    spread = np.maximum(np.sqrt((first.astype(np.float64) ** 2).mean(axis=1)), 1e-6)
    scores = residuals.T @ cells / spread
    best, strength = np.full((count, attributes), -1), np.zeros((count, attributes))
    for a in np.unique(attribute):
        mine = np.flatnonzero(attribute == a)
        best[:, a] = mine[np.abs(scores[:, mine]).argmax(axis=1)]
        strength[:, a] = scores[np.arange(count), best[:, a]]
    reached, draws = _reached(first, spread, attribute, strength), np.full((count, attributes), DRAWS)
    going = np.zeros(attributes, bool)
    for a in np.unique(attribute):
        going[a] = bool((reached[:, a] < ENOUGH).any())
    some = going[attribute]
    for _ in range(1, rounds if some.any() else 1):
        drawn = _draw(r, cells[:, some], starts, rng)
        reached += _reached(drawn, spread[:, some], attribute[some], strength)
        draws[:, going] += DRAWS
    p = (1 + reached) / (1 + draws)
    return Tested(p=np.where(best < 0, np.nan, p), strength=strength, best=best)


def _reached(drawn: np.ndarray, spread: np.ndarray, attribute: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """How many draws (P, DRAWS, C) reach the observed strength, per outcome and attribute."""
    scores = np.abs(drawn / spread[:, None])
    result = np.zeros(strength.shape, np.int64)
    for a in np.unique(attribute):
        # Equal sums, added up in another order, differ in their last bits: they count as reached.
        result[:, a] = (scores[:, :, attribute == a].max(axis=2) >= np.abs(strength[:, a])[:, None] - 1e-4).sum(axis=1)
    return result


def _draw(r: np.ndarray, cells: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 (P, DRAWS, C): the statistics r.T @ cells after as many permutations."""
    orders = rng.permuted(np.tile(np.arange(len(starts) - 1, dtype=np.int32), (DRAWS, 1)), axis=1)
    drawn = np.empty((r.shape[1], DRAWS, cells.shape[1]), np.float32)
    for outcome, result in zip(r.T, drawn, strict=True):
        moved = np.zeros((DRAWS, len(r)), np.float32)
        _move(np.ascontiguousarray(outcome), starts, orders, moved)
        np.matmul(moved, cells, out=result)
    return drawn


@njit(cache=True, nogil=True)
def _move(outcome: np.ndarray, starts: np.ndarray, orders: np.ndarray, moved: np.ndarray) -> None:
    """Add each item's outcome to the item whose attributes it is handed: moved (DRAWS, n)."""
    for d in range(len(orders)):
        for u in range(len(starts) - 1):
            v = orders[d, u]
            length = starts[v + 1] - starts[v]
            for i in range(starts[u], starts[u + 1]):
                moved[d, starts[v] + (i - starts[u] + d + u) % length] += outcome[i]
