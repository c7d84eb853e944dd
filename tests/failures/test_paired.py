"""Errors against their controls: medians, intervals over units, paired differences."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures.look import KINDS
from segpipe.failures.measures import MAPS
from segpipe.failures.paired import OF_A_MAP, OF_A_PAIR, compare_with_controls, weighted_medians


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.integers(0, 10**6))
def test_weighted_medians_are_medians_of_repeated_values(values: list[float], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 4, (6, len(values)))
    found = weighted_medians(np.sort(values), weights)
    for one, row in zip(found, weights, strict=True):
        repeated = np.repeat(np.sort(values), row)
        assert np.isnan(one) if not len(repeated) else one == pytest.approx(np.median(repeated))


def table(rng: np.random.Generator, units: np.ndarray, shift: float) -> pd.DataFrame:
    columns: dict[str, object] = {"unit": units}
    names = [*(f"{name}_{what}" for name in MAPS for what in OF_A_MAP), *OF_A_PAIR]
    for kind in KINDS:
        columns |= {f"pool/{kind}_{name}": rng.normal(size=len(units)) for name in names}
        for name in MAPS:
            columns[f"pool/{kind}_{name}_classes"] = [np.array([0.25, np.nan], np.float32) for _ in units]
    columns["pool/hirescam_predicted_near"] = rng.normal(shift, 1, len(units))
    return pd.DataFrame(columns)


def compare(errors: pd.DataFrame, controls: pd.DataFrame) -> dict:
    return compare_with_controls(errors, controls, layers=["pool"], num_classes=2, seed=0)["pool"]["hirescam"]


def test_a_difference_that_is_there_is_found() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 2)
    errors, controls = table(rng, units, 2.0), table(rng, units, 0.0)
    errors.index = np.arange(80) * 3 + 5
    controls["matched"] = errors.index
    controls = controls.iloc[::-1].iloc[:70]
    found = compare(errors, controls)
    near = found["predicted_near"]
    assert near["errors"]["n"] == 80 and near["controls"]["n"] == near["difference"]["n"] == 70
    assert near["errors"]["median"] == np.median(errors["pool/hirescam_predicted_near"])
    paired = errors.loc[controls["matched"], "pool/hirescam_predicted_near"].to_numpy()
    assert near["difference"]["value"] == np.median(paired - controls["pool/hirescam_predicted_near"].to_numpy())
    assert 1 < near["difference"]["low"] < 2 < near["difference"]["high"] < 3
    same = found["cosine"]["difference"]
    assert same["low"] < 0 < same["high"]
    assert found["true_class_0"]["errors"] == {"median": 0.25, "low": 0.25, "high": 0.25, "n": 80}
    assert "true_class_1" not in found, "what no region has is left out"


def test_regions_of_one_image_are_one_piece_of_evidence() -> None:
    """Eight copies of each region in its own image narrow nothing."""
    rng = np.random.default_rng(1)
    single = table(rng, np.arange(20), 1.0)
    copies = single.loc[single.index.repeat(8)].reset_index(drop=True)
    widths = []
    for errors in (single, copies):
        controls = errors.copy()
        controls["matched"] = errors.index
        near = compare(errors, controls)["predicted_near"]
        widths.append(near["errors"]["high"] - near["errors"]["low"])
        assert near["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": len(errors)}
    assert widths[1] == pytest.approx(widths[0], abs=0.35) and widths[1] > 0.5 * widths[0]


def test_few_images_give_no_interval_and_none_gives_nothing() -> None:
    errors = table(np.random.default_rng(2), np.array([0, 0, 1]), 0.0)
    controls = errors.iloc[:1].assign(matched=[2])
    near = compare(errors, controls)["predicted_near"]
    assert near["errors"]["n"] == 3 and np.isnan(near["errors"]["low"]) and not np.isnan(near["errors"]["median"])
    assert compare(errors, controls.iloc[:0])["predicted_near"]["difference"]["n"] == 0
    empty = compare_with_controls(errors.iloc[:0], controls.iloc[:0], layers=["pool"], num_classes=2, seed=0)
    assert empty == {"pool": {kind: {} for kind in KINDS}}
