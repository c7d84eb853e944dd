"""The gate's decisions on confusion counts of known quality."""

from dataclasses import replace

from segpipe.tracking import gate
from tests.tracking.workspace import RULE, confusions

IMAGES = 30


def candidate(version: str, quality: float, *, seed: int = 0, digest: str = "d1", protocol: str = "plain") -> gate.Candidate:
    ids = [f"i{i}" for i in range(IMAGES)]
    return gate.Candidate(
        version=version,
        experiment=f"e{version}",
        dataset_digest=digest,
        protocol=protocol,
        counts=confusions(quality, images=IMAGES, seed=seed),
        ids=ids,
        groups=ids,
    )


def test_the_first_champion_is_the_best_that_is_good_enough() -> None:
    decision = gate.decide(None, [candidate("1", 0.6), candidate("2", 0.8, seed=1)], rule=RULE)
    assert (decision.version, decision.decision) == ("2", "first")
    assert "not better" in decision.refusals["1"]


def test_nobody_is_champion_below_the_minimum() -> None:
    decision = gate.decide(None, [candidate("1", 0.6)], rule=replace(RULE, minimum=0.9))
    assert (decision.version, decision.decision) == (None, "none")
    assert "minimum of 0.9" in decision.reason


def test_a_clearly_better_challenger_takes_the_title() -> None:
    decision = gate.decide(candidate("1", 0.7), [candidate("1", 0.7), candidate("2", 0.8, seed=1)], rule=RULE)
    assert (decision.version, decision.decision) == ("2", "moved")
    assert "e2 takes the title: better" in decision.reason and "p = " in decision.reason
    assert set(decision.refusals) == {"1"}


def test_of_several_better_ones_the_best_takes_it_and_the_others_are_told_why() -> None:
    challengers = [candidate("2", 0.75, seed=1), candidate("3", 0.85, seed=2)]
    decision = gate.decide(candidate("1", 0.6), challengers, rule=RULE)
    assert decision.version == "3"
    assert "not better" in decision.refusals["2"]


def test_a_difference_that_may_be_chance_is_refused() -> None:
    champion, other = candidate("1", 0.7), candidate("2", 0.7, seed=1)
    better, worse = sorted((champion, other), key=lambda c: -RULE.metric(c.counts.sum(axis=0)))
    decision = gate.decide(worse, [better], rule=RULE)
    assert (decision.version, decision.decision) == (worse.version, "kept")
    assert "no evidence of a difference" in decision.refusals[better.version]


def test_holm_counts_every_challenger() -> None:
    champion = candidate("1", 0.7)
    # Eight images are better and all others equal: p = 2 / 2^8 = 0.008 alone, and ten times that among ten challengers.
    counts = champion.counts.copy()
    counts[:8] = candidate("x", 0.99).counts[:8]
    close = replace(candidate("2", 0.7), counts=counts)
    rule = replace(RULE, resamples=2000)
    assert gate.decide(champion, [close], rule=rule).version == "2"
    crowd = [candidate(str(i), 0.3, seed=i) for i in range(3, 12)]
    decision = gate.decide(champion, [close, *crowd], rule=rule)
    assert decision.version == "1" and "Holm over 10" in decision.refusals["2"]


def test_another_test_set_is_no_match() -> None:
    champion = candidate("1", 0.6)
    for other in (candidate("2", 0.9, digest="d2"), replace(candidate("2", 0.9), ids=[f"j{i}" for i in range(IMAGES)])):
        decision = gate.decide(champion, [other], rule=RULE)
        assert decision.version == "1"
        assert "another test set" in decision.refusals["2"]


def test_another_way_of_evaluating_is_no_match() -> None:
    decision = gate.decide(candidate("1", 0.6), [candidate("2", 0.9, protocol="flip")], rule=RULE)
    assert decision.version == "1" and "evaluated in another way (flip)" in decision.refusals["2"]


def test_images_are_matched_by_id_not_by_order() -> None:
    champion = candidate("1", 0.7)
    backwards = replace(champion, version="2", counts=champion.counts[::-1].copy(), ids=list(champion.ids)[::-1])
    counts = backwards.counts.copy()
    counts[:, 0, 0] += 30
    counts[:, 0, 1] -= 30
    decision = gate.decide(champion, [replace(backwards, counts=counts)], rule=RULE)
    # Every single image is better by the same step, which shows only if the pairs are right.
    assert decision.version == "2" and "p = 0.0050" in decision.reason


def test_an_undefined_score_never_wins() -> None:
    empty = replace(candidate("2", 0.9), counts=candidate("2", 0.9).counts * 0)
    assert gate.decide(None, [empty], rule=RULE).version is None
