"""Groups among the explained error regions: which of them go wrong in the same way.

Regions are grouped by k-means that starts from Ward's tree (no random start: the same regions give the same groups). Two questions
are asked before a group is shown. Is there more structure than chance makes? The silhouettes are compared with those of data
without groups (one normal cloud per block of numbers, names shuffled; the idea of the gap statistic, Tibshirani et al. 2001, and of
SigClust, Liu et al. 2008). And does it come back when the images are drawn anew? Groups are matched by Jaccard's index over
bootstrap draws (Hennig 2007, doi 10.1016/j.csda.2006.11.025), and the whole grouping by the adjusted Rand index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from segpipe.failures.cluster_names import describe
from segpipe.failures.features import Block, blocks

FEWEST = 12
"""Chosen regions below which no groups are looked for."""
SMALLEST = 4
"""Regions of a group that is reported, from at least two units."""
MOST = 8
DRAWS = 50
REFERENCES = 99
ALPHA = 0.05
STABLE = 0.6
"""Mean Jaccard index of a group with its best match over the draws; below it a group may be chance's (Hennig 2007)."""
MEDOIDS = 3


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """`labels` int32 (n,): the group of each region, 0 the one with the most regions, -1 for none; `document`: the key `clusters`
    of summary.json."""

    labels: np.ndarray
    document: dict[str, Any]


def cluster(
    regions: pd.DataFrame, features: np.ndarray, *, units: np.ndarray, class_names: Sequence[str], layer: str, seed: int
) -> Clusters:
    """Group the chosen error regions.

    Args:
        regions: the chosen rows of regions.parquet, their index that of the table: id, region, mode, true, predicted, area, and the
            measures of `layer`.
        features: float (n, C), the mean of the layer's activation over each region; NaN rows where unknown.
        units: int (n,), the independent unit of each region's image.

    Returns:
        The same groups for every order of the rows.
    """
    n = len(regions)
    assert len(features) == len(units) == n, f"{n} regions, {len(features)} features, {len(units)} units"
    none = np.full(n, -1, np.int32)
    if n < FEWEST:
        text = f"{n} region{'s were' if n != 1 else ' was'} explained: too few to look for groups among them ({FEWEST} are needed)."
        return Clusters(labels=none, document=_document([], None, text))
    order = np.lexsort((regions["region"].to_numpy(), regions["id"].to_numpy(str)))
    table, units = regions.iloc[order], np.asarray(units)[order]
    found = blocks(table, np.asarray(features)[order], layer=layer)
    points = np.hstack([block.values for block in found]) if found else np.zeros((n, 1))
    rng = np.random.default_rng([seed, 8])
    k, p = _number(found, points, rng)
    if p > ALPHA:
        text = f"The {n} explained regions form no groups: they are no more alike than chance makes them (p = {p:.2f})."
        return Clusters(labels=none, document=_document([], None, text))
    labels = _partition(points, k)
    jaccard, agreement = _stability(points, labels, units, rng)
    kept = [c for c in range(k) if jaccard[c] >= STABLE and (labels == c).sum() >= SMALLEST and len(set(units[labels == c])) > 1]
    kept.sort(key=lambda c: (-int((labels == c).sum()), int(np.argmax(labels == c))))
    renamed = np.full(n, -1, np.int32)
    for number, c in enumerate(kept):
        renamed[labels == c] = number
    rows = [
        _row(number, table, renamed == number, points, units, class_names=class_names, layer=layer, jaccard=jaccard[c])
        for number, c in enumerate(kept)
    ]
    _tell_apart(rows)
    none[order] = renamed
    return Clusters(labels=none, document=_document(rows, agreement, _sentence(rows, n, k, agreement)))


def _document(rows: list[dict[str, Any]], agreement: float | None, sentence: str) -> dict[str, Any]:
    return {"clusters": rows, "stability": agreement, "sentence": sentence}


def _row(
    number: int,
    table: pd.DataFrame,
    inside: np.ndarray,
    points: np.ndarray,
    units: np.ndarray,
    *,
    class_names: Sequence[str],
    layer: str,
    jaccard: float,
) -> dict[str, Any]:
    name, shared = describe(table, inside, class_names=class_names, layer=layer)
    pixels = int(table.loc[inside, "area"].sum())
    return {
        "cluster": number,
        "name": name,
        "regions": int(inside.sum()),
        "images": int(table.loc[inside, "id"].nunique()),
        "pixels": pixels,
        "share": pixels / int(table["area"].sum()),
        "jaccard": jaccard,
        "shared": shared,
        "medoids": [int(table.index[i]) for i in _medoids(points, inside, units)],
    }


def _sentence(rows: list[dict[str, Any]], regions: int, found: int, agreement: float) -> str:
    drawn = f"drawn anew from the images, the grouping agrees with itself by {agreement:.2f} (adjusted Rand index; 1 is the same)"
    if not rows:
        return f"Chance does not explain how alike some regions are, but no group is stable: {drawn}. None is shown."
    held = sum(row["regions"] for row in rows)
    text = f"{len(rows)} group{'s hold' if len(rows) != 1 else ' holds'} {held} of {regions} explained regions, the largest "
    text += f"({rows[0]['regions']}): {rows[0]['name']}. {drawn[0].upper()}{drawn[1:]}"
    if found > len(rows):
        text += f"; {found - len(rows)} more {'was' if found - len(rows) == 1 else 'were'} not stable or too small"
    return text + "."


def _tell_apart(rows: list[dict[str, Any]]) -> None:
    """Number the later ones of equal names."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["name"]] = seen.get(row["name"], 0) + 1
        if seen[row["name"]] > 1:
            row["name"] += f" ({seen[row['name']]})"


def _number(found: Sequence[Block], points: np.ndarray, rng: np.random.Generator) -> tuple[int, float]:
    """The number of groups whose silhouette stands out most from data without groups, and the p of its doing so."""
    sizes = range(2, min(MOST, len(points) // 3) + 1)
    own = _silhouettes(points, sizes)
    chance = np.array([_silhouettes(_reference(found, len(points), rng), sizes) for _ in range(REFERENCES)])
    middle, spread = chance.mean(axis=0), chance.std(axis=0, ddof=1) + 1e-9
    score = (own - middle) / spread
    highest = ((chance - middle) / spread).max(axis=1)
    return sizes[int(score.argmax())], float((1 + (highest >= score.max()).sum()) / (1 + REFERENCES))


def _reference(found: Sequence[Block], n: int, rng: np.random.Generator) -> np.ndarray:
    """Points (n, d) with the blocks' sizes and no groups: names shuffled, numbers normal with the same covariance."""
    parts = []
    for block in found:
        if block.named:
            parts.append(block.values[rng.permutation(n)])
        else:
            _, size, axes = np.linalg.svd(block.values, full_matrices=False)
            parts.append(rng.standard_normal((n, len(size))) * (size / np.sqrt(n)) @ axes)
    return np.hstack(parts) if parts else np.zeros((n, 1))


def _partition(points: np.ndarray, k: int, tree: np.ndarray | None = None) -> np.ndarray:
    """int64 (n,) in 0..k-1 (fewer where points coincide): Ward's tree cut into k, then moved to the nearest mean until it holds."""
    labels = fcluster(linkage(points, "ward") if tree is None else tree, k, criterion="maxclust").astype(np.int64) - 1
    for _ in range(100):
        kinds = np.unique(labels)
        means = np.array([points[labels == c].mean(axis=0) for c in kinds])
        nearest = kinds[((points[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]
        if (nearest == labels).all():
            break
        labels = nearest
    result: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return result


def _silhouettes(points: np.ndarray, sizes: range) -> np.ndarray:
    tree, apart = linkage(points, "ward"), squareform(pdist(points))
    return np.array([silhouette(apart, _partition(points, k, tree)) for k in sizes])


def silhouette(apart: np.ndarray, labels: np.ndarray) -> float:
    """Rousseeuw's mean silhouette in -1..1 from distances (n, n) and labels 0..k-1; points alone in their group count 0."""
    k = int(labels.max()) + 1
    if k < 2:
        return -1.0
    member = np.eye(k)[labels]
    size, sums = member.sum(axis=0), apart @ member
    own = sums[np.arange(len(labels)), labels] / np.maximum(size[labels] - 1, 1)
    other = np.where(member > 0, np.inf, sums / size).min(axis=1)
    widest = np.maximum(np.maximum(own, other), 1e-30)
    return float(np.where(size[labels] > 1, (other - own) / widest, 0).mean())


def _stability(points: np.ndarray, labels: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Per group its mean Jaccard index with the best match, float64 (k,), and the mean adjusted Rand index, over bootstrap draws of
    the units; in a draw each region counts once, since its doubles would be groups of their own."""
    k, kinds = int(labels.max()) + 1, np.unique(units)
    matches, agreements = [], []
    for _ in range(DRAWS):
        drawn = np.isin(units, rng.choice(kinds, len(kinds)))
        if drawn.sum() < k or len(np.unique(labels[drawn])) < 2:
            continue
        again = _partition(points[drawn], k)
        before = labels[drawn]
        overlap = np.eye(k)[before].T @ np.eye(int(again.max()) + 1)[again]
        union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0) - overlap
        best = (overlap / union).max(axis=1)
        matches.append(np.where(overlap.sum(axis=1) > 0, best, np.nan))
        agreements.append(adjusted_rand(before, again))
    if not matches:
        return np.zeros(k), 0.0
    table = np.array(matches)
    known = ~np.isnan(table)
    return np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), float(np.mean(agreements))


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Hubert and Arabie's index of two labellings (n,): 1 for the same grouping, 0 on average for independent ones."""
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1)
    pairs, of_a, of_b = (float((c * (c - 1) / 2).sum()) for c in (table, table.sum(axis=1), table.sum(axis=0)))
    expected, most = of_a * of_b / max(len(a) * (len(a) - 1) / 2, 1), (of_a + of_b) / 2
    return (pairs - expected) / (most - expected) if most > expected else 1.0


def _medoids(points: np.ndarray, inside: np.ndarray, units: np.ndarray) -> list[int]:
    """The MEDOIDS most central regions of a group, from different units as long as there are any."""
    members = np.flatnonzero(inside)
    central = members[np.argsort(squareform(pdist(points[members])).sum(axis=1), kind="stable")]
    first = [int(i) for j, i in enumerate(central) if units[i] not in units[central[:j]]]
    rest = [int(i) for i in central if int(i) not in first]
    return (first + rest)[:MEDOIDS]
