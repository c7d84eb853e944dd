"""Error regions against scipy, and the books they keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segpipe import confusion
from segpipe.failures import modes
from segpipe.failures.extent import extents
from segpipe.failures.labelling import connected
from segpipe.failures.regions import COLUMNS, boundary_radius, error_regions
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
                check_contacts(table, row, theirs == i, target, prediction)
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


def check_contacts(table: dict[str, np.ndarray], row: int, region: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> None:
    """What the region touches and bridges, worked out the slow way; truth and prediction change places for the second question."""
    true, predicted = table["true"][row], table["predicted"][row]
    right, around = target == prediction, ndimage.binary_dilation(region, EIGHT)
    assert table["touches_true"][row] == (around & right & (target == true)).any()
    assert table["touches_predicted"][row] == (around & right & (prediction == predicted)).any()
    valid = target != IGNORE
    sides = {"joins": (prediction, target, predicted), "cuts": (target, prediction, true)}
    for column, (one, other, own) in sides.items():
        holder = ndimage.label(valid & (one == own), EIGHT)[0]
        holder = holder == holder[region][0]
        pieces, number = ndimage.label(valid & (other == own), EIGHT)
        shares = [(holder & (pieces == i)).sum() / max((pieces == i).sum(), holder.sum()) for i in range(number + 1)]
        linked = [pieces == i for i in range(1, number + 1) if shares[i] > 0.1]
        group = ndimage.label(holder & ~right, EIGHT)[0]
        group = group == group[region][0]

        def touched(pixels: np.ndarray, linked: list[np.ndarray] = linked, holder: np.ndarray = holder) -> int:
            return sum(bool((ndimage.binary_dilation(pixels, EIGHT) & holder & right & piece).any()) for piece in linked)

        members = {tuple(pair) for pair in zip(target[group], prediction[group], strict=True)}
        parts = []
        for t, p in members:
            named, count = ndimage.label((target == t) & (prediction == p) & group, EIGHT)
            parts += [named == i for i in range(1, count + 1)]
        alone = any(touched(part) >= 2 for part in parts)
        expected = touched(region) >= 2 or (not alone and touched(group) >= 2)
        assert table[column][row] == expected, column


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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1, 24), st.integers(2, 20))
def test_nearness_is_that_of_a_distance_transform_at_any_radius(seed: int, radius: float, cell: int) -> None:
    rng = np.random.default_rng(seed)
    target, prediction = (blobs(rng, size=(48, 70), classes=80, cell=c).astype(np.int32) for c in (cell, cell + 3))
    prediction[rng.random(prediction.shape) < 0.3] = 3
    labels, count = connected(np.where(target == prediction, 0, target * 80 + prediction + 1))
    near = extents(labels, count, target, prediction, radius)[2]
    expected = np.zeros(count)
    for predicted in np.unique(prediction):
        other = target != predicted
        away = ndimage.distance_transform_edt(other) if not other.all() else np.full(other.shape, np.inf)
        hits = (away <= radius) & (prediction == predicted) & (labels > 0)
        expected += np.bincount(labels[hits], minlength=count + 1)[1:]
    np.testing.assert_array_equal(near, expected)


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
        assert all(len(values) == 0 for values in table.values()) and set(table) == set(COLUMNS)
        assert len(modes.assign(table, radius=3)) == 0


def test_what_is_no_class_is_refused() -> None:
    mask = np.zeros((4, 6), np.uint8)
    with pytest.raises(ValueError, match="label 3"):
        error_regions(mask, prediction=mask + 3, num_classes=3, ignore_index=IGNORE)
    with pytest.raises(ValueError, match="must be equal"):
        error_regions(mask, prediction=mask[:2], num_classes=3, ignore_index=IGNORE)


def test_confidence_is_the_mean_over_the_region() -> None:
    target, prediction = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    prediction[1:3, 1:3] = prediction[4, 5:7] = 1
    confidence = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    labels, table = error_regions(target, prediction=prediction, num_classes=2, ignore_index=IGNORE, confidence=confidence)
    expected = [confidence[labels == k].mean() / 255 for k in (1, 2)]
    np.testing.assert_allclose(table["confidence"], expected, rtol=1e-6)
    _, unknown = error_regions(target, prediction=prediction, num_classes=2, ignore_index=IGNORE)
    assert np.isnan(unknown["confidence"]).all()


def test_labels_agree_with_scipy_on_a_large_image() -> None:
    rng = np.random.default_rng(4)
    for cell in (1, 2, 7):
        code = blobs(rng, size=(170, 190), classes=4, cell=cell).astype(np.int64)
        mine, count = connected(code)
        found = 0
        for value in range(1, 4):
            theirs, number = ndimage.label(code == value, EIGHT)
            found += number
            both = np.unique(np.stack([mine[code == value], theirs[code == value]]), axis=1)
            assert both.shape[1] == number, "one label of ours for each of theirs, and the other way round"
        assert found == count and mine.max() == count
        first = [int(np.flatnonzero(mine.ravel() == label)[0]) for label in range(1, min(count, 50) + 1)]
        assert first == sorted(first), "numbered in scan order"
