"""Which error regions are explained: spread over the class pairs, large ones first and more often, the same for the same seed."""

import hashlib

import numpy as np
import pandas as pd

MIN_AREA = 32
"""Pixels: smaller regions stay in every count, but there is nothing in them to look at."""
LARGEST = "the largest of its class pair"
DRAWN = "drawn from its class pair with a chance that grows with its area"


def choose(regions: pd.DataFrame, *, count: int, seed: int, min_area: int = MIN_AREA) -> pd.DataFrame:
    """Choose up to `count` rows of a table of error regions.

    Places go to class pairs by the square root of their error pixels (Sainte-Laguë's divisors): frequent confusions get more of
    them, rare ones are not crowded out. Inside a pair the largest region comes first; the others are drawn without replacement,
    with weights proportional to area (Efraimidis and Spirakis 2006). The draw of a region depends on the seed, its image and
    its number only.

    Args:
        regions: columns id, region, true, predicted, area; any index.

    Returns:
        One row per chosen region: its `index` in `regions`, and the `reason`; the costliest pairs first, then by area.
    """
    groups = by_pair(regions[regions["area"] >= min_area])
    pixels = {pair: int(group["area"].sum()) for pair, group in by_pair(regions).items()}
    ranked = sorted(groups, key=lambda pair: (-pixels[pair], pair))
    weights = np.sqrt([float(pixels[pair]) for pair in ranked])
    places = np.zeros(len(ranked), np.int64)
    sizes = np.array([len(groups[pair]) for pair in ranked], np.int64)
    for _ in range(min(count, int(sizes.sum()))):
        claims = np.where(places < sizes, weights / (2 * places + 1), -1.0)
        places[int(np.argmax(claims))] += 1
    chosen = []
    for pair, number in zip(ranked, places, strict=True):
        if number == 0:
            continue
        group = groups[pair].sort_values(["area", "id", "region"], ascending=[False, True, True])
        rest = group.iloc[1:]
        keys = np.array([_uniform(seed, i, r) for i, r in zip(rest["id"], rest["region"], strict=True)])
        drawn = rest.iloc[np.argsort(np.log(keys) / rest["area"].to_numpy(float), kind="stable")[::-1][: number - 1]]
        drawn = drawn.sort_values(["area", "id", "region"], ascending=[False, True, True])
        chosen += [(group.index[0], LARGEST), *((index, DRAWN) for index in drawn.index)]
    return pd.DataFrame(chosen, columns=["index", "reason"])


def by_pair(regions: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    """The rows of each (true, predicted) class pair that has any."""
    true, predicted = regions["true"].to_numpy(np.int64), regions["predicted"].to_numpy(np.int64)
    order = np.lexsort((predicted, true))
    changes = np.flatnonzero(np.diff(true[order]) | np.diff(predicted[order])) + 1
    parts = [part for part in np.split(order, changes) if len(part)]
    return {(int(true[part[0]]), int(predicted[part[0]])): regions.iloc[part] for part in parts}


def _uniform(seed: int, image: str, region: int) -> float:
    """A number in (0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256(f"{seed}\0{image}\0{region}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 2)
