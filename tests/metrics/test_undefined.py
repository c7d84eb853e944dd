"""The decisions about absent classes: what is NaN, what is 0, and what the means leave out."""

import numpy as np

from segpipe.metrics import (
    class_accuracy,
    dice,
    frequency_weighted_iou,
    iou,
    mean_dice,
    mean_iou,
    mean_pixel_accuracy,
    precision,
)

# Class 1 is only predicted, class 2 only in truth, class 3 in neither.
COUNTS = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]])


def test_per_class() -> None:
    np.testing.assert_array_equal(iou.compute(COUNTS), [6 / 12, 0, 0, np.nan])
    np.testing.assert_array_equal(dice.compute(COUNTS), [12 / 18, 0, 0, np.nan])
    np.testing.assert_array_equal(precision.compute(COUNTS), [6 / 10, 0, np.nan, np.nan])
    np.testing.assert_array_equal(class_accuracy.compute(COUNTS), [6 / 12, 10 / 12, 8 / 12, 1])


def test_means() -> None:
    assert mean_iou.compute(COUNTS) == (6 / 12) / 3
    np.testing.assert_allclose(mean_dice.compute(COUNTS), (12 / 18) / 3)
    # Only classes that truth holds: a class that is merely predicted has no recall.
    assert mean_pixel_accuracy.compute(COUNTS) == (6 / 8 + 0) / 2
    np.testing.assert_allclose(frequency_weighted_iou.compute(COUNTS), 8 / 12 * 6 / 12)
