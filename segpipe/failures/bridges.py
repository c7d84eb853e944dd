"""Which error regions make one predicted segment of several true ones (merge), or cut a true segment into several (split).

True and predicted segments of one class are linked where they share more than a tenth of each (the two-sided overlap of
over- and under-segmentation measures, Zhang et al. 2021, arXiv 2101.08418). A predicted segment with two or more links merges
true ones; a true segment with two or more links is split. Of their wrong pixels only those bear the blame that bridge the linked
segments: an error region that touches the right pixels of two of them, or, where no region does so alone, all regions of a
connected group that do so together. A fringe elsewhere along the same segment is no part of it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from segpipe.failures.labelling import join, root

LINKED = 0.1


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of one image, as labels int32 (H, W) 1..n (0 where the truth is ignored), and per label (index 0 unused) the
    pixels and the right pixels."""

    labels: np.ndarray
    area: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Contacts:
    """Per error region, bool (n,): it touches right pixels of its own true, of its own predicted segment; it joins; it cuts."""

    touches_true: np.ndarray
    touches_predicted: np.ndarray
    joins: np.ndarray
    cuts: np.ndarray


def contacts(
    errors: np.ndarray, *, count: int, true: np.ndarray, predicted: np.ndarray, numbers: tuple[int, int]
) -> tuple[Contacts, Segments, Segments]:
    """How the error regions of one image lie to its segments.

    Args:
        errors: labels int32 (H, W) of the `count` error regions, 0 where nothing is wrong.
        true, predicted: labels int32 (H, W) of the 8-connected segments of each, 0 where the truth is ignored; `numbers` of them.

    Returns:
        The contacts, and the true and the predicted segments.
    """
    sizes, keys, lengths = _tally(errors, true, predicted, numbers[0] + 1, numbers[1] + 1)
    truth = Segments(labels=true, area=sizes[0], right=sizes[1])
    guess = Segments(labels=predicted, area=sizes[2], right=sizes[3])
    links = _links(keys, lengths, truth.area, guess.area)
    found = _contacts(errors, count, true, predicted, *links, len(guess.area))
    touches, parents, first, second = found
    bridges = [_bridges(parents[k], first[k], second[k]) for k in (0, 1)]
    return (
        Contacts(touches_true=touches[0], touches_predicted=touches[1], joins=bridges[0], cuts=bridges[1]),
        truth,
        guess,
    )


def _links(
    keys: np.ndarray, lengths: np.ndarray, area_true: np.ndarray, area_predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sorted keys of linked pairs, and per predicted and per true segment whether it has two or more links."""
    pairs, inverse = np.unique(keys, return_inverse=True)
    overlap = np.bincount(inverse, weights=lengths, minlength=len(pairs))
    true, predicted = np.divmod(pairs, len(area_predicted))
    linked = (overlap > LINKED * area_true[true]) & (overlap > LINKED * area_predicted[predicted])
    merging = np.bincount(predicted[linked], minlength=len(area_predicted)) >= 2
    splitting = np.bincount(true[linked], minlength=len(area_true)) >= 2
    return pairs[linked], merging, splitting


@njit(cache=True, nogil=True)
def _tally(
    errors: np.ndarray, true: np.ndarray, predicted: np.ndarray, trues: int, guesses: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Pixels and right pixels per true and per predicted segment; and the right pixels as runs along the rows: key
    (true label * guesses + predicted label) and length of each."""
    height, width = errors.shape
    area_true, right_true = np.zeros(trues, np.int64), np.zeros(trues, np.int64)
    area_guess, right_guess = np.zeros(guesses, np.int64), np.zeros(guesses, np.int64)
    keys, lengths = np.empty(errors.size, np.int64), np.empty(errors.size, np.int64)
    runs = 0
    for y in range(height):
        before = np.int64(-1)
        for x in range(width):
            t, p = true[y, x], predicted[y, x]
            if t == 0:
                before = np.int64(-1)
                continue
            area_true[t] += 1
            area_guess[p] += 1
            if errors[y, x] != 0:
                before = np.int64(-1)
                continue
            right_true[t] += 1
            right_guess[p] += 1
            key = np.int64(t) * guesses + p
            if key != before:
                before = key
                keys[runs], lengths[runs] = key, 0
                runs += 1
            lengths[runs - 1] += 1
    return (area_true, right_true, area_guess, right_guess), keys[:runs].copy(), lengths[:runs].copy()


@njit(cache=True, nogil=True)
def _contacts(
    errors: np.ndarray,
    count: int,
    true: np.ndarray,
    predicted: np.ndarray,
    links: np.ndarray,
    merging: np.ndarray,
    splitting: np.ndarray,
    guesses: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What each error region touches; rows: 0 about its true (touches) or merging (the rest), 1 about its other segment.

    touches bool (2, n); forests int32 (2, n) of regions that touch each other inside one merging or split segment; the first linked
    segment that a region touches, int32 (2, n), and whether it touches another one, bool (2, n).
    """
    height, width = errors.shape
    touches = np.zeros((2, count), np.bool_)
    parents = np.empty((2, count), np.int32)
    parents[0], parents[1] = np.arange(count), np.arange(count)
    first, second = np.zeros((2, count), np.int32), np.zeros((2, count), np.bool_)
    for y in range(height):
        for x in range(width):
            e = errors[y, x]
            if e == 0:
                continue
            t, p = true[y, x], predicted[y, x]
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if errors[v, u] == e:
                        continue
                    # A neighbour of the same class lies in the same segment, so equal labels are equal classes.
                    if predicted[v, u] == p:
                        if errors[v, u] == 0:
                            touches[1, e - 1] = True
                            if merging[p]:
                                _note(first[0], second[0], e - 1, true[v, u], links, np.int64(true[v, u]) * guesses + p)
                        elif merging[p]:
                            join(parents[0], e - 1, errors[v, u] - 1)
                    if true[v, u] == t:
                        if errors[v, u] == 0:
                            touches[0, e - 1] = True
                            if splitting[t]:
                                _note(first[1], second[1], e - 1, predicted[v, u], links, np.int64(t) * guesses + predicted[v, u])
                        elif splitting[t]:
                            join(parents[1], e - 1, errors[v, u] - 1)
    return touches, parents, first, second


@njit(cache=True, nogil=True)
def _note(first: np.ndarray, second: np.ndarray, region: int, segment: int, links: np.ndarray, key: int) -> None:
    """Note that a region touches a segment, if the segment is linked."""
    if first[region] == segment or second[region]:
        return
    place = np.searchsorted(links, key)
    if place < len(links) and links[place] == key:
        second[region] = first[region] != 0
        if first[region] == 0:
            first[region] = segment


@njit(cache=True, nogil=True)
def _bridges(parent: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """bool (n,): the regions that touch two linked segments alone, and the groups that do so together where no member does."""
    count = len(parent)
    result = second.copy()
    alone, together = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    seen = np.zeros(count, np.int32)
    for i in range(count):
        r = root(parent, i)
        alone[r] |= second[i]
        if first[i] != 0:
            together[r] |= seen[r] != 0 and seen[r] != first[i]
            seen[r] = first[i]
    for i in range(count):
        r = root(parent, i)
        result[i] |= together[r] and not alone[r]
    return result
