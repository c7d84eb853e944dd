"""Failure modes: each error region gets exactly one, so the pixels of all modes sum to the wrong pixels.

A first taxonomy of five. The rules are tried in the order of MODES and the first that holds decides; they look at the region's
own columns only, so a finer taxonomy (merge, split, partial) is another rule here and nothing elsewhere.
"""

from collections.abc import Mapping

import numpy as np

MODES = {
    "missed": "a segment that the prediction swallows: almost none of it is right, its surroundings' class covers it",
    "confusion": "a segment named as one wrong class over at least half of its area",
    "hallucinated": "a predicted segment of a class that is hardly there at all",
    "boundary": "a thin error along the border between the two classes",
    "other": "none of these: a part of a segment, neither thin nor most of it",
}
ABSENT = 0.1  # a segment of which less than this share is right counts as not found
COVERED = 0.5
AT_BOUNDARY = 0.9


def assign(table: Mapping[str, np.ndarray], *, radius: float) -> np.ndarray:
    """The mode of each row of an `error_regions` table, as an array of names.

    `radius` (pixels) is the boundary radius of the image the rows come from: a boundary error is at most 2 * radius thick.
    """
    supported = table["predicted_correct"] >= ABSENT
    rules = [
        (table["segment_correct"] < ABSENT) & supported,
        table["segment_share"] >= COVERED,
        ~supported,
        (table["boundary_share"] >= AT_BOUNDARY) & (table["thickness"] <= 2 * radius),
    ]
    names = np.array(list(MODES), dtype=object)
    return names[np.select(rules, range(len(rules)), default=len(MODES) - 1)]
