"""Measures of error regions against those of their matched correct regions, with intervals over independent images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.look import KINDS
from segpipe.failures.measures import MAPS, PLACES

RESAMPLES = 1000
ALPHA = 0.05
FEWEST_UNITS = 5
"""From fewer units than this no interval is drawn: resampling so few says nothing."""
OF_A_MAP = (*PLACES, "distance", "entropy")
OF_A_PAIR = ("cosine", "spearman", "overlap", "shift")


def compare_with_controls(
    errors: pd.DataFrame, controls: pd.DataFrame, *, layers: Sequence[str], num_classes: int, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Medians of all measures over errors and over controls, and the median of their paired differences.

    The unit of chance is the image or group (column `unit`), never the region: a bootstrap draws units, each with all its regions,
    the same units for both tables; a pair goes with its error's unit. Intervals are percentile intervals at 95 %, not corrected
    for the number of measures. Two layers or kinds are drawn alike, so that they may be compared.

    Args:
        errors: explained error regions with `unit` and the columns of `evidence.columns_of`; its index is what `matched` refers to.
        controls: their correct regions, with `matched`, `unit` and the same columns.
        num_classes: `<map>_classes` hold so many shares; they are measured one by one, as `<map>_class_<k>`.

    Returns:
        {layer: {kind: {measure: {"errors": {"median", "low", "high", "n"}, "controls": the same, "difference": {"value", "low",
        "high", "n"}}}}}, `value` being the median of error less control over the n pairs that have both. NaN where undefined;
        measures that no region has are left out.
    """
    units = np.unique(np.concatenate([errors["unit"].to_numpy(np.int64), controls["unit"].to_numpy(np.int64)]))
    if not len(units):
        return {layer: {kind: {} for kind in KINDS} for layer in layers}
    of_error, of_control = (np.searchsorted(units, table["unit"].to_numpy(np.int64)) for table in (errors, controls))
    rng = np.random.default_rng([seed, 2])
    drawn = rng.integers(0, len(units), (resamples, len(units))) + len(units) * np.arange(resamples)[:, None]
    draws = np.bincount(drawn.ravel(), minlength=resamples * len(units)).reshape(resamples, len(units))
    partner = errors.index.get_indexer(pd.Index(controls["matched"]))
    assert (partner >= 0).all(), "every control is matched to an error of the table"
    result: dict[str, Any] = {}
    for layer in layers:
        result[layer] = {}
        for kind in KINDS:
            found = {}
            here = zip(
                _values(errors, f"{layer}/{kind}_", num_classes), _values(controls, f"{layer}/{kind}_", num_classes), strict=True
            )
            for (name, of_errors), (_, of_controls) in here:
                if np.isnan(of_errors).all() and np.isnan(of_controls).all():
                    continue
                difference = _summary(of_errors[partner] - of_controls, of_error[partner], draws)
                found[name] = {
                    "errors": _summary(of_errors, of_error, draws),
                    "controls": _summary(of_controls, of_control, draws),
                    "difference": {"value": difference.pop("median"), **difference},
                }
            result[layer][kind] = found
    return result


def _values(table: pd.DataFrame, prefix: str, num_classes: int) -> Iterator[tuple[str, np.ndarray]]:
    """(measure, float64 (n,)) of all measures of one layer and kind."""
    names = [f"{name}_{what}" for name in MAPS for what in OF_A_MAP]
    for name in (*names, *OF_A_PAIR):
        yield name, table[prefix + name].to_numpy(np.float64)
    for name in MAPS:
        rows = [np.asarray(row, np.float64) for row in table[f"{prefix}{name}_classes"]]
        shares = np.stack(rows) if rows else np.zeros((0, num_classes))
        for k in range(num_classes):
            yield f"{name}_class_{k}", shares[:, k]


def _summary(values: np.ndarray, units: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """The median of `values` (n,) that are defined, its bootstrap interval over `draws` (R, U) of units, and their number."""
    defined = ~np.isnan(values)
    values, units = values[defined], units[defined]
    found: dict[str, Any] = {"median": float("nan"), "low": float("nan"), "high": float("nan"), "n": len(values)}
    if len(values):
        found["median"] = float(np.median(values))
    if len(np.unique(units)) >= FEWEST_UNITS:
        order = np.argsort(values, kind="stable")
        medians = weighted_medians(values[order], draws[:, units[order]])
        found["low"], found["high"] = (float(v) for v in np.nanquantile(medians, [ALPHA / 2, 1 - ALPHA / 2]))
    return found


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 (R,): medians of ascending `values` (n,), each repeated as often as a row of `weights` int (R, n) says.

    NaN where a row is all 0.
    """
    upto = np.cumsum(weights, axis=1)
    total = upto[:, -1:]
    lower = (2 * upto >= total).argmax(axis=1)
    upper = (2 * upto > total).argmax(axis=1)
    return np.where(total[:, 0] > 0, (values[lower] + values[upper]) / 2, np.nan)
