"""What every metric of label masks in segpipe/metrics must do, discovered from the folder."""

import math
from types import ModuleType

import numpy as np
import pytest

from segpipe import components, surfaces
from segpipe.metrics.blocks.mask_pair import MaskPair

_, METRICS = surfaces.split({name: components.load("metrics", name) for name in components.names("metrics")})


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> ModuleType:
    return METRICS[request.param]


def pair_of(truth: np.ndarray, prediction: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)) -> MaskPair:
    masks = [np.ascontiguousarray(mask, np.uint8) for mask in (truth, prediction)]
    return MaskPair(truth=masks[0], prediction=masks[1], spacing=spacing, image_shape=(truth.shape[0], truth.shape[1]))


@pytest.fixture
def masks() -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping blobs, the second one with a hole and a pixel far away."""
    y, x = np.indices((40, 52))
    truth = (y - 18) ** 2 + (x - 22) ** 2 < 130
    prediction = (y - 21) ** 2 + (x - 24) ** 2 < 150
    prediction[20:23, 24:26] = False
    prediction[2, 48] = True
    return truth, prediction


def test_values(metric: ModuleType, masks: tuple[np.ndarray, np.ndarray]) -> None:
    values = metric.measure(pair_of(*masks))
    assert len(values) == len(metric.KEYS) and all(type(value) is float for value in values)
    assert all(0 < value and (metric.DISTANCE or value < 1) for value in values)


def test_equal_masks_are_perfect(metric: ModuleType, masks: tuple[np.ndarray, np.ndarray]) -> None:
    for mask in masks:
        assert set(metric.measure(pair_of(mask, mask))) == {0.0 if metric.DISTANCE else 1.0}


def test_both_ways_are_the_same(metric: ModuleType, masks: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(metric.measure(pair_of(*masks)), metric.measure(pair_of(*masks[::-1])), rtol=1e-14)


def test_turned_and_mirrored_masks_score_alike(metric: ModuleType, masks: tuple[np.ndarray, np.ndarray]) -> None:
    expected = metric.measure(pair_of(*masks, spacing=(1.0, 2.5)))
    mirrored = pair_of(masks[0][::-1], masks[1][::-1], spacing=(1.0, 2.5))
    turned = pair_of(masks[0].T, masks[1].T, spacing=(2.5, 1.0))
    for pair in (mirrored, turned):
        np.testing.assert_allclose(metric.measure(pair), expected, rtol=1e-14)


def test_spacing_scales_distances_and_leaves_shares(metric: ModuleType, masks: tuple[np.ndarray, np.ndarray]) -> None:
    for spacing in ((1.0, 1.0), (1.0, 3.0)):
        once = np.array(metric.measure(pair_of(*masks, spacing=spacing)))
        scaled = np.array(metric.measure(pair_of(*masks, spacing=(0.3 * spacing[0], 0.3 * spacing[1]))))
        np.testing.assert_allclose(scaled, 0.3 * once if metric.DISTANCE else once, rtol=1e-12)


def test_a_worse_contour_scores_worse(metric: ModuleType) -> None:
    y, x = np.indices((120, 120))
    truth = (y - 60) ** 2 + (x - 60) ** 2 < 900
    near, far = ((y - 60) ** 2 + (x - 60 - shift) ** 2 < 900 for shift in (1, 12))
    better, worse = (np.array(metric.measure(pair_of(truth, mask))) for mask in (near, far))
    assert (worse > better).all() if metric.DISTANCE else (worse < better).all()


def test_one_empty_mask(metric: ModuleType) -> None:
    assert math.isnan(metric.ONE_EMPTY) if metric.DISTANCE else metric.ONE_EMPTY == 0
    full, empty = np.ones((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    for target, prediction in ((full, empty), (empty, full)):
        values = surfaces.measure(target, prediction, num_classes=3, ignore_index=255, metrics={"it": metric})
        for key in metric.KEYS:
            np.testing.assert_array_equal(values[key], [metric.ONE_EMPTY, metric.ONE_EMPTY, math.nan])


def test_no_two_files_share_a_key() -> None:
    keys = [key for metric in METRICS.values() for key in metric.KEYS]
    assert len(keys) == len(set(keys))
