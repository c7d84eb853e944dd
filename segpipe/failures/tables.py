"""What the errors cost: error pixels by class pair, mode and modifier, and the mIoU that each would give back if it were right.

The cost is an oracle's: set one kind of error right, leave all else, and score again (the idea of TIDE, Bolya et al. 2020,
arXiv 2008.08115, here for pixels). Costs of different kinds do not add up to the whole. Their 95 % intervals
(`cost_intervals`) are over the units of the test split: what other images of the same kind would have shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.cost_intervals import kind_intervals, pair_intervals
from segpipe.failures.modes import MODES, MODIFIERS
from segpipe.failures.selection import by_pair

MeanIou = Callable[[np.ndarray], np.ndarray]
"""Confusion counts int64 (..., K, K) to scores (...)."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """All errors of a split, twice: `regions` (columns id, true, predicted, area, mode, the modifiers), and the confusion `counts`
    int64 (N, K, K) of each image. `ids` name the N images, `units` int64 (N,) say which of them belong together."""

    regions: pd.DataFrame
    counts: np.ndarray
    ids: tuple[str, ...]
    units: np.ndarray
    seed: int

    @property
    def confusion(self) -> np.ndarray:
        total: np.ndarray = self.counts.sum(axis=0)
        return total

    @property
    def wrong(self) -> int:
        return int(self.confusion.sum() - np.trace(self.confusion))


def cost(confusion: np.ndarray, right: np.ndarray, *, mean_iou: MeanIou) -> float:
    """How much `mean_iou` rises when `right` (K, K) pixels of `confusion` move from their predicted to their true class."""
    moved = confusion - right
    moved[np.diag_indices_from(moved)] += right.sum(axis=1)
    return float(mean_iou(moved) - mean_iou(confusion))


def pair_table(books: Books, *, mean_iou: MeanIou) -> list[dict[str, Any]]:
    """One row per class pair with errors, the costliest first.

    Returns:
        Rows {true, predicted, regions, pixels, share (of all wrong pixels), of_true (share of the true class's pixels), cost,
        cost_low, cost_high}.
    """
    rows, confusion = [], books.confusion
    groups = by_pair(books.regions)
    bounds = pair_intervals(books.counts, np.array(list(groups)), units=books.units, seed=books.seed)
    for ((true, predicted), group), (low, high) in zip(groups.items(), bounds.tolist(), strict=True):
        pixels = int(group["area"].sum())
        assert pixels == confusion[true, predicted], "the regions of a class pair hold all of its wrong pixels"
        right = np.zeros_like(confusion)
        right[true, predicted] = pixels
        row: dict[str, Any] = {"true": true, "predicted": predicted, "regions": len(group), "pixels": pixels}
        row |= {"share": pixels / books.wrong, "of_true": pixels / int(confusion[true].sum())}
        rows.append(row | {"cost": cost(confusion, right, mean_iou=mean_iou), "cost_low": low, "cost_high": high})
    assert sum(row["pixels"] for row in rows) == books.wrong, "every wrong pixel lies in one region"
    return sorted(rows, key=lambda row: (-row["cost"], -row["pixels"], row["true"], row["predicted"]))


def mode_table(books: Books, *, mean_iou: MeanIou) -> list[dict[str, Any]]:
    """One row per failure mode, in the order of MODES: {mode, meaning, regions, pixels, share, cost, cost_low, cost_high}."""
    rows = _kinds(books, "mode", MODES, {mode: books.regions["mode"] == mode for mode in MODES}, mean_iou)
    assert sum(row["pixels"] for row in rows) == books.wrong, "every wrong pixel has one mode"
    return rows


def modifier_table(books: Books, *, mean_iou: MeanIou) -> list[dict[str, Any]]:
    """The same for MODIFIERS, with the key `modifier`; a region may be in several rows or in none."""
    return _kinds(books, "modifier", MODIFIERS, {name: books.regions[name] for name in MODIFIERS}, mean_iou)


def _kinds(
    books: Books, key: str, meanings: Mapping[str, str], members: Mapping[str, pd.Series], mean_iou: MeanIou
) -> list[dict[str, Any]]:
    regions, (images, classes) = books.regions, books.counts.shape[:2]
    place = {name: row for row, name in enumerate(books.ids)}
    image = np.array([place[name] for name in regions["id"]], np.int64)
    columns = {name: regions[name].to_numpy(np.int64) for name in ("true", "predicted", "area")}
    rights = np.zeros((len(members), classes, classes), np.int64)
    gained, lost = np.zeros((2, images, len(members), classes), np.int64)
    for kind, mask in enumerate(members.values()):
        i, (true, predicted, area) = image[mask], (values[mask] for values in columns.values())
        np.add.at(rights[kind], (true, predicted), area)
        np.add.at(gained[:, kind], (i, true), area)
        np.add.at(lost[:, kind], (i, predicted), area)
    bounds = kind_intervals(books.counts, gained, lost, units=books.units, seed=books.seed).tolist()
    rows: list[dict[str, Any]] = []
    for (name, mask), right, (low, high) in zip(members.items(), rights, bounds, strict=True):
        pixels = int(right.sum())
        row: dict[str, Any] = {key: name, "meaning": meanings[name], "regions": int(mask.sum()), "pixels": pixels}
        row |= {"share": pixels / books.wrong if books.wrong else 0.0}
        rows.append(row | {"cost": cost(books.confusion, right, mean_iou=mean_iou), "cost_low": low, "cost_high": high})
    return rows
