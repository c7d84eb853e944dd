"""The findings of a comparison in words: what stands at the top of its page, and what to beware of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.comparison import Comparison
from segpipe.model_scores import HEADLINE, Model
from segpipe.resampling import EXACT_UNITS, FEWEST_GROUPS
from segpipe.wording import points

RARE = 0.02
MUCH_CHEAPER = 0.9
"""A model that costs more than this share of the best one's cost is not called cheaper."""


@dataclass(frozen=True)
class Finding:
    """A short claim and the sentences that carry it."""

    claim: str
    text: str


def findings(comparison: Comparison, class_names: Sequence[str], shares: np.ndarray) -> list[Finding]:
    """The most important findings: the best model and whether its lead is real, the hardest class, the cost of the score.

    `shares` is the part of the test split's labelled pixels in each class, float64 (K,).
    """
    found = [_best(comparison), _hardest(comparison.models, class_names, shares), _cost(comparison)]
    return [finding for finding in found if finding]


def cautions(comparison: Comparison) -> list[str]:
    """What limits this comparison: dependent images, too few of them for any test to succeed, unlike devices."""
    notes = []
    if comparison.unit == "run":
        notes.append(
            f"The {len(comparison.ids)} test images come from fewer than {FEWEST_GROUPS} groups (sequences, patients), so each"
            f" group was cut into runs of consecutive images, {comparison.units} in all. Intervals and tests speak of other"
            " stretches of the same groups, not of other groups."
        )
    if comparison.pairs and comparison.units <= EXACT_UNITS:
        smallest = min(1.0, 2.0 ** (1 - comparison.units) * len(comparison.pairs))
        if smallest >= comparison.alpha:
            notes.append(
                f"With {comparison.units} independent {comparison.unit}s and {len(comparison.pairs)} pairs, no difference however"
                f" large can reach p < {comparison.alpha:g}. More test images would."
            )
    devices = sorted({str(member.cost.get("device")) for model in comparison.models for member in model.members})
    if len(devices) > 1:
        notes.append(f"The models were trained on different devices ({', '.join(devices)}), so their seconds cannot be compared.")
    return notes


def noise_words(models: Sequence[Model]) -> list[str]:
    """Which kind of chance is larger, for each model with several seeds; how to learn it, where there is none."""
    known = [(model.name, model.scores[HEADLINE]) for model in models]
    several = [(name, score, score.training_sd) for name, score in known if score.training_sd is not None]
    if not several:
        return [
            "Every model was trained once, so training noise is unknown. Experiments that differ only in their seed would show it."
        ]
    words = []
    for name, score, sd in several:
        numbers = f"sd {points(sd)} against {points(score.test_sd)} points"
        if sd > score.test_sd:
            words.append(f"{name}: another seed moves the score more than other test images would ({numbers}).")
        else:
            words.append(f"{name}: other test images would move the score more than another seed does ({numbers}).")
    return words


def _best(comparison: Comparison) -> Finding:
    best = comparison.models[0]
    score = best.scores[HEADLINE]
    stands = (
        f"{best.name} reaches {points(score.value)} mIoU points"
        f" ({100 * (1 - comparison.alpha):g} % {points(score.low)} to {points(score.high)})"
    )
    if len(comparison.models) == 1:
        return Finding("There is one model only, so there is nothing to compare.", stands + ".")
    against = [pair for pair in comparison.pairs if pair.a == best.name]
    beaten = [pair.b for pair in against if pair.better]
    tied = [pair.b for pair in against if not pair.better]
    if not tied:
        settled = all(pair.p_seeds is not None and pair.p_seeds <= comparison.alpha for pair in against)
        noise = "" if settled else " on these test images; other seeds may change it"
        claim = f"{best.name} is the best model, and its lead is real{noise}."
    elif beaten:
        claim = f"{best.name} scores highest, but {_and(tied)} may be as good."
        stands += f"; it is better than {_and(beaten)}"
    else:
        claim = f"{best.name} scores highest, but there is no evidence that it is better than any other model."
    stays = f"On resampled test images it stays first in {_chance(comparison.ranking.first_stays)} of the draws."
    return Finding(claim, f"{stands}. {against[0].verdict} {stays}")


def _hardest(models: Sequence[Model], class_names: Sequence[str], shares: np.ndarray) -> Finding | None:
    table = np.array([[score.value for score in model.per_class] for model in models])
    known = np.flatnonzero(~np.isnan(table).all(axis=0))
    if len(known) < 2:
        return None
    hardest = known[np.argmin(np.nanmean(table[:, known], axis=0))]
    column = table[:, hardest]
    top, bottom = models[int(np.nanargmax(column))], models[int(np.nanargmin(column))]
    text = f"Its best IoU is {points(float(np.nanmax(column)))} ({top.name})"
    if len(models) > 1:
        text += f", its worst {points(float(np.nanmin(column)))} ({bottom.name})"
    text += f". It covers {100 * shares[hardest]:.2g} % of the labelled test pixels"
    text += ", so pixel accuracy hardly sees it." if shares[hardest] < RARE else "."
    return Finding(f"The hardest class is {class_names[hardest]}.", text)


def _cost(comparison: Comparison) -> Finding | None:
    best = comparison.models[0]
    for key, words, per in (("wall_seconds", "training time", "s"), ("parameters", "parameters", "")):
        costs = {model.name: model.cost[key] for model in comparison.models if model.cost.get(key)}
        if len(costs) < 2 or best.name not in costs:
            continue
        worse = {pair.b for pair in comparison.pairs if pair.a == best.name and pair.better}
        equals = [name for name in costs if name not in worse and name != best.name]
        cheapest = min(costs, key=lambda name: costs[name])
        if costs[cheapest] > MUCH_CHEAPER * costs[best.name] and cheapest != best.name:
            return Finding(
                f"No model is much cheaper than {best.name} in {words}.",
                f"{cheapest}, the cheapest, takes {_amount(costs[cheapest], per)}, {best.name} {_amount(costs[best.name], per)}.",
            )
        if cheapest == best.name:
            return Finding(f"{best.name} is also the cheapest in {words}.", f"It took {_amount(costs[best.name], per)}.")
        frugal = min(equals, key=lambda name: costs[name], default=best.name)
        name = frugal if costs[frugal] < costs[best.name] else cheapest
        gap = best.scores[HEADLINE].value - next(m for m in comparison.models if m.name == name).scores[HEADLINE].value
        share = costs[name] / costs[best.name]
        claim = f"{name} costs {100 * share:.0f} % of {best.name}'s {words}."
        figures = f"{_amount(costs[name], per)} against {_amount(costs[best.name], per)}"
        if name in worse:
            return Finding(claim, f"It is the cheapest model ({figures}) and scores {points(gap)} mIoU points less.")
        return Finding(claim, f"That is {figures}, and it is not shown to be worse ({points(gap)} mIoU points less).")
    return None


def _chance(share: float) -> str:
    """0.873 as "87 %"; never 100 % or 0 % unless it is so."""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.005 <= share < 0.995 else (">\u00a099 %" if share > 0.5 else "<\u00a01 %")


def _amount(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{number} {unit}".strip()


def _and(names: Sequence[str]) -> str:
    if len(names) > 3:
        return f"{len(names)} other models"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
