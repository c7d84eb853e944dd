"""Measures of maps made by hand, and the laws they obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures.evidence import columns_of, segments_of
from segpipe.failures.grid import Axis, stretched
from segpipe.failures.look import Answer
from segpipe.failures.measures import EVIDENCE, FAINT, MAPS, NO_EVIDENCE, PLACES, Scene, measure, scene

SIZE, CELLS = (32, 40), (8, 10)
ROWS, COLUMNS = stretched(32, cells=8), stretched(40, cells=10)
WHOLE = (slice(0, 32), slice(0, 40))


def place_of(target: np.ndarray, region: np.ndarray, **changes: object) -> Scene:
    labels = int(target[region][0])
    arguments = {"segment": target == labels, "guess": target == 1, "target": target, "window": WHOLE, "cell": (4, 4)}
    return scene(region, **(arguments | changes))


@pytest.fixture()
def hand_made() -> Scene:
    """Class 0 on the left, 2 on the right, 1 in two bands at the bottom, ignored at the top; the region is at (4..8, 4..8)."""
    target = np.zeros(SIZE, np.int64)
    target[:, 20:] = 2
    target[24:] = 1
    target[:2] = 255
    region = np.zeros(SIZE, bool)
    region[4:8, 4:8] = True
    return place_of(target, region)


def one_cell(row: int, column: int, value: float = 1.0) -> np.ndarray:
    values = np.zeros(CELLS)
    values[row, column] = value
    return values


def test_what_two_cells_say(hand_made: Scene) -> None:
    """The true map's only cell lies in class 2, the predicted one's in class 1; each overlaps nothing else."""
    found = measure(one_cell(3, 7), one_cell(7, 2, 5.0), place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
    np.testing.assert_allclose(found["true_classes"], [0, 0, 1], atol=1e-6)
    # The cell's bilinear foot reaches 2 pixels into class 0: a triangle's part above the edge of the cell.
    assert found["predicted_classes"][1] == pytest.approx(1 - found["predicted_classes"][0]) and found["predicted_classes"][2] == 0
    assert found["predicted_classes"].dtype == np.float32
    assert found["predicted_guess"] == pytest.approx(found["predicted_classes"][1])
    assert found["true_guess"] == found["true_near"] == found["true_inside"] == found["overlap"] == 0
    assert found["predicted_border"] > 0.2 and found["true_border"] == 0
    assert found["true_entropy"] == found["predicted_entropy"] == 0
    diagonal = np.hypot(*SIZE)
    # Centres of cells (3, 7) and of the region, in pixels: (13.5, 29.5) and (5.5, 5.5).
    assert found["true_distance"] == pytest.approx(np.hypot(8, 24) / diagonal)
    # The lower cell's energy ends at the border, so its centroid is not quite its centre (29.5, 9.5).
    assert found["shift"] == pytest.approx(np.hypot(29.5 - 13.5, 9.5 - 29.5) / diagonal, abs=0.02)
    assert found["margin_status"] == EVIDENCE
    np.testing.assert_allclose(found["margin_classes"], found["predicted_classes"], atol=1e-6)
    assert (found["context_class"], found["context_share"]) == (1, pytest.approx(found["predicted_classes"][1], abs=1e-6))


def test_the_highest_tenth_of_the_cells(hand_made: Scene) -> None:
    rng = np.random.default_rng(0)
    a = rng.permutation(80).reshape(CELLS) + 1.0
    b = a.copy()
    # 8 of 80 cells; three of them change places with cells below.
    order = np.argsort(a.ravel())
    b.ravel()[order[-3:]], b.ravel()[order[:3]] = a.ravel()[order[:3]], a.ravel()[order[-3:]]
    found = measure(a, b, place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
    assert found["overlap"] == pytest.approx(5 / 11)
    assert 0 < found["true_entropy"] < 1
    even = measure(np.ones(CELLS), np.ones(CELLS), place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
    assert even["true_entropy"] == pytest.approx(1) and even["overlap"] == 1 and even["shift"] == 0
    # Energy spread evenly has in each place the place's share of the area.
    for where, area in hand_made.areas().items():
        assert even[f"true_{where}"] == pytest.approx(area)


def test_nothing_positive_is_a_status_and_never_noise(hand_made: Scene) -> None:
    rng = np.random.default_rng(1)
    negative = -1 - rng.random(CELLS)
    for noise in (np.zeros(CELLS), 2e-6 * rng.random(CELLS) + negative * (rng.random(CELLS) < 0.5)):
        found = measure(noise, negative, place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
        for name in ("true", "predicted"):
            assert found[f"{name}_status"] == NO_EVIDENCE
            assert all(np.isnan(found[f"{name}_{where}"]) for where in (*PLACES, "distance", "entropy"))
            assert np.isnan(found[f"{name}_classes"]).all()
        assert np.isnan(found["overlap"]) and np.isnan(found["shift"]) and found["context_class"] == -1
    values = rng.random(CELLS).astype(np.float32)
    same = measure(values, values * np.float32(1 + 1e-6), place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
    assert same["margin_status"] == NO_EVIDENCE and np.isnan(same["margin_near"]), "equal maps: nothing decides"
    nearly = measure(values, values * np.float32(1.01), place=hand_made, rows=ROWS, columns=COLUMNS, num_classes=3)
    assert nearly["margin_status"] == FAINT


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.permutations(range(4)))
def test_laws_of_the_measures(seed: int, factor: float, order: list[int]) -> None:
    """Every share sums up; a common scale changes nothing; classes and the two maps may change their names."""
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, 4, CELLS), np.ones((4, 4), np.int64))
    target[rng.random(SIZE) < 0.1] = 255
    top, left = rng.integers(1, 20, 2)
    region = np.zeros(SIZE, bool)
    region[top : top + 5, left : left + 3] = target[top : top + 5, left : left + 3] == target[top, left]
    region[top, left] = True
    a, b = rng.normal(size=(2, *CELLS))
    common = {"rows": ROWS, "columns": COLUMNS, "num_classes": 4}
    place = place_of(target, region)
    found = measure(a, b, place=place, **common)
    for name in MAPS:
        assert 0 <= found[f"{name}_inside"] <= found[f"{name}_near"] <= 1
        ignored = 1 - found[f"{name}_near"] - found[f"{name}_classes"].sum()
        assert -1e-5 < ignored < 0.5
        assert 0 <= found[f"{name}_entropy"] <= 1
    scaled = measure(a * factor, b * factor, place=place, **common)
    renamed_target = np.where(target == 255, 255, np.array(order)[np.minimum(target, 3)])
    renamed = measure(a, b, place=place_of(renamed_target, region, guess=target == 1), **common)
    for key, value in found.items():
        if key.endswith("_status") or key == "context_class":
            assert scaled[key] == value
        else:
            np.testing.assert_allclose(scaled[key], value, rtol=1e-4, atol=1e-6, err_msg=key)
        if not key.endswith(("_classes", "_status", "context_class")):
            np.testing.assert_allclose(renamed[key], value, rtol=1e-6, err_msg=key)
    for name in MAPS:
        np.testing.assert_array_equal(renamed[f"{name}_classes"][order], found[f"{name}_classes"])
    assert renamed["context_class"] == order[found["context_class"]]
    swapped = measure(b, a, place=place, **common)
    for key in ("cosine", "spearman", "overlap", "shift"):
        assert swapped[key] == pytest.approx(found[key])
    assert swapped["true_near"] == found["predicted_near"]


def test_cells_beyond_the_image_do_not_count() -> None:
    """A padded input: two of ten columns of cells hold the mirrored border, one on each side."""
    padded = Axis(cells=10, scale=8 / 40, shift=1.0)
    np.testing.assert_allclose(padded.centres()[[0, 1, 8, 9]], [-2.5, 2.5, 37.5, 42.5])
    target, region = np.zeros(SIZE, np.int64), np.zeros(SIZE, bool)
    region[10:14, 10:14] = True
    even = np.zeros(CELLS)
    even[:, 1:9] = 1
    found = measure(even, even, place=place_of(target, region), rows=ROWS, columns=padded, num_classes=1)
    assert found["true_entropy"] == pytest.approx(1)


def test_the_columns_of_a_region() -> None:
    """Places follow from the labels: the rest of the true segment and of the predicted one, not other segments of the class."""
    target, prediction = np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
    target[:, 20:], prediction[:, 16:] = 1, 1
    prediction[:, 36:] = 0
    target[28:, :4], prediction[28:, :4] = 255, 1
    region = (target == 0) & (prediction == 1)
    segments = segments_of(target, prediction, ignore_index=255)
    assert segments.predicted[30, 2] == 0
    maps = {"pool": {kind: np.ones((2, *CELLS), np.float32) for kind in ("gradcam", "hirescam")}}
    answer = Answer(logits=(1.0, 3.0), maps=maps, axes={"pool": (ROWS, COLUMNS)}, window=WHOLE)
    row = columns_of(answer, region, segments=segments, target=target, num_classes=2)
    assert row["margin"] == 2.0
    assert row["pool/area_inside"] == pytest.approx(4 * 32 / 1280)
    assert row["pool/area_segment"] == pytest.approx((16 * 32 - 16) / 1280)
    assert row["pool/area_guess"] == pytest.approx(16 * 32 / 1280)
    assert row["pool/hirescam_true_guess"] == pytest.approx(row["pool/area_guess"])
    # Away from the region and one cell around it: columns 0..11 of class 0, 24..39 of class 1.
    np.testing.assert_allclose(row["pool/area_classes"], [(12 * 32 - 16) / 1280, 16 * 32 / 1280], rtol=1e-6)
    assert row["pool/reading"] == "context"
