"""Error regions against scipy, and the books they keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segpipe import confusion
from segpipe.failures import modes
from segpipe.failures.regions import boundary_radius, connected, error_regions
from tests.failures.networks import blobs

EIGHT = np.ones((3, 3), int)
IGNORE = 255


def pair(seed: int, height: int, width: int, classes: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = blobs(rng, size=(height, width), classes=classes, cell=cell)
    prediction = np.where(rng.random((height, width)) < 0.5, target, blobs(rng, size=(height, width), classes=classes, cell=cell))
    target[rng.random((height, width)) < 0.05] = IGNORE
    return target, prediction.astype(np.uint8)


cases = st.builds(pair, st.integers(0, 10**6), st.integers(1, 18), st.integers(1, 18), st.integers(2, 5), st.integers(1, 6))


@settings(max_examples=30, deadline=None)
@given(cases)
def test_the_regions_are_scipys_pair_by_pair_and_hold_every_wrong_pixel(case: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = case
    labels, table = error_regions(target, prediction=prediction, num_classes=5, ignore_index=IGNORE)
    wrong = (target != prediction) & (target != IGNORE)
    np.testing.assert_array_equal(labels > 0, wrong)
    counts = confusion.count(target, prediction, num_classes=5, ignore_index=IGNORE)
    assert table["area"].sum() == counts.sum() - np.trace(counts)
    found = 0
    for true in range(5):
        for predicted in range(5):
            mask = wrong & (target == true) & (prediction == predicted)
            theirs, number = ndimage.label(mask, EIGHT)
            found += number
            for i in range(1, number + 1):
                mine = np.unique(labels[theirs == i])
                assert len(mine) == 1
                assert (labels == mine[0]).sum() == (theirs == i).sum()
                row = int(mine[0]) - 1
                assert (table["true"][row], table["predicted"][row]) == (true, predicted)
                check_measures(table, row, theirs == i, target, prediction)
    assert len(table["area"]) == found
    assigned = modes.assign(table, radius=boundary_radius(*target.shape))
    assert set(assigned) <= set(modes.MODES)
    assert sum(table["area"][assigned == mode].sum() for mode in modes.MODES) == wrong.sum()


def check_measures(table: dict[str, np.ndarray], row: int, region: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> None:
    """The columns of one region, worked out the slow way."""
    rows, columns = np.nonzero(region)
    assert table["area"][row] == region.sum()
    box = [table[name][row] for name in ("top", "left", "bottom", "right")]
    assert box == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    assert table["row"][row] == pytest.approx(rows.mean(), rel=1e-5)
    assert table["column"][row] == pytest.approx(columns.mean(), rel=1e-5)
    height, width = region.shape
    edge = {0} & {rows.min(), columns.min()} or rows.max() == height - 1 or columns.max() == width - 1
    assert table["touches_border"][row] == bool(edge)
    depth = ndimage.distance_transform_edt(np.pad(region, 1)).max()
    assert table["thickness"][row] == np.ceil(2 * depth - 1)
    true, predicted = table["true"][row], table["predicted"][row]
    other = target == predicted
    near = ndimage.distance_transform_edt(~other) <= boundary_radius(height, width) if other.any() else np.zeros_like(other)
    assert table["boundary_share"][row] == pytest.approx(near[region].mean())
    segment = ndimage.label(target == true, EIGHT)[0]
    segment = segment == segment[rows[0], columns[0]]
    assert table["segment_area"][row] == segment.sum()
    assert table["segment_share"][row] == pytest.approx((prediction[segment] == predicted).mean())
    assert table["segment_correct"][row] == pytest.approx((prediction[segment] == true).mean())
    guessed = ndimage.label((prediction == predicted) & (target != IGNORE), EIGHT)[0]
    guessed = guessed == guessed[rows[0], columns[0]]
    assert table["predicted_area"][row] == guessed.sum()
    assert table["predicted_correct"][row] == pytest.approx((target[guessed] == predicted).mean())


def test_depth_and_nearness_on_large_shapes() -> None:
    """Sizes at which the shortcuts of the kernel (bounds, remembered finds, rims) are at work."""
    target = np.zeros((90, 140), np.uint8)
    prediction = np.zeros_like(target)
    y, x = np.indices(target.shape)
    prediction[(y - 45) ** 2 + (x - 60) ** 2 < 38**2] = 1
    prediction[30:50, 60:70] = 2
    target[10:14, 100:] = 1
    target[70:72, 40:90] = 1
    labels, table = error_regions(target, prediction=prediction, num_classes=3, ignore_index=IGNORE)
    for row in range(len(table["area"])):
        check_measures(table, row, labels == row + 1, target, prediction)


def test_labels_are_numbered_in_scan_order_across_late_merges() -> None:
    code = np.array([[1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 1, 1, 3, 0], [0, 0, 3, 1, 1]])
    labels, count = connected(code)
    assert count == 3
    np.testing.assert_array_equal(labels, [[1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 1, 1, 3, 0], [0, 0, 3, 1, 1]])


def test_nothing_wrong_and_nothing_valid() -> None:
    mask = np.full((4, 6), 2, np.uint8)
    for target in (mask, np.full_like(mask, IGNORE)):
        labels, table = error_regions(target, prediction=mask, num_classes=3, ignore_index=IGNORE)
        assert not labels.any()
        assert all(len(values) == 0 for values in table.values())
        assert len(modes.assign(table, radius=3)) == 0


def test_what_is_no_class_is_refused() -> None:
    mask = np.zeros((4, 6), np.uint8)
    with pytest.raises(ValueError, match="label 3"):
        error_regions(mask, prediction=mask + 3, num_classes=3, ignore_index=IGNORE)
    with pytest.raises(ValueError, match="must be equal"):
        error_regions(mask, prediction=mask[:2], num_classes=3, ignore_index=IGNORE)


@pytest.mark.parametrize("mode", list(modes.MODES))
def test_each_mode_by_its_textbook_case(mode: str) -> None:
    target = np.zeros((60, 80), np.uint8)
    target[20:40, 20:50] = 1
    prediction = target.copy()
    if mode == "missed":
        prediction[20:40, 20:50] = 0
    elif mode == "confusion":
        prediction[20:40, 20:50] = 2
    elif mode == "hallucinated":
        prediction[45:55, 60:75] = 2
    elif mode == "boundary":
        prediction[18:20, 20:50] = 1
    else:
        prediction[20:40, 20:32] = 0
    _, table = error_regions(target, prediction=prediction, num_classes=3, ignore_index=IGNORE)
    assert list(modes.assign(table, radius=boundary_radius(60, 80))) == [mode]
