"""The failure page of one experiment: findings in words, what the errors cost, whether the maps hold, and one card per region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.explain import Explained, Explanation
from segpipe.failures.measures import READINGS
from segpipe.failures.modes import MODIFIERS
from segpipe.failures.page_words import TITLES, percent, points, region_words, signed, span, whole
from segpipe.failures.pictures import SIDE, draw, draw_matched, ramp
from segpipe.pages.render import render

LISTED_FROM = 0.0005
"""mIoU: cheaper class pairs stay out of the page's table, unless a region of theirs is explained."""
FULL_SIZE_CARDS = 60
"""More cards than this get smaller pictures, so that the page stays within 25 MB."""
EVIDENCE_ROWS = (
    ("predicted_near", "predicted class: energy within one cell of the region", True),
    ("predicted_inside", "predicted class: energy inside the region", True),
    ("predicted_segment", "predicted class: energy on the rest of the true segment", True),
    ("predicted_guess", "predicted class: energy on the rest of the predicted segment", True),
    ("predicted_border", "predicted class: energy at the image's border", True),
    ("predicted_entropy", "predicted class: spread of its map (1 = even)", False),
    ("true_near", "true class: energy within one cell of the region", True),
    ("true_inside", "true class: energy inside the region", True),
    ("true_border", "true class: energy at the image's border", True),
    ("margin_near", "what decides: energy within one cell of the region", True),
    ("overlap", "overlap of the two maps' highest tenths", True),
    ("shift", "distance of the two maps' centres, of the diagonal", True),
    ("spearman", "rank correlation of the two maps", False),
)
"""Measures of the table of errors against correct regions: key, words, and whether it is a share."""


def failure_page(explanation: Explanation, *, name: str, dataset: str, colours: Sequence[Sequence[int]], ignore_index: int) -> str:
    """The HTML text of the page of experiment `name`.

    `colours` holds the (r, g, b) of each class, in order.
    """
    summary = explanation.summary
    palette = np.array(colours, np.uint8)
    side = round(SIDE * min(1.0, (FULL_SIZE_CARDS / max(summary["chosen"], 1)) ** 0.5))
    controls: dict[int, Mapping[Any, Any]] = {int(row["matched"]): row for row in explanation.controls.to_dict("records")}
    cards = [_card(one, explanation, controls.get(one.index), palette, ignore_index, side) for one in explanation.chosen]
    groups = []
    for number, pair in enumerate(summary["pairs"]):
        mine = [card for card in cards if (card["true"], card["predicted"]) == (pair["true"], pair["predicted"])]
        groups.append({**pair, "number": number, "cards": mine, "listed": bool(mine) or pair["cost"] >= LISTED_FROM})
    return render(
        "failures.html",
        name=name,
        dataset=dataset,
        summary=summary,
        colours=[f"rgb({r}, {g}, {b})" for r, g, b in palette.tolist()],
        groups=groups,
        cards=len(cards),
        carded={card["index"]: f"{card['id']}, {whole(card['area'])} pixels" for card in cards},
        explained=_explained(cards, list(MODIFIERS)),
        evidence={title: _evidence(summary, kind) for kind, title in reversed(TITLES.items())},
        elsewhere=_elsewhere(summary),
        ramp=ramp(),
        readings=READINGS,
        percent=percent,
        signed=signed,
        points=points,
        span=span,
        whole=whole,
    )


def _explained(cards: Sequence[dict[str, Any]], modifiers: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many cards each mode, group and modifier has: what its filter would show."""
    counts: dict[str, dict[str, int]] = {"mode": {}, "cluster": {}, "modifier": {}}
    for card in cards:
        counts["mode"][card["mode"]] = counts["mode"].get(card["mode"], 0) + 1
        counts["cluster"][str(card["cluster"])] = counts["cluster"].get(str(card["cluster"]), 0) + 1
        for modifier in card["modifiers"]:
            counts["modifier"][modifier] = counts["modifier"].get(modifier, 0) + 1
    return counts


def _evidence(summary: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The rows of EVIDENCE_ROWS on the main layer that are known: {what, share, errors, controls, difference, apart}."""
    known = summary["measures"].get(summary["main_layer"], {}).get(kind, {})
    rows = []
    for key, what, share in EVIDENCE_ROWS:
        if key in known:
            low, high = known[key]["difference"]["low"], known[key]["difference"]["high"]
            rows.append({**known[key], "what": what, "share": share, "apart": low is not None and low * high > 0})
    return rows


def _elsewhere(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """For each class the share of the predicted class's energy (HiResCAM) on its pixels away from the region; only where known."""
    known = summary["measures"].get(summary["main_layer"], {}).get("hirescam", {})
    rows = []
    for index, name in enumerate(summary["class_names"]):
        row = known.get(f"predicted_class_{index}")
        if row is not None:
            low, high = row["difference"]["low"], row["difference"]["high"]
            rows.append({**row, "name": name, "index": index, "apart": low is not None and low * high > 0})
    return rows


def _card(
    one: Explained,
    explanation: Explanation,
    control: Mapping[Any, Any] | None,
    palette: np.ndarray,
    ignore_index: int,
    side: int,
) -> dict[str, Any]:
    summary = explanation.summary
    row = {str(key): value for key, value in explanation.regions.loc[[one.index]].to_dict("records")[0].items()}
    names, layer = summary["class_names"], summary["main_layer"]
    true, predicted = int(row["true"]), int(row["predicted"])
    pictures = draw(
        one,
        layer=layer,
        statuses={kind: (row[f"{layer}/{kind}_true_status"], row[f"{layer}/{kind}_predicted_status"]) for kind in TITLES},
        true=names[true],
        predicted=names[predicted],
        palette=palette,
        ignore_index=ignore_index,
        side=side,
    )
    return {
        "index": one.index,
        "true": true,
        "predicted": predicted,
        "id": row["id"],
        "mode": row["mode"],
        "cluster": int(row["cluster"]),
        "modifiers": [modifier for modifier in MODIFIERS if row[modifier]],
        "confidence": None if pd.isna(row["confidence"]) else float(row["confidence"]),
        "reason": row["reason"],
        "area": int(row["area"]),
        "reading": row[f"{layer}/reading"],
        "words": region_words(row, control, names=names, layer=layer),
        "pictures": pictures,
        "matched": _matched(explanation, one.index, control, (names[true], names[predicted]), side),
        "kinds": list(TITLES.items()),
    }


def _matched(
    explanation: Explanation, index: int, control: Mapping[Any, Any] | None, names: tuple[str, str], side: int
) -> list[Any]:
    """The pictures of the correct region matched to an error, by HiResCAM; none where there is no such region."""
    if control is None:
        return []
    layer = explanation.summary["main_layer"]
    statuses = (control[f"{layer}/hirescam_true_status"], control[f"{layer}/hirescam_predicted_status"])
    region = explanation.matched[index]
    return draw_matched(region, layer=layer, kind="hirescam", statuses=statuses, names=names, side=side)
