"""Failure modes: each error region gets exactly one, so the pixels of all modes sum to the wrong pixels.

The rules are tried in the order of MODES and the first that holds decides; they look at the region's own columns only. Beside its
mode a region may carry modifiers, any number of them.

What comes after this file counts, ranks and chooses errors by six columns: `id`, `region`, `true`, `predicted`, `area` and
`mode`. A task that finds instances fills the same six, one row per wrong instance, with the mode that `TIDE` gives to its error
type, `area` the pixels of the mask, and `predicted` the true class for errors of place alone.
"""

from collections.abc import Mapping

import numpy as np

MODES = {
    "missed": "a segment that the prediction swallows: almost none of it is right, its surroundings' class covers it",
    "hallucinated": "a predicted segment of a class that is hardly there at all",
    "confusion": "a segment named as one wrong class over at least half of its area",
    "merge": "what joins two or more segments of a class into one predicted segment",
    "split": "what cuts a segment into two or more predicted segments of its class",
    "boundary": "a thin error along the border between the two classes",
    "partial": "a prediction that stops short of its segment's end, or runs over it, by more than a thin border",
    "other": "none of these: wrong pixels among other wrong pixels",
}
MODIFIERS = {
    "small": "part of a true segment below 32 x 32 pixels (in images above 1 megapixel: below 0.1 % of them)",
    "suspect": "thick, and the network is very sure of it: look whether the label is right",
    "noise": "fewer than 64 pixels",
}
TIDE = {
    "Cls": "confusion",
    "Loc": "partial",
    "Both": "other",
    "Dupe": "split",
    "Bkg": "hallucinated",
    "Miss": "missed",
}
"""The error types of TIDE (Bolya et al. 2020, arXiv 2008.08115) and the mode that stands for each."""

ABSENT = 0.1  # a segment of which less than this share is right counts as not found
COVERED = 0.5
AT_BOUNDARY = 0.9
NOISE = 64
SURE = 0.95
SMALL_AREA, SMALL_SHARE = 32**2, 0.001


def assign(table: Mapping[str, np.ndarray], *, radius: float) -> np.ndarray:
    """The mode of each row of an `error_regions` table, as an array of names.

    A predicted segment without support (hardly any of it is right) that covers at least half of a true segment is that segment
    misnamed, not hallucinated.

    `radius` (pixels) is the boundary radius of the image the rows come from: a boundary error is at most 2 * radius thick.
    """
    supported, covered = table["predicted_correct"] >= ABSENT, table["segment_share"] >= COVERED
    rules = {
        "missed": (table["segment_correct"] < ABSENT) & supported,
        "hallucinated": ~supported & ~covered,
        "confusion": covered,
        "merge": table["joins"],
        "split": table["cuts"],
        "boundary": (table["boundary_share"] >= AT_BOUNDARY) & (table["thickness"] <= 2 * radius),
        "partial": table["touches_true"] | table["touches_predicted"],
    }
    names = np.array(list(MODES), dtype=object)
    assert [*rules, "other"] == list(MODES)
    return names[np.select(list(rules.values()), range(len(rules)), default=len(rules))]


def modifiers(table: Mapping[str, np.ndarray], *, radius: float, below: float) -> dict[str, np.ndarray]:
    """The columns of MODIFIERS, bool (n,). Unknown confidence makes no suspect; `below` is `small_below` of the image."""
    return {
        "small": table["segment_area"] < below,
        "suspect": (table["confidence"] > SURE) & (table["thickness"] > 2 * radius),
        "noise": table["area"] < NOISE,
    }


def small_below(height: int, width: int) -> float:
    """Pixels: a true segment below this is small. COCO's 32 x 32, or 0.1 % of the image where that is more (above 1 megapixel).

    The rule does not shrink with the image: on one of 128 x 160 pixels, 32 x 32 are 5 % of it, and most things there are small.
    """
    return max(SMALL_AREA, SMALL_SHARE * height * width)
