"""May the maps of this network be believed? Two tests on some of its error regions, for each kind of map.

1. Randomised weights (`randomised.py`): a map must change when the weights that it is about become noise.
2. Deletion (`deletion.py`): taking out what a map marks must lower the class's logit faster than taking out cells in random order.

A kind of map is evidence for a network if both hold. Which kind that is differs: behind a layer that gathers wide surroundings in
each of its cells a local map says little of where in the image they came from, behind one that does not Grad-CAM forgets places.

Both tests run on parts of the images, each around one region and half as high and wide: there the maps of the part are tested, at
a quarter of the cost. In all the gate costs about 160 forward passes of whole images, whatever their number.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from segpipe import inference
from segpipe.failures.deletion import REMOVED, Deletion, delete
from segpipe.failures.look import Answer, Question, Viewer, at_size, window_around
from segpipe.failures.randomised import Stage, cascade, stages_of

RANDOMISED, DELETED = 6, 40
"""Regions that the two tests run on, at most."""
COST, LEAST = 140, 16
"""Deletion stops at so many forward passes of whole images, but not before so many regions."""
FEWEST = 6
"""Fewer regions or independent images than this say nothing either way."""
ALIKE = 0.5
"""With all weights randomised, the median |Spearman| and the median SSIM with the original maps must be below this."""
CELLS = 8
"""The part of an image is at least this many cells of the layer high and wide."""
PART = 0.5
RESAMPLES = 2000
TITLES = {"hirescam": "HiResCAM", "gradcam": "Grad-CAM"}
"""The kinds of map, the one that readings rest on first."""
FORWARDS = 2 + (1 + len(TITLES)) * len(REMOVED)
"""Of the part of one image, for its deletion."""
NOT_EVIDENCE = "These maps are not evidence for this model"
UNKNOWN = "Whether these maps are evidence for this model is unknown"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An error region of `image` uint8 (H, W, 3) and its classes; `unit` is the independent unit of the image.

    `share` is how much of the whole image `image` is, by pixels that the network sees.
    """

    image: np.ndarray
    question: Question
    unit: int
    share: float = 1.0


Asked = tuple[Case, Answer]


def check_maps(viewer: Viewer, cases: Sequence[Case], *, seed: int) -> dict[str, Any]:
    """Test the maps of the viewer's first layer on some of `cases`: of each unit the first one before any second one.

    Returns:
        - `passed`: a kind of map holds both tests; `status`: "passed", "failed" or "unknown" (too few regions); `evidence`: the
          kinds that do; `sentence` says so in words; `kind`: the one that the next two are about;
        - `randomised`: for each stage of the cascade {layers, spearman, ssim}, medians over the regions; empty where no module
          has weights;
        - `deletion`: {ordered, random, difference, low, high, n}: the mean areas of the two orders and their difference (random
          less ordered, positive where the map knows better) with its 95 % bootstrap interval over units, over n regions; NaN
          where there are too few;
        - `kinds`: {kind: {status, randomised, deletion}} of all kinds.

        The two numbers of `randomised` are in -1..1, areas in 0..1.
    """
    layer = next(iter(viewer.layers))
    near = replace(viewer, size=None, layers={layer: viewer.layers[layer]})
    shown = (_part(viewer, case, layer) for case in _spread(cases))
    asked = [(case, near.ask(case.image, [case.question])[0]) for case in islice(shown, RANDOMISED)]
    changed = _randomised(near, asked, layer=layer, seed=seed)
    further = ((case, near.ask(case.image, [case.question])[0]) for case in shown)
    enough = len({case.unit for case in cases}) >= FEWEST
    deletion = _deletion(near, chain(asked, further) if enough else (), layer=layer, seed=seed)
    return verdict({kind: {"randomised": changed[kind], "deletion": deletion[kind]} for kind in TITLES})


def verdict(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The result of `check_maps` from the numbers of its two tests, {kind: {randomised, deletion}}."""
    judged = {kind: _judged(found["randomised"], found["deletion"]) for kind, found in kinds.items()}
    evidence = [kind for kind, (status, _) in judged.items() if status == "passed"]
    failed = {kind: words for kind, (status, words) in judged.items() if status == "failed"}
    main = evidence[0] if evidence else next(iter(kinds))
    if evidence:
        status = "passed"
        sentence = f"The maps of {' and '.join(TITLES[kind] for kind in evidence)} passed their checks: {judged[main][1]}."
        sentence += "".join(f" Those of {TITLES[kind]} are not evidence for this model: {words}." for kind, words in failed.items())
    elif len(failed) == len(kinds):
        status = "failed"
        sentence = f"{NOT_EVIDENCE}. " + " ".join(f"{TITLES[kind]}: {words}." for kind, words in failed.items())
    else:
        status = "unknown"
        main = next(kind for kind in kinds if kind not in failed)
        sentence = f"{UNKNOWN}: {judged[main][1]}."
    return {
        "passed": bool(evidence),
        "status": status,
        "evidence": evidence,
        "sentence": sentence,
        "kind": main,
        "randomised": kinds[main]["randomised"],
        "deletion": kinds[main]["deletion"],
        "kinds": {kind: {"status": judged[kind][0], **found} for kind, found in kinds.items()},
    }


def _judged(randomised: Sequence[Mapping[str, Any]], deletion: Mapping[str, Any]) -> tuple[str, str]:
    """The status of one kind of map, and why."""
    last = randomised[-1] if randomised else None
    left = f"Spearman {last['spearman']:.2f}, SSIM {last['ssim']:.2f}" if last else ""
    known = not math.isnan(deletion["low"])
    gain = f"{deletion['difference']:.2f} of the logit's range, 95 % {deletion['low']:.2f} to {deletion['high']:.2f}"
    against = []
    if last and max(last["spearman"], last["ssim"]) >= ALIKE:
        against.append(f"with all weights randomised they stay alike ({left}; less than {ALIKE} is asked for)")
    if known and not deletion["low"] > 0:
        against.append(f"taking out what they mark first does not lower the class's logit faster than a random order does ({gain})")
    if against:
        return "failed", " and ".join(against)
    if last is None:
        return "unknown", "there was nothing to randomise"
    if not known:
        return "unknown", (
            f"it takes error regions on {FEWEST} images that do not depend on each other, in which one of the two classes loses"
            " when the image is blanked, and there are fewer"
        )
    return "passed", (
        f"with all weights randomised little of them is left ({left}), and taking out what they mark first lowers the class's logit"
        f" faster than a random order does ({gain})"
    )


def _spread(cases: Sequence[Case]) -> list[Case]:
    """The cases in their order, but the first of each unit before all second ones, and so on."""
    seen: dict[int, int] = {}
    rounds = []
    for case in cases:
        rounds.append(seen.get(case.unit, 0))
        seen[case.unit] = rounds[-1] + 1
    return [cases[i] for i in np.argsort(rounds, kind="stable")]


def _part(viewer: Viewer, case: Case, layer: str) -> Case:
    """The part of the image around the region, as the network sees it (resized)."""
    image = case.image if viewer.size is None else inference.resize_image(case.image, viewer.size)
    seen = (image.shape[0], image.shape[1])
    least = math.ceil(CELLS * viewer.grids[layer].stride)
    limit = (max(math.ceil(PART * seen[0]), least), max(math.ceil(PART * seen[1]), least))
    top, left, bottom, right = window_around(case.question.region, seen=seen, limit=limit)
    weights = at_size(case.question.region, seen)[top:bottom, left:right]
    region = weights >= weights.max() / 2
    return replace(
        case,
        image=np.ascontiguousarray(image[top:bottom, left:right]),
        question=replace(case.question, region=region),
        share=region.size / (seen[0] * seen[1]),
    )


def _randomised(viewer: Viewer, asked: Sequence[Asked], *, layer: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    if not asked:
        return {kind: [] for kind in TITLES}
    first = asked[0][0]
    stages: list[Stage] = stages_of(viewer.model, lambda: viewer.ask(first.image, [first.question]))
    # One draw of weights per region, so that no single draw decides.
    runs = [
        cascade(viewer, case.image, case.question, answer, layer=layer, stages=stages, seed=_seed(seed, number))
        for number, (case, answer) in enumerate(asked)
    ]
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TITLES}
    for number, stage in enumerate(stages):
        for kind in TITLES:
            spearman, ssim = np.median([run[number][kind] for run in runs], axis=0)
            rows[kind].append({"layers": stage.words, "spearman": float(spearman), "ssim": float(ssim)})
    return rows


def _deletion(viewer: Viewer, asked: Iterable[Asked], *, layer: str, seed: int) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Deletion]] = []
    units: list[int] = []
    spent = 0.0
    for number, (case, answer) in enumerate(asked):
        maps = {kind: answer.maps[layer][kind] for kind in TITLES}
        rng = np.random.default_rng([_seed(seed, number), 3])
        areas = delete(viewer, case.image, case.question, maps, answer.axes[layer], rng=rng)
        spent += case.share * (FORWARDS if areas else 2)
        if areas:
            found.append(areas)
            units.append(case.unit)
        if len(found) == DELETED or (spent > COST and number + 1 >= LEAST):
            break
    if len(set(units)) < FEWEST:
        undefined = dict.fromkeys(("ordered", "random", "difference", "low", "high"), float("nan"))
        return {kind: {**undefined, "n": len(found)} for kind in TITLES}
    result = {}
    for kind in TITLES:
        ordered, random = (np.array([getattr(one[kind], name) for one in found]) for name in ("ordered", "random"))
        low, high = _interval(random - ordered, np.unique(units, return_inverse=True)[1], seed=seed)
        result[kind] = {
            "ordered": float(ordered.mean()),
            "random": float(random.mean()),
            "difference": float((random - ordered).mean()),
            "low": low,
            "high": high,
            "n": len(found),
        }
    return result


def _interval(differences: np.ndarray, units: np.ndarray, *, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over bootstrap draws of units."""
    count = int(units.max()) + 1
    sums, sizes = np.bincount(units, differences, minlength=count), np.bincount(units, minlength=count)
    drawn = np.random.default_rng([seed, 4]).integers(0, count, (RESAMPLES, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
