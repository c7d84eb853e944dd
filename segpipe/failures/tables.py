"""What the errors cost: error pixels by class pair and by mode, and the mIoU that each would give back if it were right.

The cost is an oracle's: set one kind of error right, leave all else, and score again (the idea of TIDE, Bolya et al. 2020,
arXiv 2008.08115, here for pixels). Costs of different kinds do not add up to the whole.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.modes import MODES
from segpipe.failures.selection import by_pair

MeanIou = Callable[[np.ndarray], np.ndarray]
"""Confusion counts int64 (..., K, K) to scores (...)."""


def cost(confusion: np.ndarray, right: np.ndarray, *, mean_iou: MeanIou) -> float:
    """How much `mean_iou` rises when `right` (K, K) pixels of `confusion` move from their predicted to their true class."""
    moved = confusion - right
    moved[np.diag_indices_from(moved)] += right.sum(axis=1)
    return float(mean_iou(moved) - mean_iou(confusion))


def pair_table(regions: pd.DataFrame, *, confusion: np.ndarray, mean_iou: MeanIou) -> list[dict[str, Any]]:
    """One row per class pair with errors, the costliest first.

    Args:
        regions: columns true, predicted, area: all error regions of the split.
        confusion: int64 (K, K) of the split, rows = truth.

    Returns:
        Rows {true, predicted, regions, pixels, share (of all wrong pixels), of_true (share of the true class's pixels), cost}.
    """
    wrong = int(confusion.sum() - np.trace(confusion))
    rows = []
    for (true, predicted), group in by_pair(regions).items():
        pixels = int(group["area"].sum())
        assert pixels == confusion[true, predicted], "the regions of a class pair hold all of its wrong pixels"
        right = np.zeros_like(confusion)
        right[true, predicted] = pixels
        row: dict[str, Any] = {"true": true, "predicted": predicted, "regions": len(group), "pixels": pixels}
        row |= {"share": pixels / wrong, "of_true": pixels / int(confusion[true].sum())}
        rows.append(row | {"cost": cost(confusion, right, mean_iou=mean_iou)})
    assert sum(row["pixels"] for row in rows) == wrong, "every wrong pixel lies in one region"
    return sorted(rows, key=lambda row: (-row["cost"], -row["pixels"], row["true"], row["predicted"]))


def mode_table(regions: pd.DataFrame, *, confusion: np.ndarray, mean_iou: MeanIou) -> list[dict[str, Any]]:
    """One row per failure mode, in the order of MODES: {mode, meaning, regions, pixels, share, cost}."""
    wrong = int(confusion.sum() - np.trace(confusion))
    rows: list[dict[str, Any]] = []
    for mode, meaning in MODES.items():
        group = regions[regions["mode"] == mode]
        right = np.zeros_like(confusion)
        np.add.at(right, (group["true"].to_numpy(), group["predicted"].to_numpy()), group["area"].to_numpy())
        pixels = int(right.sum())
        row: dict[str, Any] = {"mode": mode, "meaning": meaning, "regions": len(group), "pixels": pixels}
        rows.append(row | {"share": pixels / wrong if wrong else 0.0, "cost": cost(confusion, right, mean_iou=mean_iou)})
    assert sum(row["pixels"] for row in rows) == wrong, "every wrong pixel has one mode"
    return rows
