"""Who is champion: a challenger takes the title only where the paired test says that it is better on the same test images.

Plain values in, decisions out. Holm's correction runs over all challengers at once; what is held is the chance that any of them
takes the title without being better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from segpipe.resampling import Metric, PairResult


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a challenger must show: `metric` (of confusion counts) at least `minimum`, and better in the test at `alpha`."""

    name: str
    metric: "Metric"
    alpha: float
    minimum: float
    resamples: int
    seed: int

    @property
    def settings(self) -> list[str | float]:
        """All of it as plain values."""
        return [self.name, self.alpha, self.minimum, self.resamples, self.seed]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One registered version and how it did on the test split. `counts` is int64 (N, K, K), in the order of `ids` and `groups`."""

    version: str
    experiment: str
    dataset_digest: str
    protocol: str
    counts: np.ndarray
    ids: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`decision` is first, moved, kept or none; `refusals` says of each version that is not champion why not."""

    version: str | None
    decision: str
    reason: str
    refusals: Mapping[str, str]


def decide(champion: Candidate | None, challengers: Sequence[Candidate], *, rule: Rule) -> Decision:
    """Who shall be champion of `challengers` and the present `champion` (None at the very first time).

    A new champion is then challenged by all others in its turn, so that the answer does not change when nothing else does.
    """
    decision, reason = "kept", ""
    if champion is None:
        fit = [c for c in challengers if _score(c, rule) >= rule.minimum]
        if not fit:
            why = f"{rule.name} is below the minimum of {rule.minimum:g}, or undefined"
            refusals = {c.version: why for c in challengers}
            return Decision(version=None, decision="none", reason=f"no champion: every {why}", refusals=refusals)
        champion = max(fit, key=lambda c: _score(c, rule))
        decision = "first"
        reason = f"first champion: {champion.experiment} has the highest {rule.name}, {_score(champion, rule):.4f}"
    while True:
        others = [c for c in challengers if c.version != champion.version]
        verdicts = _challenge(champion, others, rule)
        passed = [c for c in others if verdicts[c.version][0]]
        if not passed:
            refusals = {version: reason for version, (_, reason) in verdicts.items()}
            return Decision(version=champion.version, decision=decision, reason=reason or _kept(others), refusals=refusals)
        winner = max(passed, key=lambda c: _score(c, rule))
        if decision != "first":
            decision = "moved"
        reason = f"{winner.experiment} takes the title: {verdicts[winner.version][1]}"
        champion = winner


def _challenge(champion: Candidate, others: Sequence[Candidate], rule: Rule) -> dict[str, tuple[bool, str]]:
    """For each version: whether it takes the title, and the sentence that says why or why not."""
    from segpipe.resampling import holm, paired_test  # they bring scipy, a second that most calls need not spend

    verdicts: dict[str, tuple[bool, str]] = {}
    tested: list[tuple[Candidate, PairResult]] = []
    top = _score(champion, rule)
    for other in others:
        score = _score(other, rule)
        compared = f"{rule.name} {score:.4f} against {top:.4f} of the champion {champion.experiment} (version {champion.version})"
        if refusal := _incomparable(champion, other):
            verdicts[other.version] = False, refusal
        elif not score >= rule.minimum:
            verdicts[other.version] = False, f"not good enough: {rule.name} {score:.4f}, the minimum is {rule.minimum:g}"
        elif score <= top:
            verdicts[other.version] = False, f"not better: {compared}"
        else:
            place = {name: index for index, name in enumerate(champion.ids)}
            result = paired_test(
                other.counts,
                champion.counts[[place[name] for name in other.ids]],
                other.groups,
                metric=rule.metric,
                resamples=rule.resamples,
                seed=rule.seed,
                alpha=rule.alpha,
            )
            tested.append((other, result))
            verdicts[other.version] = False, compared
    # Those that were not tested cannot be significantly better, but they count as challengers.
    untested = [1.0] * (len(others) - len(tested))
    corrected = holm([result.p for _, result in tested] + untested)
    for (other, result), p in zip(tested, corrected, strict=False):
        passed = p < rule.alpha
        numbers = (
            f"{verdicts[other.version][1]}, difference {result.difference:+.4f} [{result.ci_low:+.4f}, {result.ci_high:+.4f}],"
            f" p = {p:.4f} after Holm over {len(others)}"
        )
        verdicts[other.version] = passed, f"{'better' if passed else 'no evidence of a difference'}: {numbers}"
    return verdicts


def _incomparable(champion: Candidate, other: Candidate) -> str | None:
    clear = "To start anew, take the alias `champion` away in MLflow."
    if other.dataset_digest != champion.dataset_digest or set(other.ids) != set(champion.ids):
        return f"another test set than that of the champion {champion.experiment} (version {champion.version}). {clear}"
    if other.protocol != champion.protocol:
        return f"evaluated in another way ({other.protocol}) than the champion ({champion.protocol}). {clear}"
    return None


def _score(candidate: Candidate, rule: Rule) -> float:
    score = float(rule.metric(candidate.counts.sum(axis=0)))
    return score if not math.isnan(score) else -math.inf


def _kept(others: Sequence[Candidate]) -> str:
    return "no challenger" if not others else f"none of {len(others)} challengers is shown to be better"
