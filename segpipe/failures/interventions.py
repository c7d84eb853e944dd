"""Is the suspected cause one? Take it away and look at the margin: logit of the wrong class less that of the true one.

An object and its surroundings are told apart by moving it: unchanged, it is put into another image's surroundings without the
suspected cause, and, as a placebo, into another image's surroundings with it. What both moves do alike (edges, strange
neighbours, the regression of chosen errors to the mean) cancels in their difference. A class that is suspected by its mere
presence is filled with a blur of what surrounds it, but for what touches the object; the placebo fills an equal patch elsewhere.

Objects are drawn from all of the class's in the suspected cell, right or wrong: nothing is chosen by its outcome. Differences are
averaged within units; the interval is Student's over units, p a sign-flip test's.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from segpipe import inference
from segpipe.failures import donors
from segpipe.failures.associations import Association
from segpipe.failures.attribute_words import remedy
from segpipe.failures.attributes import Attributes, masks_of
from segpipe.failures.context import Context

FEWEST, MOST = 8, 40
"""Images per suspicion: fewer prove nothing, more are not needed."""
PASSES = 3
"""Forward passes per image of a suspicion: as it is, with the placebo, with the cause taken away."""
LARGEST = 0.25
"""Share of the image above which a segment is no object that could be moved."""
OBJECTS = 8
"""Objects moved at once, of one image."""
EXACT = 14
"""Up to so many units all sign flips are enumerated."""
DRAWS = 9999


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What taking the cause away does to `n` objects of `images` units.

    `change`, with its 95 % interval, is the margin without it less the margin under the placebo, in logits, mean over the object:
    below zero where the cause was one. `placebo` is what the placebo alone changes. `called` are the shares of objects of which at
    least half gets the wrong class: as they are, under the placebo, without the cause.
    """

    kind: str
    change: float
    low: float
    high: float
    placebo: float
    p: float
    n: int
    images: int
    called: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The objects (positions in the table of segments) of one image for one suspicion, and the images that lend surroundings."""

    suspicion: int
    image: int
    objects: np.ndarray
    lenders: tuple[int, int] | None


def intervene(context: Context, attributes: Attributes, suspected: Sequence[Association], *, passes: int) -> list[Effect | None]:
    """Test each of `suspected` (the most important first) with at most `passes` forward passes in all.

    None for those that have no remedy, that the passes do not reach, or that have too few images to test on.
    """
    testable = [i for i, one in enumerate(suspected) if remedy_of(one)]
    testable = testable[: passes // (PASSES * FEWEST)]
    jobs: dict[int, list[_Job]] = defaultdict(list)
    for i in testable:
        mine = _jobs(context, attributes, suspected[i], i, most=min(MOST, passes // (PASSES * len(testable))))
        if len({int(context.units[job.image]) for job in mine}) >= FEWEST:
            for job in mine:
                jobs[job.image].append(job)
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for image, mine in sorted(jobs.items()):
        for job, values in zip(mine, _measure(context, attributes, suspected, image, mine), strict=True):
            found[job.suspicion].append(values)
    return [_effect(np.concatenate(found[i]), kind=remedy_of(one) or "") if i in found else None for i, one in enumerate(suspected)]


def remedy_of(one: Association) -> str | None:
    """What can be done about the suspected cause (see `attribute_words.remedy`); None also where no class is called instead."""
    return None if one.predicted is None else remedy(one.attribute, one.side, one.predicted)


def _jobs(context: Context, attributes: Attributes, one: Association, number: int, *, most: int) -> list[_Job]:
    """Up to `most` images with objects in the suspected cell, drawn at random, units in turn."""
    rng = np.random.default_rng([context.seed, 103, number])
    table = attributes.segments.iloc[one.rows[one.inside]]
    sides = context.split.column("height"), context.split.column("width")
    pixels = np.array([sides[0][i] * sides[1][i] for i in table["image"]])
    table = table[table["area"].to_numpy() <= LARGEST * pixels]
    images = rng.permutation(np.unique(table["image"].to_numpy(np.int64)))
    # The first image of each unit comes before any second one.
    turn = pd.Series(images).groupby(context.units[images]).cumcount().to_numpy()
    images = images[np.argsort(turn, kind="stable")]
    jobs: list[_Job] = []
    for image in images:
        objects = np.flatnonzero(attributes.segments["image"].to_numpy() == image)
        objects = np.intersect1d(objects, table.index.to_numpy())[:OBJECTS]
        lent = None
        if remedy_of(one) == "swap":
            boxes = _enlarged(attributes.segments.iloc[objects], sides[0][image], sides[1][image])
            lent = donors.lenders(attributes, context.units, one, image=int(image), boxes=boxes, rng=rng)
            if lent is None:
                continue
        jobs.append(_Job(suspicion=number, image=int(image), objects=objects, lenders=lent))
        if len(jobs) == most:
            break
    return jobs


def _enlarged(objects: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """The boxes (n, 4) of objects with half their longer side on each side, as shares of height and width."""
    boxes = objects[["top", "left", "bottom", "right"]].to_numpy(np.float64)
    reach = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])[:, None] / 2
    boxes = (boxes + reach * [-1, -1, 1, 1]) / [height, width, height, width]
    clipped: np.ndarray = boxes.clip(0, 1)
    return clipped


def _measure(
    context: Context, attributes: Attributes, suspected: Sequence[Association], image: int, jobs: Sequence[_Job]
) -> list[np.ndarray]:
    """Per job float64 (objects, 7): unit; the margins as it is, under the placebo, without the cause; and how the object is called
    then (1 = the wrong class)."""
    picture, target, _ = context.arrays(context.split.ids[image])
    labels = [attributes.segments["label"].to_numpy()[job.objects] for job in jobs]
    masks = masks_of(target, np.concatenate(labels).tolist(), ignore_index=context.ignore_index)
    pairs = [(suspected[job.suspicion].true, suspected[job.suspicion].predicted) for job in jobs]
    plain = _logits(context, picture)
    results, start = [], 0
    for job, (true, predicted) in zip(jobs, pairs, strict=True):
        assert predicted is not None
        mine = masks[start : start + len(job.objects)]
        start += len(job.objects)
        versions = _versions(context, suspected[job.suspicion], picture, target, np.asarray(mine.any(axis=0)), job.lenders)
        columns = [_margins(logits, mine, true, predicted) for logits in (plain, *(_logits(context, v) for v in versions))]
        unit = np.full(len(mine), context.units[image], np.float64)
        results.append(np.column_stack([unit, *(margin for margin, _ in columns), *(called for _, called in columns)]))
    return results


def _versions(
    context: Context,
    one: Association,
    picture: np.ndarray,
    target: np.ndarray,
    objects: np.ndarray,
    lenders: tuple[int, int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The image under the placebo, and without the suspected cause."""
    if lenders is not None:
        same, other = (donors.paste(picture, objects, context.arrays(context.split.ids[row])[0]) for row in lenders)
        return same, other
    hole = (target == int(one.attribute.partition("/")[2])) & ~objects
    return donors.fill(picture, _elsewhere(hole, objects), objects), donors.fill(picture, hole, objects)


def _elsewhere(hole: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """A patch of the hole's shape in another place: of its mirror images and half turns the one that fits best."""
    height, width = hole.shape
    moved = [hole[:, ::-1], hole[::-1], hole[::-1, ::-1], np.roll(hole, height // 2, axis=0), np.roll(hole, width // 2, axis=1)]
    return max((patch & ~hole & ~objects for patch in moved), key=np.count_nonzero)


def _logits(context: Context, picture: np.ndarray) -> np.ndarray:
    view = context.viewer
    return inference.predict(view.model, picture, mean=view.mean, std=view.std, size=view.size, device=view.device)


def _margins(logits: np.ndarray, masks: np.ndarray, true: int, predicted: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean margin over each mask, and whether at least half of it is called `predicted`; float64 (n,) each."""
    margins, called = np.empty(len(masks)), np.empty(len(masks))
    for i, mask in enumerate(masks):
        inside = logits[:, mask].astype(np.float64)
        margins[i] = (inside[predicted] - inside[true]).mean()
        called[i] = (inside.argmax(axis=0) == predicted).mean() >= 0.5
    return margins, called


def _effect(values: np.ndarray, *, kind: str) -> Effect:
    """The effect from rows of `_measure`."""
    units, index = np.unique(values[:, 0], return_inverse=True)
    size = np.bincount(index)
    change = np.bincount(index, values[:, 3] - values[:, 2]) / size
    placebo = np.bincount(index, values[:, 2] - values[:, 1]) / size
    mean, half = float(change.mean()), float(stats.t.ppf(0.975, len(units) - 1) * change.std(ddof=1) / np.sqrt(len(units)))
    called = values[:, 4:].mean(axis=0)
    return Effect(
        kind=kind,
        change=mean,
        low=mean - half,
        high=mean + half,
        placebo=float(placebo.mean()),
        p=sign_flip_p(change),
        n=len(values),
        images=len(units),
        called=(float(called[0]), float(called[1]), float(called[2])),
    )


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided p of the hypothesis that the values (n,) are as likely to have the other sign: all flips up to EXACT values, else
    DRAWS random ones with 1 added above and below."""
    n, observed = len(values), abs(float(values.sum())) * (1 - 1e-12)
    if n <= EXACT:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    signs = np.random.default_rng(104).choice([-1.0, 1.0], (DRAWS, n))
    return float((1 + (np.abs(signs @ values) >= observed).sum()) / (1 + DRAWS))
