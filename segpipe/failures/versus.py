"""Which of two models looks at the right thing: their maps of the same true segments, side by side.

`segments.py` writes two files into `failures/<experiment>/`; they are read here, without torch. The segments are the same for
every model of a dataset, so differences are paired; those of one unit (image, sequence) are averaged first: chance draws units.

segments.parquet   one row per common segment, see COLUMNS
segments.npz       per row `<row>/image` and `<row>/map`: the bytes of two WebP pictures of one size, uint8 (n,)
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segpipe.intervals import spread
from segpipe.resampling import EXACT_UNITS, holm, mean_per_unit
from segpipe.wording import p_words

SEGMENTS, PICTURES = "segments.parquet", "segments.npz"
COLUMNS = {
    "id": "the image",
    "segment": "the number of the segment among the 8-connected true segments of its image, from 1 in scan order",
    "label": "its class",
    "area": "its pixels",
    "area_share": "its share of the pixels that the network was shown",
    "iou": "IoU of the segment and the predicted segments on it",
    "found": "whether that is at least one half",
    "layer": "the layer of the maps",
    "cell": "the longer side of one of its cells, in pixels of the image",
    "logit": "the mean logit of the class over the segment",
    "hirescam_status": "whether the map shows positive evidence; the same columns stand for gradcam",
    "hirescam_inside": "the share of the map's energy inside the segment; NaN without evidence",
    "hirescam_concentration": "that share divided by area_share",
    "hirescam_entropy": "the entropy of the map's energy over pixels / its maximum: 0 is one pixel, 1 everywhere alike",
    "deletion": "how much more the logit falls when the places outside that the map shows are hidden than when others are",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of the common segments that two models are compared on, and how a reader calls it."""

    title: str
    higher: bool
    """Whether more of it is better."""
    percent: bool = False


MEASURES = {
    "hirescam_inside": Measure(title="evidence inside the segment (HiResCAM)", higher=True, percent=True),
    "gradcam_inside": Measure(title="evidence inside the segment (Grad-CAM)", higher=True, percent=True),
    "hirescam_entropy": Measure(title="spread of the map (entropy)", higher=False),
    "deletion": Measure(title="fall of the logit when what the map shows is hidden", higher=True),
    "evidence": Measure(title="segments with evidence for their class", higher=True, percent=True),
    "iou": Measure(title="overlap of the prediction with the segment (IoU)", higher=True, percent=True),
}
"""Concentration is not among them: on the same segments it orders two models as the evidence inside does."""
LEADS = "hirescam_inside"
COARSER = 1.5


@dataclass(frozen=True, kw_only=True)
class Common:
    """The common segments of one model: the table, and per row the addresses (`data:`) of its image and its map."""

    table: pd.DataFrame
    pictures: list[tuple[str, str]]


def read(folder: Path) -> Common | None:
    """The common segments of `failures/<experiment>/`, or None where they were not measured."""
    if not (folder / SEGMENTS).exists() or not (folder / PICTURES).exists():
        return None
    table = pd.read_parquet(folder / SEGMENTS)
    with np.load(folder / PICTURES, allow_pickle=False) as arrays:
        pictures = [(_uri(arrays[f"{row}/image"]), _uri(arrays[f"{row}/map"])) for row in range(len(table))]
    return Common(table=table, pictures=pictures)


def pair_rows(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[int, int]]:
    """The row numbers of the segments that two tables share, in the order of the first."""
    places = {key: row for row, key in enumerate(zip(b["id"], b["segment"], strict=True))}
    keys = zip(a["id"], a["segment"], strict=True)
    return [(row, places[key]) for row, key in enumerate(keys) if key in places]


def versus(
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[tuple[str, str]],
    *,
    units: Mapping[str, int],
    resamples: int,
    alpha: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Compare pairs of models on their common segments.

    Args:
        tables: the common segments of each model, by name.
        units: the independent unit of each image id.
        resamples: bootstrap draws, and sign flips where there are more than 16 units.

    Returns:
        For each pair with common segments {a, b, segments, images, measures, sentence}; `measures` are {measure, title, higher, a,
        b, difference, low, high, p, p_holm, win_rate, n}: means over units, the difference a - b with its bootstrap interval over
        units, the two-sided p of flipping the signs of units, that after Holm's correction over the measures, how often a is better
        (ties count half), and the segments on which both are defined. A number that is undefined is None.
    """
    documents = []
    for a, b in pairs:
        rows = pair_rows(tables[a], tables[b])
        if not rows:
            continue
        one = _with_evidence(tables[a].iloc[[i for i, _ in rows]])
        other = _with_evidence(tables[b].iloc[[j for _, j in rows]])
        unit = np.array([units[name] for name in one["id"]], np.int64)
        measures = [_compare(name, one, other, unit, resamples=resamples, alpha=alpha, seed=seed) for name in MEASURES]
        tested = [m for m in measures if m["p"] is not None]
        for m, corrected in zip(tested, holm([m["p"] for m in tested]), strict=True):
            m["p_holm"] = corrected
        document: dict[str, Any] = {"a": a, "b": b, "segments": len(rows), "images": int(one["id"].nunique()), "measures": measures}
        documents.append(document | {"sentence": sentence(document, one, other, alpha=alpha)})
    return documents


def sentence(document: Mapping[str, Any], one: pd.DataFrame, other: pd.DataFrame, *, alpha: float) -> str:
    """What a pair's measures say, in words; `one` and `other` are the paired rows of a and of b."""
    a, b = document["a"], document["b"]
    found = {m["measure"]: m for m in document["measures"]}
    lead, on = found[LEADS], f"On {document['segments']} common segment{'s' if document['segments'] != 1 else ''}"
    if lead["p_holm"] is None:
        text = f"{on} {a} and {b} cannot be compared: too few of their maps show evidence for the true class."
    else:
        first, second = (a, b) if lead["difference"] >= 0 else (b, a)
        high, low = (lead["a"], lead["b"]) if lead["difference"] >= 0 else (lead["b"], lead["a"])
        ends = sorted(abs(100 * lead[end]) if lead["low"] * lead["high"] > 0 else 100 * lead[end] for end in ("low", "high"))
        level = f"{100 * (1 - alpha):g} %"
        numbers = f"{100 * high:.0f} % against {100 * low:.0f} %"
        chance = f"{level} interval of the difference {ends[0]:.0f} to {ends[1]:.0f} points, {p_words(lead['p_holm'])} after Holm"
        if lead["p_holm"] < alpha:
            share = lead["win_rate"] if first == a else 1 - lead["win_rate"]
            text = f"{on} {first}'s evidence lies inside the object more than {second}'s ({numbers}; {chance});"
            text += f" it does on {100 * share:.0f} %."
        else:
            text = f"{on} there is no evidence that {a} or {b} looks more at the object itself ({first} {numbers}; {chance})."
    others = [m for m in document["measures"] if m["measure"] != LEADS and m["p_holm"] is not None and m["p_holm"] < alpha]
    if others:
        listed = [f"{m['title']} {_value(m, m['a'])} against {_value(m, m['b'])} ({p_words(m['p_holm'])})" for m in others]
        text += f" {a} against {b} also in: {'; '.join(listed)}."
    for name, table in ((a, one), (b, other)):
        if count := int((table["evidence"] == 0).sum()):
            text += f" {name} shows no evidence for the true class on {count} of them."
    cells = float(one["cell"].median()), float(other["cell"].median())
    if max(cells) > COARSER * min(cells):
        text += f" Their maps are not equally sharp: a cell is {cells[0]:.0f} pixels wide in {a}, {cells[1]:.0f} in {b}."
    return text


def _with_evidence(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(evidence=table["hirescam_inside"].notna().astype(np.float64)).reset_index(drop=True)


def _compare(
    name: str, one: pd.DataFrame, other: pd.DataFrame, units: np.ndarray, *, resamples: int, alpha: float, seed: int
) -> dict[str, Any]:
    a, b = one[name].to_numpy(np.float64), other[name].to_numpy(np.float64)
    known = ~(np.isnan(a) | np.isnan(b))
    row: dict[str, Any] = {"measure": name, "title": MEASURES[name].title, "higher": MEASURES[name].higher}
    row |= dict.fromkeys(("a", "b", "difference", "low", "high", "p", "p_holm", "win_rate"))
    row["n"] = int(known.sum())
    if not known.any():
        return row
    a, b, units = a[known], b[known], units[known]
    row["a"], row["b"] = (float(mean_per_unit(values, units).mean()) for values in (a, b))
    ahead = np.sign(np.where(np.abs(a - b) < 1e-12, 0, a - b)) * (1 if MEASURES[name].higher else -1)
    row["win_rate"] = float((ahead > 0).mean() + (ahead == 0).mean() / 2)
    paired = mean_per_unit(a - b, units)
    row["difference"] = float(paired.mean())
    if len(paired) < 2:
        return row
    drawn = np.random.default_rng(seed).integers(0, len(paired), (resamples, len(paired)))
    left = (paired.sum() - paired) / (len(paired) - 1)
    chance = spread(paired[drawn].mean(axis=1), row["difference"], left, alpha=alpha)
    row["low"], row["high"] = chance.low, chance.high
    row["p"] = sign_flip_p(paired, resamples=resamples, seed=seed)
    return row


def sign_flip_p(differences: np.ndarray, *, resamples: int, seed: int) -> float:
    """Two-sided p of the mean of paired differences (n,): the share of sign flips with a mean at least as far from zero.

    All flips up to 16 differences; else `resamples` random ones, with 1 added above and below.
    """
    n = len(differences)
    exact = n <= EXACT_UNITS
    if exact:
        flips = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
    else:
        flips = np.random.default_rng([seed, 1]).integers(0, 2, (resamples, n))
    means = (1 - 2 * flips) @ differences / n
    extreme = int((np.abs(means) >= abs(float(differences.mean())) - 1e-12).sum())
    return extreme / len(means) if exact else (1 + extreme) / (1 + len(means))


def _value(measure: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.0f} %" if MEASURES[measure["measure"]].percent else f"{value:.2f}"


def _uri(picture: np.ndarray) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture.tobytes()).decode()}"
