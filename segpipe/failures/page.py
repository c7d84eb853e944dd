"""The failure page of one experiment: findings in words, what the errors cost, and one card per explained region."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.explain import Explained, Explanation
from segpipe.failures.measures import EVIDENCE, LIFT, MOSTLY, READINGS
from segpipe.failures.modes import MODES
from segpipe.failures.pictures import SIDE, draw, ramp
from segpipe.pages.render import render

TITLES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
LISTED_FROM = 0.0005
"""mIoU: cheaper class pairs stay out of the page's table, unless a region of theirs is explained."""
FULL_SIZE_CARDS = 60
"""More cards than this get smaller pictures, so that the page stays within 10 MB."""


def failure_page(explanation: Explanation, *, name: str, dataset: str, colours: Sequence[Sequence[int]], ignore_index: int) -> str:
    """The HTML text of the page of experiment `name`.

    `colours` holds the (r, g, b) of each class, in order.
    """
    summary = explanation.summary
    palette = np.array(colours, np.uint8)
    side = round(SIDE * min(1.0, (FULL_SIZE_CARDS / max(summary["chosen"], 1)) ** 0.5))
    cards = [_card(one, explanation, palette, ignore_index, side) for one in explanation.chosen]
    groups = []
    for number, pair in enumerate(summary["pairs"]):
        mine = [card for card in cards if (card["true"], card["predicted"]) == (pair["true"], pair["predicted"])]
        groups.append({**pair, "number": number, "cards": mine, "listed": bool(mine) or pair["cost"] >= LISTED_FROM})
    return render(
        "failures.html",
        name=name,
        dataset=dataset,
        summary=summary,
        findings=findings(summary, explanation.regions),
        colours=[f"rgb({r}, {g}, {b})" for r, g, b in palette.tolist()],
        groups=groups,
        ramp=ramp(),
        readings=READINGS,
        modes=MODES,
        percent=percent,
        signed=signed,
        points=points,
        whole=whole,
    )


def findings(summary: dict[str, Any], regions: pd.DataFrame) -> list[tuple[str, str]]:
    """What the page opens with: (claim, what it rests on), the most useful first."""
    if not summary["pixels"]:
        return [("There is nothing to explain:", "no pixel of the test split has a class.")]
    if not summary["wrong_pixels"]:
        text = f"all {whole(summary['pixels'])} pixels of {summary['images']} test images are predicted right."
        return [("There is nothing to explain:", text)]
    result = [_cost_finding(summary), _mode_finding(summary)]
    if not summary["chosen"]:
        text = f"the largest of {whole(summary['regions'])} error regions is smaller than {summary['min_area']} pixels."
        return [*result, ("No region was explained:", text)]
    return [*result, *_map_findings(summary, regions)]


def _cost_finding(summary: dict[str, Any]) -> tuple[str, str]:
    first, *others = summary["pairs"]
    claim = f"{first['true_name']} predicted as {first['predicted_name']} costs most: {points(first['cost'])} of mIoU."
    text = (
        f"That is what mIoU ({percent(summary['miou'])}) would gain if these {whole(first['pixels'])} pixels were right; they are"
        f" {percent(first['share'])} of all wrong pixels. In all, {percent(summary['wrong_share'])} of the pixels are wrong,"
        f" in {whole(summary['regions'])} regions on {summary['images_with_errors']} of {summary['images']} images."
    )
    if others:
        second = others[0]
        text += f" Next comes {second['true_name']} predicted as {second['predicted_name']} ({points(second['cost'])})."
    return claim, text


def _mode_finding(summary: dict[str, Any]) -> tuple[str, str]:
    worst = max(summary["modes"], key=lambda row: row["cost"])
    share, number = percent(worst["share"]), whole(worst["regions"])
    claim = f"The costliest kind of error is “{worst['mode']}”: {points(worst['cost'])} of mIoU."
    return claim, f"{worst['meaning'].capitalize()}. It makes {share} of the wrong pixels, in {number} regions."


def _map_findings(summary: dict[str, Any], regions: pd.DataFrame) -> list[tuple[str, str]]:
    layer = summary["main_layer"]
    chosen = regions[regions["chosen"]]
    result = [*_place_finding(summary, chosen[f"{layer}/hirescam_predicted_near"].dropna().to_numpy())]
    numbers = summary["layers"][layer]
    none, none_cam = numbers["hirescam"]["true_no_evidence"], numbers["gradcam"]["true_no_evidence"]
    hold = "holds" if none == 1 else "hold"
    claim = f"{none} of {summary['chosen']} explained regions {hold} no positive evidence for the true class"
    claim += " (by both kinds of map)." if none == none_cam else f" ({none_cam} by Grad-CAM)."
    faint = numbers["hirescam"]["true_faint"]
    text = "There the layer has nothing that speaks for the right answer"
    text += (
        f", and in {faint} more it has next to nothing; elsewhere it does, and is outvoted."
        if faint
        else "; elsewhere it does, and is outvoted."
    )
    result.append((claim, text))
    prefix = f"{layer}/hirescam_context"
    drawn = chosen[f"{prefix}_share"] >= LIFT * chosen[f"{prefix}_area"]
    context = chosen[(chosen[f"{layer}/reading"] == "context") & drawn]
    return [*result, *_context_finding(context, f"{prefix}_class", summary["class_names"])]


def _place_finding(summary: dict[str, Any], near: np.ndarray) -> list[tuple[str, str]]:
    """Whether the predicted class's evidence is on the region or on what surrounds it; `near` holds each region's share near it."""
    if not len(near):
        return []
    layer = summary["main_layer"]
    numbers = summary["layers"][layer]
    on = int((near >= MOSTLY).sum())
    where, number = ("on the region itself", on) if 2 * on >= len(near) else ("on its surroundings", len(near) - on)
    local, cam = (percent(numbers[kind]["predicted_near"]) for kind in ("hirescam", "gradcam"))
    claim = f"The predicted class mostly finds its evidence {where}: in {number} of {len(near)} explained regions."
    text = (
        f"Its local map (HiResCAM, layer {layer}) has {local} of its energy within one cell of the region, in the median, where"
        f" {percent(numbers['area_near'])} of the image lie; Grad-CAM, which forgets positions, has {cam} there."
        " What a map shows is a hypothesis until a change of the image confirms it."
    )
    return [(claim, text)]


def _context_finding(context: pd.DataFrame, column: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """The class that most often draws the predicted class's evidence away, if it does so at least twice for one class pair."""
    triples = context[["true", "predicted", column]].to_numpy(np.int64)
    if not len(triples):
        return []
    found, counts = np.unique(triples, axis=0, return_counts=True)
    if counts.max() < 2:
        return []
    true, predicted, where = (names[i] for i in found[int(counts.argmax())])
    text = (
        f"in {counts.max()} explained regions of {true} predicted as {predicted}, the predicted class's evidence away from the"
        f" region gathers on {where}, beyond its share of the image. That is a suspected bias, not a proven one."
    )
    return [("Look at the context:", text)]


def _card(one: Explained, explanation: Explanation, palette: np.ndarray, ignore_index: int, side: int) -> dict[str, Any]:
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
        "true": true,
        "predicted": predicted,
        "id": row["id"],
        "mode": row["mode"],
        "reason": row["reason"],
        "area": int(row["area"]),
        "reading": row[f"{layer}/reading"],
        "words": _words(row, names, layer),
        "pictures": pictures,
        "kinds": list(TITLES.items()),
    }


def _words(row: dict[str, Any], names: Sequence[str], layer: str) -> list[str]:
    """The numbers of one region as sentences."""
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
