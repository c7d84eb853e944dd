"""The failure page's numbers as text, and the measures of one region as sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segpipe.failures.measures import EVIDENCE

TITLES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}


def region_words(row: Mapping[Any, Any], control: Mapping[Any, Any] | None, *, names: Sequence[str], layer: str) -> list[str]:
    """One explained row of regions.parquet in sentences; `control` is the row of its matched correct region, None without one."""
    true, predicted = names[row["true"]], names[row["predicted"]]
    edge = ", touching the image's edge" if row["touches_border"] else ""
    if row["margin"] > 0:
        verdict = f"The network prefers {predicted} there by {row['margin']:.2f} logits."
    else:
        verdict = (
            f"On average over it the network alone prefers {true}, by {-row['margin']:.2f} logits: the error comes from"
            " single pixels, or from how the prediction was put together."
        )
    inside, near = percent(row[f"{layer}/area_inside"]), percent(row[f"{layer}/area_near"])
    sentences = [
        f"Up to {whole(row['thickness'])} pixels thick{edge}; {percent(row['segment_share'])} of its {true} segment went to"
        f" {predicted}. {verdict}",
        f"It is {inside} of the image; with one cell of {layer} around it, {near}.",
    ]
    for kind, title in TITLES.items():
        prefix = f"{layer}/{kind}_"
        parts = []
        for which, name in (("true", true), ("predicted", predicted)):
            inside, near = percent(row[f"{prefix}{which}_inside"]), percent(row[f"{prefix}{which}_near"])
            if row[f"{prefix}{which}_status"] != EVIDENCE:
                parts.append(f"{row[f'{prefix}{which}_status']} for {name}")
            else:
                parts.append(f"for {name}, {near} of the energy within one cell of the region, {inside} inside it")
        text = f"{title}: {'; '.join(parts)}."
        if not np.isnan(row[f"{prefix}cosine"]):
            text += f" The two maps agree to {signed(row[f'{prefix}cosine'])} (cosine)."
        sentences.append(text)
    prefix = f"{layer}/hirescam_context"
    if row[f"{prefix}_class"] >= 0:
        share, area = percent(row[f"{prefix}_share"]), percent(row[f"{prefix}_area"])
        where = names[int(row[f"{prefix}_class"])]
        sentences[-1] += f" Of the energy for {predicted} elsewhere, {share} lies on {where}, {area} of the area there."
    if control is not None:
        shares = [percent(control[f"{layer}/hirescam_{which}_near"]) for which in ("true", "predicted")]
        where = "in the same image" if control["id"] == row["id"] else f"in {control['id']}"
        sentences.append(
            f"The matched correct region, {whole(control['area'])} pixels of {true} {where}: {shares[0]} of the energy for {true}"
            f" and {shares[1]} of that for {predicted} within one cell of it (HiResCAM)."
        )
    return sentences


def percent(value: float | None) -> str:
    """0.1234 as "12.3 %", with a space that does not break; None and NaN as a dash."""
    if value is None or np.isnan(value):
        return "–"
    return "<\u00a00.1\u00a0%" if 0 < value < 0.0005 else f"{100 * value:.1f}\u00a0%"


def points(value: float | None) -> str:
    """A difference of scores in 0..1 as percentage points."""
    return "–" if value is None else f"{100 * value:.2f}\u00a0points"


def signed(value: float | None) -> str:
    """A correlation with its sign, such as "−0.25"."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def whole(value: float) -> str:
    return f"{int(value):,}".replace(",", "\u202f")


def span(low: float | None, high: float | None, *, factor: float = 100) -> str:
    """An interval, such as "1.20 to 3.41"; "" where it is unknown."""
    return "" if low is None or high is None else f"{factor * low:.2f} to {factor * high:.2f}".replace("-", "−")
