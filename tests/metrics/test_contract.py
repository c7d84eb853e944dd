"""What every metric of confusion counts in segpipe/metrics must do, discovered from the folder. Of masks: test_mask_contract.py."""

from types import ModuleType

import numpy as np
import pytest

from segpipe import components, surfaces

CLASSES = 5
OF_COUNTS, OF_MASKS = surfaces.split({name: components.load("metrics", name) for name in components.names("metrics")})


@pytest.fixture(params=OF_COUNTS)
def metric(request: pytest.FixtureRequest) -> ModuleType:
    return OF_COUNTS[request.param]


@pytest.mark.parametrize("name", [*OF_COUNTS, *OF_MASKS])
def test_a_file_is_of_one_kind_and_says_so(name: str) -> None:
    module = {**OF_COUNTS, **OF_MASKS}[name]
    kinds = {"compute": {"PER_CLASS": bool}, "measure": {"KEYS": tuple, "ONE_EMPTY": float, "DISTANCE": bool}}
    (mine,) = [function for function in kinds if hasattr(module, function)]
    for function, constants in kinds.items():
        for constant, kind in constants.items():
            assert isinstance(getattr(module, constant, None), kind) == (function == mine), f"{name}.{constant}"


@pytest.fixture
def counts() -> np.ndarray:
    """(2, 3, K, K): images with absent classes, one with no pixel at all, one that is all right, and one all wrong."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 1000, (2, 3, CLASSES, CLASSES))
    counts[0, 0, 2] = 0  # class 2 is only predicted
    counts[0, 1, :, 3] = 0  # class 3 is never predicted
    counts[0, 2, 4] = counts[0, 2, :, 4] = 0  # class 4 is in neither
    counts[1, 0] = 0
    counts[1, 1] *= np.eye(CLASSES, dtype=np.int64)
    counts[1, 2] *= 1 - np.eye(CLASSES, dtype=np.int64)
    return counts


def test_shape_type_and_range(metric: ModuleType, counts: np.ndarray) -> None:
    before = counts.copy()
    values = metric.compute(counts)
    assert values.dtype == np.float64
    assert values.shape == ((2, 3, CLASSES) if metric.PER_CLASS else (2, 3))
    defined = values[~np.isnan(values)]
    assert defined.size and (defined >= 0).all() and (defined <= 1).all()
    np.testing.assert_array_equal(counts, before)


def test_leading_axes_equal_a_loop(metric: ModuleType, counts: np.ndarray) -> None:
    values = metric.compute(counts)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(values[index], metric.compute(counts[index]))
    assert metric.compute(counts[:0]).shape[0] == 0


def test_no_pixel_is_undefined(metric: ModuleType) -> None:
    assert np.isnan(metric.compute(np.zeros((CLASSES, CLASSES), np.int64))).all()


def test_all_right_is_one(metric: ModuleType, counts: np.ndarray) -> None:
    assert (metric.compute(counts[1, 1]) == 1).all()


def test_all_wrong_is_zero(metric: ModuleType, counts: np.ndarray) -> None:
    values = metric.compute(counts[1, 2])
    if metric.__name__.endswith("class_accuracy"):  # the true negatives remain
        assert (values < 1).all()
    else:
        assert (values == 0).all()


def test_order_of_classes_does_not_matter(metric: ModuleType, counts: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(CLASSES)
    permuted = counts[..., order, :][..., order]
    values = metric.compute(counts)
    np.testing.assert_allclose(metric.compute(permuted), values[..., order] if metric.PER_CLASS else values, rtol=1e-14)


def test_an_image_without_pixels_changes_nothing(metric: ModuleType, counts: np.ndarray) -> None:
    images = counts[0]
    more = np.concatenate([images, np.zeros_like(images[:1])])
    np.testing.assert_array_equal(metric.compute(more.sum(axis=0)), metric.compute(images.sum(axis=0)))
    np.testing.assert_array_equal(metric.compute(more)[:3], metric.compute(images))


def test_a_class_nobody_has_moves_no_mean(metric: ModuleType, counts: np.ndarray) -> None:
    wider = np.pad(counts, [(0, 0), (0, 0), (0, 1), (0, 1)])
    values = metric.compute(wider)
    np.testing.assert_array_equal(values[..., :CLASSES] if metric.PER_CLASS else values, metric.compute(counts))


def test_int32_sums_do_not_overflow(metric: ModuleType) -> None:
    counts = np.array([[3_000_000_000, 1_000_000_000], [0, 2_000_000_000]])
    small = metric.compute(counts // 1_000_000_000)
    np.testing.assert_allclose(metric.compute(counts), small, rtol=1e-15)
