"""Does the network call things by their surroundings? From associations over suspicions to findings.

An association is a fact about the test set: these errors gather here. It becomes a suspicion where something that could be the
cause, and that can be changed, goes with it; and a finding only where changing it changes the network's answer
(`interventions.py`). What cannot be changed (size, place, the object's own looks) stays an association.

A segment that is lost in the class that surrounds it is left out of suspicions: other surroundings change how well it can be seen,
so a changed margin would not tell bias from camouflage.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from segpipe.failures import associations as search
from segpipe.failures.associations import Association, Suspicion
from segpipe.failures.attribute_words import words
from segpipe.failures.attributes import Attributes
from segpipe.failures.context import Context
from segpipe.failures.interventions import Effect, intervene, remedy_of
from segpipe.resampling import holm

ALPHA = 0.05
"""The false discovery rate of associations, and after Holm's correction the level of interventions."""
MIN_CHANGE = 1.0
"""Logits: a change of the margin below this (odds of 2.7) is no finding, however certain."""
MIN_SHARE = 0.5
"""Of the change that the placebo alone makes: below it the object suffers from being moved more than from its surroundings."""
PASSES = 0.65
"""Forward passes for interventions, per image of the split; with the pictures to make for them they take the time of about 0.8."""
LISTED = 20
"""Hypotheses, and associations, that the document lists at most."""
EQUAL = 0.95
"""Associations of at least this share of the greatest strength are about equal."""
SHOWN = 12
"""Error regions, and images, that an entry names at most."""


def analyse(context: Context, regions: pd.DataFrame, attributes: Attributes) -> dict[str, Any]:
    """The document `bias` of summary.json.

    Args:
        regions: the error regions of the split (columns id, true, predicted, row, column, area).
        attributes: of the same split, see `attributes.collect`.

    Returns:
        `findings` (confirmed), `dropped` (tested and not confirmed), `hypotheses` (suspicions that were not tested) and
        `associations` (with nothing that could be changed), those behind most errors first, at most LISTED of the last two;
        `counts` of all of them; `tested`, the number of associations tested; `sentence`. An entry holds sentence (what was
        seen), true_name, predicted_name (None: any), attribute (its `key` in words), value (the cut, or the level), side (low,
        high or is), where (both in words), rate and rate_else of regions and others segments, images (independent ones), lift
        with its interval low, high; p, q; also (what else goes with it), rows (of `regions`) and ids to look at, and the
        intervention (with its own sentence) or None.
    """
    segments = attributes.segments
    found, tested = search.associate(
        segments, attributes.names, num_classes=len(context.class_names), seed=context.seed, alpha=ALPHA
    )
    suspected: list[tuple[Suspicion, Suspicion]] = []
    others: list[Suspicion] = []
    for suspicion in search.suspicions(found, segments, seed=context.seed, alpha=ALPHA):
        lead = suspicion.lead
        if lead.predicted is None or _is_lost(segments, lead) or (led := _changeable(suspicion)) is None:
            others.append(suspicion)
        else:
            suspected.append((led, suspicion))
    # A class as a whole repeats what its pairs say.
    pairs = {s.lead.true for s in (*others, *(led for led, _ in suspected)) if s.lead.predicted is not None}
    others = [s for s in others if s.lead.predicted is not None or s.lead.true not in pairs]
    suspected.sort(key=lambda both: -(both[0].lead.rate - both[0].lead.rate_else) * both[0].lead.regions)
    passes = int(PASSES * len(context.split))
    effects = intervene(context, attributes, [led.lead for led, _ in suspected], passes=passes)
    done = [i for i, effect in enumerate(effects) if effect is not None]
    corrected = dict(zip(done, holm([e.p for e in effects if e is not None]), strict=True)) if done else {}
    document: dict[str, Any] = {"findings": [], "dropped": [], "hypotheses": [], "associations": []}
    for i, ((led, original), effect) in enumerate(zip(suspected, effects, strict=True)):
        confirmed = effect is not None and is_confirmed(effect, p=corrected[i])
        outcome = None if effect is None else _outcome(context, led.lead, effect, corrected[i], confirmed)
        verdict = "hypotheses" if effect is None else "findings" if confirmed else "dropped"
        document[verdict].append(_entry(context, regions, segments, led, outcome))
        if not confirmed and led is not original:
            others.append(original)
    others.sort(key=lambda s: -(s.lead.rate - s.lead.rate_else) * s.lead.regions)
    document["associations"] = [_entry(context, regions, segments, suspicion, None) for suspicion in others]
    counts = {key: len(entries) for key, entries in document.items()}
    for key in ("hypotheses", "associations"):
        del document[key][LISTED:]
    return document | {"tested": tested, "counts": counts, "sentence": _summary(document, counts, tested)}


def is_confirmed(effect: Effect, *, p: float) -> bool:
    """Whether an effect, with its corrected p, makes a finding: certain, in the expected direction, and large enough, also against
    what the placebo alone does."""
    return p <= ALPHA and effect.high < 0 and effect.change <= -max(MIN_CHANGE, MIN_SHARE * abs(effect.placebo))


def _is_lost(segments: pd.DataFrame, one: Association) -> bool:
    """Whether most of the wrong segments went to the class that surrounds them."""
    mine = segments.iloc[one.rows[one.inside]]
    wrong = mine[mine["confused"] == one.predicted]
    return bool((wrong["around"] == one.predicted).mean() >= 0.5)


def _changeable(suspicion: Suspicion) -> Suspicion | None:
    """The same suspicion led by its strongest association that has a remedy, of about equal ones the one about the surroundings;
    None if none has."""
    members = [suspicion.lead, *suspicion.also]
    able = [one for one in members if remedy_of(one)]
    if not able:
        return None
    strongest = max(one.strength for one in able)
    lead = max(able, key=lambda one: (one.strength >= EQUAL * strongest, one.attribute.startswith("around/"), one.strength))
    if lead is suspicion.lead:
        return suspicion
    return Suspicion(lead, tuple(one for one in members if one is not lead))


def _entry(
    context: Context, regions: pd.DataFrame, segments: pd.DataFrame, suspicion: Suspicion, intervention: dict[str, Any] | None
) -> dict[str, Any]:
    one, names = suspicion.lead, context.class_names
    what, where = _words(one, names)
    also = list(dict.fromkeys(_words(other, names)[1] for other in suspicion.also))
    rows, ids = _examples(regions, segments, one)
    entry: dict[str, Any] = {
        "true_name": names[one.true],
        "predicted_name": None if one.predicted is None else names[one.predicted],
        "key": one.attribute,
        "attribute": what,
        "value": one.cut,
        "side": one.side,
        "where": where,
        "also": also,
        "rate": one.rate,
        "rate_else": one.rate_else,
        "regions": one.regions,
        "others": one.others,
        "images": one.images,
        "lift": one.lift,
        "low": one.low,
        "high": one.high,
        "p": one.p,
        "q": one.q,
        "rows": rows,
        "ids": ids,
        "intervention": intervention,
    }
    return entry | {"sentence": _sentence(entry)}


def _outcome(context: Context, one: Association, effect: Effect, p: float, confirmed: bool) -> dict[str, Any]:
    true, predicted = context.class_names[one.true], context.class_names[one.predicted or 0]
    moved = {
        "swap": (f"Moving the same {true} objects into other surroundings", "moving them into surroundings of the same kind"),
        "fill": ("Filling those pixels with a blur of what surrounds them", "filling an equal patch elsewhere"),
    }[effect.kind]
    verb = "lowers" if effect.change < 0 else "raises"
    low, high = sorted((abs(effect.low), abs(effect.high))) if effect.low * effect.high > 0 else (effect.low, effect.high)
    if effect.low * effect.high > 0:
        said = f"{verb} the margin of {predicted} over {true} by {abs(effect.change):.1f} logits (95 % {low:.1f} to {high:.1f})"
    else:
        said = f"changes the margin of {predicted} over {true} by {effect.change:+.1f} logits (95 % {low:+.1f} to {high:+.1f})"
    sentence = (
        f"{moved[0]} {said}, against {moved[1]}, which alone changes it by {effect.placebo:+.1f}"
        f" ({effect.n} objects, p = {p:.2g}): {'confirmed' if confirmed else 'not confirmed'}."
    )
    return {
        "kind": effect.kind,
        "change": effect.change,
        "low": effect.low,
        "high": effect.high,
        "placebo": effect.placebo,
        "p": p,
        "n": effect.n,
        "images": effect.images,
        "called": dict(zip(("before", "placebo", "without"), effect.called, strict=True)),
        "sentence": sentence,
    }


def _words(one: Association, names: Sequence[str]) -> tuple[str, str]:
    return words(one.attribute, one.side, names, one.cut if isinstance(one.cut, str) else None)


def _sentence(entry: dict[str, Any]) -> str:
    called = "is wrong" if entry["predicted_name"] is None else f"is called {entry['predicted_name']}"
    measured = entry["key"] not in ("group", "folder") and not entry["key"].startswith(("with/", "beside/", "object/border"))
    cut = f" ({entry['attribute']} {'below' if entry['side'] == 'low' else 'above'} {entry['value']:.3g})" if measured else ""
    share = "of the pixels of" if entry["predicted_name"] is None else "of"
    text = (
        f"{entry['true_name']} {called} {entry['where']}{cut}: {100 * entry['rate']:.0f} % {share} {entry['regions']}"
        f" against {100 * entry['rate_else']:.0f} % of {entry['others']} elsewhere."
    )
    if entry["also"]:
        text += f" With it go: {', '.join(entry['also'][:3])}."
    return text


def _examples(regions: pd.DataFrame, segments: pd.DataFrame, one: Association) -> tuple[list[int], list[str]]:
    """The largest error regions behind an association (their rows in `regions`), and the images where it fails most."""
    mine = segments.iloc[one.rows[one.inside]]
    wrong = mine[mine["confused"] == one.predicted] if one.predicted is not None else mine[mine["wrong"] >= 0.5]
    ids = list(dict.fromkeys(wrong.sort_values("area", ascending=False, kind="stable")["id"]))[:SHOWN]
    some = regions[(regions["true"] == one.true) & regions["id"].isin(set(wrong["id"]))]
    if one.predicted is not None:
        some = some[some["predicted"] == one.predicted]
    pairs = some.reset_index(names="region_row").merge(wrong[["id", "top", "left", "bottom", "right"]], on="id")
    inside = pairs["row"].between(pairs["top"], pairs["bottom"]) & pairs["column"].between(pairs["left"], pairs["right"])
    best = pairs[inside].drop_duplicates("region_row").sort_values(["area", "region_row"], ascending=[False, True])
    return [int(row) for row in best["region_row"][:SHOWN]], [str(name) for name in ids]


def _summary(document: dict[str, Any], counts: dict[str, int], tested: int) -> str:
    if count := counts["findings"]:
        first = document["findings"][0]
        head = "One bias was" if count == 1 else f"{count} biases were"
        return f"{head} confirmed by changing the suspected cause. {first['sentence']} {first['intervention']['sentence']}"
    if not tested:
        return (
            f"No bias could be looked for: that takes a class with at least {2 * search.FEW} objects, {search.MIN_ERRORS} of them"
            f" wrong, in {search.MIN_UNITS} independent images."
        )
    text = f"No bias was found: {tested} associations of errors with looks, places and company were tested"
    text += f" (false discovery rate {100 * ALPHA:.0f} %)"
    if dropped := counts["dropped"]:
        causes = (
            "the one suspected cause that was changed does"
            if dropped == 1
            else f"the {dropped} suspected causes that were changed do"
        )
        text += f", and {causes} not change the answers as a bias would"
    if open_ := counts["hypotheses"]:
        text += f"; {open_} suspicion{'s' if open_ > 1 else ''} could not be put to that test, for want of images"
    return f"{text}."
