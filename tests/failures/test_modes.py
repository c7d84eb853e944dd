"""Every mode by a case drawn for it, the modifiers, and what must not change a mode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures import modes
from segpipe.failures.regions import boundary_radius, error_regions
from tests.failures.networks import blobs

IGNORE = 255
SIZE = (96, 128)
RADIUS = boundary_radius(*SIZE)


def disc(row: int, column: int, radius: float) -> np.ndarray:
    y, x = np.indices(SIZE)
    inside: np.ndarray = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return inside


def found(target: np.ndarray, prediction: np.ndarray, classes: int = 5) -> tuple[dict[str, np.ndarray], list[str]]:
    _, table = error_regions(target, prediction=prediction, num_classes=classes, ignore_index=IGNORE)
    return table, list(modes.assign(table, radius=boundary_radius(*target.shape)))


def drawn(mode: str) -> tuple[np.ndarray, np.ndarray]:
    """A scene of discs, and a prediction of it with one error."""
    target = np.zeros(SIZE, np.uint8)
    target[disc(48, 40, 24)] = 1
    prediction = target.copy()
    if mode == "missed":
        prediction[target == 1] = 0
    elif mode == "hallucinated":
        prediction[disc(40, 100, 10)] = 2
    elif mode == "confusion":
        prediction[target == 1] = 2
    elif mode == "merge":
        target[disc(48, 100, 24)] = prediction[disc(48, 100, 24)] = 1
        prediction[40:56, 60:80] = 1
    elif mode == "split":
        prediction[:, 36:46] = 0
    elif mode == "boundary":
        prediction[disc(48, 40, 26)] = 1
    elif mode == "partial":
        prediction[disc(20, 40, 12) & (target == 1)] = 0
    elif mode == "other":
        # The surplus of 1 covers all of 2 and then some of 3; what is left of 3 begins behind a 4.
        target[:, :40], target[:, 40:56], target[:, 56:] = 1, 2, 3
        prediction[:, :72], prediction[:, 72:92], prediction[:, 92:] = 1, 4, 3
    return target, prediction


@pytest.mark.parametrize("mode", list(modes.MODES))
def test_each_mode_by_its_textbook_case(mode: str) -> None:
    target, prediction = drawn(mode)
    table, assigned = found(target, prediction)
    if mode == "other":
        by_pair = dict(zip(zip(table["true"].tolist(), table["predicted"].tolist(), strict=True), assigned, strict=True))
        assert by_pair == {(2, 1): "missed", (3, 1): "other", (3, 4): "hallucinated"}
    else:
        assert assigned == [mode]


def test_only_the_bridge_belongs_to_a_merge() -> None:
    target, prediction = drawn("merge")
    prediction[disc(20, 100, 8)] = 1
    table, assigned = found(target, prediction)
    assert assigned == ["partial", "merge"]
    assert list(table["joins"]) == [False, True]
    two = target.copy()
    two[44:52, 68:80] = 2
    table, assigned = found(two, np.where(two == 2, 1, prediction).astype(np.uint8))
    pairs = dict(zip(table["true"].tolist(), table["joins"].tolist(), strict=True))
    assert pairs[0], "the bridge over ground reaches both discs by itself"
    assert not pairs[2], "so the patch inside it is not blamed"


def test_regions_that_bridge_only_together_are_a_merge() -> None:
    target, prediction = drawn("merge")
    target[:, 70:] = np.where(target[:, 70:] == 0, 2, target[:, 70:])
    table, assigned = found(target, np.where(prediction == 0, target, prediction).astype(np.uint8))
    assert sorted(table["true"].tolist()) == [0, 2]
    assert assigned == ["merge", "merge"]


def test_a_crumb_makes_no_merge_and_no_split() -> None:
    """Less than a tenth of a segment links nothing: a large prediction that runs over a speck has merged nothing."""
    target, prediction = drawn("merge")
    target[(target == 1) & (np.indices(SIZE)[1] > 64)] = 0
    target[disc(48, 100, 4)] = 1
    table, _ = found(target, prediction)
    assert not table["joins"].any() and not table["cuts"].any()


def test_modifiers() -> None:
    target = np.zeros(SIZE, np.uint8)
    target[disc(48, 40, 24)] = target[disc(20, 100, 6)] = 1
    prediction = np.zeros(SIZE, np.uint8)
    prediction[80:83, 100:110] = 2
    confidence = np.full(SIZE, 250, np.uint8)
    confidence[80:] = 100
    _, table = error_regions(target, prediction=prediction, num_classes=3, ignore_index=IGNORE, confidence=confidence)
    marks = modes.modifiers(table, radius=RADIUS, below=modes.small_below(*SIZE))
    assert set(marks) == set(modes.MODIFIERS)
    assert marks["small"].tolist() == [True, False, False], "the small disc; the large one and the ground are not"
    assert marks["suspect"].tolist() == [True, True, False]
    assert marks["noise"].tolist() == [False, False, True]
    unsure = {**table, "confidence": np.full(3, np.nan, np.float32)}
    assert not modes.modifiers(unsure, radius=RADIUS, below=0)["suspect"].any()
    thin = {**table, "thickness": np.full(3, int(2 * RADIUS))}
    assert not modes.modifiers(thin, radius=RADIUS, below=0)["suspect"].any()


def test_small_is_coco_s_rule_up_to_a_megapixel() -> None:
    assert modes.small_below(128, 160) == 1024
    assert modes.small_below(1024, 2048) == pytest.approx(2097.152)


def test_every_error_type_of_tide_has_a_mode() -> None:
    assert set(modes.TIDE.values()) <= set(modes.MODES) and len(modes.TIDE) == 6


def pair(seed: int, height: int, width: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = blobs(rng, size=(height, width), classes=4, cell=cell)
    wrong = blobs(rng, size=(height, width), classes=4, cell=max(1, cell // 2))
    prediction = np.where(blobs(rng, size=(height, width), classes=2, cell=3) == 1, target, wrong).astype(np.uint8)
    target[rng.random((height, width)) < 0.03] = IGNORE
    return target, prediction


def mode_map(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Names (H, W): the mode of each wrong pixel."""
    labels, table = error_regions(target, prediction=prediction, num_classes=4, ignore_index=IGNORE)
    names = modes.assign(table, radius=boundary_radius(*target.shape))
    result: np.ndarray = np.concatenate([[""], names])[labels]
    return result


@settings(max_examples=40, deadline=None)
@given(
    st.builds(pair, st.integers(0, 10**6), st.integers(3, 40), st.integers(3, 40), st.integers(1, 9)),
    st.permutations(range(4)),
)
def test_modes_do_not_depend_on_names_or_on_the_way_up(case: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    target, prediction = case
    expected = mode_map(target, prediction)
    np.testing.assert_array_equal(expected != "", (target != prediction) & (target != IGNORE))
    table = np.array([*order, *range(4, 256)], np.uint8)
    np.testing.assert_array_equal(mode_map(table[target], table[prediction]), expected)
    for axis in (0, 1):
        np.testing.assert_array_equal(mode_map(np.flip(target, axis), np.flip(prediction, axis)), np.flip(expected, axis))
    np.testing.assert_array_equal(mode_map(target.T, prediction.T), expected.T)
