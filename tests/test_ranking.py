"""How firm an order is, and how many images would show a difference: against brute force and simulated tests."""

import numpy as np
import pytest
from scipy import stats

from segpipe.power import rounded_up, units_needed
from segpipe.ranking import ranking


def test_ranks_are_counted_draw_by_draw() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal([[0.7], [0.68], [0.6], [0.59]], 0.03, (4, 60))
    found = ranking(draws)
    counts = np.zeros((4, 4))
    for column in draws.T:
        for place, model in enumerate(np.argsort(-column)):
            counts[model, place] += 1
    np.testing.assert_allclose(found.probabilities, counts / 60)
    assert found.first_stays == counts[0, 0] / 60
    taus = [stats.kendalltau([4, 3, 2, 1], column).statistic for column in draws.T]
    assert found.kendall_tau == pytest.approx(np.mean(taus))


def test_ties_share_their_places() -> None:
    found = ranking(np.array([[0.9, 0.9], [0.5, 0.9], [0.5, 0.1], [np.nan, 0.1]])[:3])
    np.testing.assert_allclose(found.probabilities, [[0.75, 0.25, 0], [0.25, 0.5, 0.25], [0, 0.25, 0.75]])
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1)
    alone = ranking(np.array([[0.5, np.nan]]))
    assert (alone.probabilities.tolist(), alone.first_stays, alone.kendall_tau) == ([[1.0]], 1.0, 1.0)
    assert ranking(np.array([[0.1, 0.2], [0.3, 0.4]])).kendall_tau == -1


def test_so_many_images_show_the_difference_four_times_in_five() -> None:
    """Differences of sd 0.05 per image: by the textbook ((1.96 + 0.84) * 0.05 / 0.01)^2 = 197 images show 0.01."""
    sd = 0.05 / np.sqrt(50)
    sd_of_draws = sd * np.sqrt(49 / 50)
    needed = units_needed(sd_of_draws, sd, 50, alpha=0.05)
    assert needed == 197 == units_needed(0.05 / np.sqrt(197) * np.sqrt(196 / 197), 0.05 / np.sqrt(197), 197, alpha=0.05)
    rng = np.random.default_rng(1)
    p = stats.ttest_1samp(rng.normal(0.01, 0.05, (2000, needed)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    assert units_needed(sd_of_draws, sd, 50, alpha=0.05 / 10) > 1.5 * needed
    assert units_needed(sd_of_draws, sd, 50, alpha=0.05, difference=0.02) == 50


def test_swaps_of_labels_need_images_too() -> None:
    """2^(1 - n) is the smallest p of n images: 6 reach p < .05, and 5 do not."""
    assert units_needed(0.0, 0.0, 10, alpha=0.05) == 6 == units_needed(0.0, 0.0, 1, alpha=0.05)
    assert 2.0 ** (1 - units_needed(0.0, 0.0, 10, alpha=0.005)) < 0.005 <= 2.0 ** (2 - units_needed(0.0, 0.0, 10, alpha=0.005))


def test_rounding_up() -> None:
    assert [rounded_up(n) for n in (0, 7, 10, 38, 100, 137, 2541, 100_001)] == [0, 7, 10, 38, 100, 140, 2600, 110_000]
