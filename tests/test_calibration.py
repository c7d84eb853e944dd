"""Calibration: a known scale is found again, bins equal a plain loop, a case by hand, and what must not change anything."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe import calibration
from segpipe.calibration import BINS, HIGHEST, LOWEST, Calibration, Reliability

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-30, 30))


def honest(pixels: int, *, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, K) and labels drawn with exactly the probabilities that the logits state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (pixels, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((pixels, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return logits.astype(np.float32), labels.astype(np.int64)


def as_image(logits: np.ndarray, labels: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) as (K, height, n / height), with its target."""
    return np.ascontiguousarray(logits.T.reshape(logits.shape[1], height, -1)), labels.reshape(height, -1).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_scale_of_scaled_logits_is_found(scale: float) -> None:
    logits, labels = honest(60_000)
    assert calibration.fit_temperature(scale * logits, labels) == pytest.approx(scale, rel=0.03)


def test_no_other_temperature_is_likelier() -> None:
    logits, labels = honest(3000)
    logits *= 2

    def loss(temperature: float) -> float:
        z = logits.astype(np.float64) / temperature
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())

    best = calibration.fit_temperature(logits, labels)
    assert all(loss(best) < loss(best * factor) for factor in (0.9, 0.999, 1.001, 1.1))


def test_pixels_that_determine_no_temperature_give_a_bound() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 2.0]], np.float32)
    assert calibration.fit_temperature(logits, np.array([0, 1])) == LOWEST
    assert calibration.fit_temperature(logits, np.array([1, 0])) == HIGHEST


def test_a_fit_needs_finite_logits_of_some_pixels() -> None:
    with pytest.raises(ValueError, match="no labelled pixel"):
        calibration.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        calibration.fit_temperature(np.array([[0.0, np.inf]], np.float32), np.array([0]))


def test_honest_confidence_has_no_error_and_scaled_confidence_has() -> None:
    """With 240,000 pixels a bin's share of right ones is known to about .004, which is what bounds the error."""
    logits, labels = honest(240_000)
    image, target = as_image(logits, labels, 400)
    found = Calibration(temperature=1.0, ignore_index=255)
    found.add(image, target)
    assert found.before.ece < 0.004
    sure = Calibration(temperature=3.0, ignore_index=255)
    sure.add(3 * image, target)
    assert sure.before.ece > 0.1 and sure.after.ece < 0.004
    np.testing.assert_allclose(sure.after.gaps, found.before.gaps, atol=1e-3)


def test_a_case_by_hand() -> None:
    """Two pixels at .95 of which one is right, .62 right, .3 wrong: ECE = (2 * .45 + .38 + .3) / 4."""
    found = Reliability()
    found.add(np.array([0.95, 0.95, 0.62, 0.3], np.float32), np.array([True, False, True, False]))
    assert found.ece == pytest.approx(0.395, abs=1e-7)
    assert found.mce == pytest.approx(0.45, abs=1e-7)
    assert {i: int(n) for i, n in enumerate(found.counts) if n} == {4: 1, 9: 1, 14: 2}
    document = found.document()
    assert document["accuracy"] == 0.5
    assert document["bins"][14] == {"low": 14 / 15, "high": 1.0, "pixels": 2, "confidence": pytest.approx(0.95), "accuracy": 0.5}
    assert document["bins"][0] == {"low": 0.0, "high": 1 / 15, "pixels": 0, "confidence": None, "accuracy": None}


def test_no_pixels_no_error() -> None:
    empty = Reliability()
    assert math.isnan(empty.ece) and math.isnan(empty.mce) and np.isnan(empty.gaps).all()
    assert [empty.document()[key] for key in ("pixels", "ece", "mce", "accuracy")] == [0, None, None, None]


@given(values=st.lists(st.tuples(st.integers(0, 256), st.booleans()), min_size=1, max_size=60))
def test_bins_equal_a_plain_loop(values: list[tuple[int, bool]]) -> None:
    found, error, worst = Reliability(), 0.0, 0.0
    found.add(np.array([v / 256 for v, _ in values], np.float32), np.array([right for _, right in values]))
    for i in range(BINS):  # (low, high], the first bin with its low end
        inside = [(v / 256, right) for v, right in values if (15 * v > 256 * i or i == v == 0) and 15 * v <= 256 * (i + 1)]
        assert found.counts[i] == len(inside)
        gap = abs(sum(p - right for p, right in inside))
        error, worst = error + gap / len(values), max(worst, gap / max(len(inside), 1))
    assert found.ece == pytest.approx(error, abs=1e-6)
    assert found.mce == pytest.approx(worst, abs=1e-6)


def test_the_order_of_images_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    images = [(rng.random(500).astype(np.float32), rng.random(500) < 0.5) for _ in range(9)]
    one, other = Reliability(), Reliability()
    for p, right in images:
        one.add(p, right)
    for p, right in reversed(images):
        other.add(p, right)
    assert one.document() == other.document()


@given(logits=LOGITS, temperature=st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]), shift=st.integers(-1000, 1000))
def test_confidence_is_the_largest_probability(logits: np.ndarray, temperature: float, shift: int) -> None:
    p = np.exp(logits.astype(np.float64) / temperature)
    p /= p.sum(axis=0)
    found = calibration.confidence(logits, temperature=temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, p.max(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(calibration.confidence(logits + np.float32(shift), temperature=temperature), found)
    np.testing.assert_array_equal(calibration.confidence(logits / np.float32(temperature)), found)
    assert (found <= calibration.confidence(logits, temperature=temperature / 2)).all()


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 37, 23)).astype(np.float32)
    whole = calibration.confidence(logits, temperature=1.7)
    monkeypatch.setattr(calibration, "STRIP_VALUES", 300)
    np.testing.assert_array_equal(calibration.confidence(logits, temperature=1.7), whole)


def test_huge_logits_are_certain_and_equal_ones_undecided() -> None:
    logits = np.array([[[1e30, 4.0]], [[0.0, 4.0]]], np.float32)
    assert calibration.confidence(logits).tolist() == [[1.0, 0.5]]
    assert calibration.as_bytes(np.array([[1.0, 0.5, 0.25]], np.float32)).tolist() == [[255, 128, 64]]


def test_a_temperature_moves_no_label_and_ignored_pixels_count_nothing() -> None:
    logits, labels = honest(400)
    image, target = as_image(logits, labels, 20)
    target[:5] = 255
    found = Calibration(temperature=4.0, ignore_index=255)
    after = found.add(image, target)
    assert after.shape == (20, 20)
    assert found.before.counts.sum() == found.after.counts.sum() == 300
    assert found.before.correct.sum() == found.after.correct.sum() == (image.argmax(axis=0) == target)[5:].sum()
    rest = Calibration(temperature=4.0, ignore_index=255)
    rest.add(image[:, 5:], target[5:])
    assert rest.document() == found.document()


def test_a_sample_is_decided_by_seed_and_name() -> None:
    image = np.arange(2 * 30 * 40, dtype=np.float32).reshape(2, 30, 40)
    target = np.random.default_rng(0).integers(0, 2, (30, 40)).astype(np.uint8)
    target[10:] = 255

    def drawn(**changes: object) -> tuple[np.ndarray, np.ndarray]:
        return calibration.sample(image, target, **({"ignore_index": 255, "count": 50, "seed": 0, "name": "a"} | changes))  # type: ignore[arg-type]

    logits, labels = drawn()
    assert logits.shape == (50, 2) and logits.dtype == np.float32 and labels.dtype == np.int64
    positions = logits[:, 0].astype(int)  # the logit of class 0 is the pixel's number
    assert len(set(positions)) == 50 and positions.max() < 400
    np.testing.assert_array_equal(labels, target.reshape(-1)[positions])
    np.testing.assert_array_equal(logits[:, 1], positions + 1200)
    np.testing.assert_array_equal(drawn()[0], logits)
    assert (drawn(name="b")[0] != logits).any() and (drawn(seed=1)[0] != logits).any()
    assert drawn(count=10_000)[0][:, 0].tolist() == list(range(400))


def test_wrong_inputs_are_named() -> None:
    logits = np.zeros((3, 4, 5), np.float32)
    with pytest.raises(ValueError, match="label 7, but there are 3 classes"):
        calibration.sample(logits, np.full((4, 5), 7, np.uint8), ignore_index=255, count=5, seed=0, name="a")
    with pytest.raises(ValueError, match=r"must be \(K, H, W\) and \(H, W\)"):
        Calibration(temperature=1.0, ignore_index=255).add(logits, np.zeros((5, 4), np.uint8))


def test_classwise_error_by_hand_and_of_honest_logits() -> None:
    """p of class 0 is .75 .75 .25 and one of three is class 0: (|1.5 - 1| + |.25 - 0|) / 3; of class 1 the same."""
    logits = np.log(np.array([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]], np.float32))
    np.testing.assert_allclose(calibration.classwise_ece(logits, np.array([0, 1, 1])), [0.25, 0.25], rtol=1e-6)
    logits, labels = honest(60_000)
    assert (calibration.classwise_ece(logits, labels) < 0.012).all()
    np.testing.assert_allclose(
        calibration.classwise_ece(2 * logits, labels, temperature=2.0), calibration.classwise_ece(logits, labels), atol=1e-6
    )
    assert np.isnan(calibration.classwise_ece(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))).all()
