"""What must not change a comparison: the order and names of images and classes, copies of images, classes that are nowhere."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.comparison import Comparison, compare
from segpipe.metrics import iou, pixel_accuracy
from segpipe.model_scores import Score
from segpipe.resampling import paired_test
from tests.test_comparison import METRICS, scored
from tests.test_resampling import images

SEEDS = settings(max_examples=8, deadline=None)
K = 4


def two(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return images(rng, n, accuracy=0.8, k=K), images(rng, n, accuracy=0.76, k=K)


def compared(a: np.ndarray, b: np.ndarray, **changes: Any) -> Comparison:
    models = [scored("a", a, **changes), scored("b", b, **changes)]
    return compare(models, metrics=METRICS, per_class=iou.compute, resamples=200, alpha=0.05, seed=0)


def numbers(comparison: Comparison, classes: list[int]) -> np.ndarray:
    """Everything that was computed, but for the counts of images; of the classes in this order."""

    def of(score: Score) -> list[float]:
        return [score.value, score.low, score.high, *score.percentile, *score.bca, score.test_sd]

    found: list[float] = []
    for model in comparison.models:
        found += [v for score in model.scores.values() for v in of(score)]
        found += [v for k in classes for v in of(model.per_class[k])]
    for pair in comparison.pairs:
        found += [pair.test.difference, pair.test.ci_low, pair.test.ci_high, pair.test.p, pair.p_holm, pair.wilcoxon_p]
        for k in classes:
            test = pair.classes[k]
            found += [] if test is None else [test.difference, test.ci_low, test.ci_high, test.p, test.p_holm]
    return np.array([*found, comparison.ranking.first_stays, comparison.ranking.kendall_tau])


@SEEDS
@given(seed=st.integers(0, 10**6))
def test_the_order_of_classes(seed: int) -> None:
    a, b = two(seed)
    order = np.random.default_rng(seed).permutation(K)
    moved = compared(a[:, order][:, :, order], b[:, order][:, :, order])
    # Class k is where it went to.
    np.testing.assert_allclose(
        numbers(moved, list(np.argsort(order))), numbers(compared(a, b), list(range(K))), rtol=1e-9, atol=1e-12
    )


@SEEDS
@given(seed=st.integers(0, 10**6))
def test_a_class_that_is_nowhere(seed: int) -> None:
    a, b = two(seed)
    wider = compared(*(np.pad(c, ((0, 0), (0, 1), (0, 1))) for c in (a, b)))
    np.testing.assert_allclose(numbers(wider, list(range(K))), numbers(compared(a, b), list(range(K))), rtol=1e-9, atol=1e-12)
    assert wider.pairs[0].classes[K] is None and np.isnan(wider.models[0].per_class[K].value)


@SEEDS
@given(seed=st.integers(0, 10**6))
def test_copies_of_images_in_their_groups(seed: int) -> None:
    """Each image twice is no more evidence than once, as long as its copy is known to belong to it."""
    a, b = two(seed)
    groups = [f"g{i:02}" for i in range(12) for _ in range(2)]
    twice = compared(*(np.repeat(c, 2, axis=0) for c in (a, b)), groups=groups)
    np.testing.assert_allclose(numbers(twice, list(range(K))), numbers(compared(a, b), list(range(K))), rtol=1e-9, atol=1e-12)
    assert (twice.units, twice.unit, twice.pairs[0].wins) == (12, "group", 2 * compared(a, b).pairs[0].wins)


@SEEDS
@given(seed=st.integers(0, 10**6))
def test_the_order_of_images(seed: int) -> None:
    """Draws are of other images then; all that is not drawn stays."""
    a, b = two(seed)
    order = np.random.default_rng(seed).permutation(12)
    (before,), (after,) = compared(a, b).pairs, compared(a[order], b[order]).pairs
    assert before.test.exact and (before.test.p, before.test.difference) == (after.test.p, after.test.difference)
    assert [t and t.p for t in before.classes] == [t and t.p for t in after.classes]
    assert (before.wins, before.ties, before.losses) == (after.wins, after.ties, after.losses)
    np.testing.assert_allclose([before.wilcoxon_p, before.effect], [after.wilcoxon_p, after.effect], rtol=1e-9)


@SEEDS
@given(seed=st.integers(0, 10**6))
def test_images_on_which_the_two_are_equal(seed: int) -> None:
    """They dilute the difference, and they say nothing for or against it: of an additive score, the exact p stays."""
    a, b = two(seed, 9)
    same = images(np.random.default_rng(seed + 1), 6, k=K)
    # Pixel accuracy is additive where every image has as many pixels in both models.
    b[:, 0, 1] += np.maximum(a.sum(axis=(1, 2)) - b.sum(axis=(1, 2)), 0)
    a[:, 0, 1] += np.maximum(b.sum(axis=(1, 2)) - a.sum(axis=(1, 2)), 0)
    tests = []
    for extra in (np.zeros((0, K, K), np.int64), same):
        one, other = (np.concatenate([c, extra]) for c in (a, b))
        tests.append(paired_test(one, other, [""] * len(one), metric=pixel_accuracy.compute, resamples=50, seed=0))
    assert tests[0].p == tests[1].p and tests[0].exact and tests[1].exact
    assert abs(tests[1].difference) <= abs(tests[0].difference)
