"""The page of one evaluation: how good the model is, class by class and image by image, how sure, and how much damage it bears.

It is made of what `evaluate` writes. A part appears where its data exist: surfaces, trimap, calibration, modes, corruptions,
instances.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segpipe import image_level
from segpipe.metrics import iou, mean_iou, pixel_accuracy, recall
from segpipe.pages import evaluation_figures as figures
from segpipe.pages.evaluation_findings import findings, reference
from segpipe.pages.evaluation_pictures import LONGEST_SIDE, Card, small
from segpipe.pages.render import data_uri, render
from segpipe.shards import ClassInfo
from segpipe.wording import p_words, points

LISTED_IMAGES = 200
TOLERANCE = "nsd_tau2px"
"""The normalised surface distance of the class table; scores.json holds those at other tolerances."""
PICTURE_BYTES = 6 * 2**20
"""What all pictures of the page may take together, before base64."""


def evaluation_page(
    *,
    name: str,
    dataset: str,
    classes: Sequence[ClassInfo],
    scores: Mapping[str, Any],
    counts: np.ndarray,
    ids: Sequence[str],
    cards: Sequence[Card] = (),
    calibration: Mapping[str, Any] | None = None,
) -> str:
    """The self-contained HTML text of the page.

    Args:
        name: the experiment.
        dataset: what it was scored on.
        classes: the K classes.
        scores: the content of scores.json.
        counts: int64 (N, K, K), per-image confusion counts.
        ids: the N images.
        cards: what `evaluation_pictures.show_images` made.
        calibration: the content of calibration.json.
    """
    assert counts.shape == (len(ids), len(classes), len(classes)), f"{counts.shape} counts of {len(ids)} images"
    side = int(np.clip(np.sqrt(2 * PICTURE_BYTES / max(sum(len(card.cells) for card in cards), 1)), 96, LONGEST_SIDE))
    trimap = [(int(radius), value) for radius, value in (scores.get("trimap_miou") or {}).items()]
    corruptions = {key: row for key, row in (scores.get("corruptions") or {}).items() if key != "mean"}
    return render(
        "evaluation.html",
        name=name,
        dataset=dataset,
        scores=scores,
        findings=findings(scores, counts, [c.name for c in classes], calibration=calibration),
        columns=_columns(scores),
        classes=_class_rows(classes, scores, counts, {k: card.index for card in reversed(cards) for k in card.classes}),
        one_empty=sum((scores.get("surface_one_empty") or {}).values()),
        images=_image_rows(counts, ids, {card.index for card in cards}),
        cards=[_shown(card, counts, ids, side) for card in cards],
        image_figure=figures.image_scores(mean_iou.compute(counts), scores),
        trimap=trimap,
        trimap_figure=figures.trimap_curve(trimap, scores.get("miou")) if trimap else None,
        calibration=calibration,
        reliability_figure=figures.reliability(calibration) if calibration else None,
        modes=scores.get("modes") or {},
        main=reference(scores),
        corruptions=corruptions,
        corruption_mean=(scores.get("corruptions") or {}).get("mean"),
        corruption_figure=figures.corruption_curves(corruptions, reference(scores)) if corruptions else None,
        severities=sorted({row["severity"] for row in corruptions.values()}),
        damages=list(dict.fromkeys(row["corruption"] for row in corruptions.values())),
        instances=scores.get("instances"),
        score_text=score_text,
        change_text=change_text,
        drop_text=lambda row: change_text(None if row["drop"] is None else -row["drop"]),
        p_words=p_words,
    )


def score_text(value: float | None, *, share: bool = True) -> str:
    """A share in points, a length with two digits after the point; a dash where undefined."""
    return "–" if value is None else points(value) if share else f"{value:.2f}"


def change_text(value: float | None) -> str:
    """A difference of shares in points with its sign, `+1.2`, `−0.4`, `0.0`; a dash where undefined."""
    if value is None:
        return "–"
    text = points(value)
    return text.replace("-", "−") if float(text) <= 0 else f"+{text}"


def _columns(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of the class table for which scores.json has numbers: key, heading, meaning, and how to write and sort them."""
    unit = scores.get("distance_unit", "px")
    found = [
        ("iou", "IoU", "overlap divided by union", True),
        ("dice", "Dice", "twice the overlap divided by the sum of both areas", True),
        ("precision", "precision", "of the predicted pixels those that are right", True),
        ("recall", "recall", "of the true pixels those that are found", True),
        ("class_accuracy", "accuracy", "of all pixels those rightly told to be the class or not", True),
        ("boundary_iou", "boundary IoU", "IoU of the bands along the contours", True),
    ]
    found += [
        (TOLERANCE, f"NSD {TOLERANCE[7:-2]} px", "the part of both contours within this of the other", True),
        ("hd95_pooled", f"HD95, {unit}", "95 % of the contours' distances are below, both directions pooled", False),
        ("assd", f"ASSD, {unit}", "mean distance between the contours", False),
    ]
    means = {"iou": "miou", "dice": "mdice"}
    return [
        {
            "key": key,
            "heading": heading,
            "title": title,
            "share": share,
            "mean": scores.get(means.get(key, f"mean_{key}")),
        }
        for key, heading, title, share in found
        if isinstance(scores.get(key), Mapping) or key == "recall"
    ]


def _class_rows(
    classes: Sequence[ClassInfo], scores: Mapping[str, Any], counts: np.ndarray, anchors: Mapping[int, int]
) -> list[dict[str, Any]]:
    total = counts.sum(axis=0)
    true, pixels = total.sum(axis=1), max(int(total.sum()), 1)
    tables = {key: table for key, table in scores.items() if isinstance(table, Mapping)}
    found = recall.compute(total)
    tables.setdefault("recall", {c.name: None if np.isnan(r) else float(r) for c, r in zip(classes, found, strict=True)})
    return [
        {
            "name": c.name,
            "colour": "#{:02x}{:02x}{:02x}".format(*c.colour),
            "share": float(true[k] / pixels),
            "values": {key: table.get(c.name) for key, table in tables.items()},
            "anchor": anchors.get(k),
        }
        for k, c in enumerate(classes)
    ]


def _image_rows(counts: np.ndarray, ids: Sequence[str], shown: set[int]) -> list[dict[str, Any]]:
    """The images with the lowest mIoU, worst first."""
    miou, accuracy = mean_iou.compute(counts), pixel_accuracy.compute(counts)
    held = np.isfinite(iou.compute(counts)).sum(axis=1)
    _, order = image_level.worst_images(counts, share=1.0)
    return [
        {
            "id": ids[i],
            "miou": float(miou[i]),
            "pa": float(accuracy[i]),
            "classes": int(held[i]),
            "index": i if i in shown else None,
        }
        for i in order[:LISTED_IMAGES].tolist()
    ]


def _shown(card: Card, counts: np.ndarray, ids: Sequence[str], side: int) -> dict[str, Any]:
    miou = mean_iou.compute(counts[card.index])
    return {
        "index": card.index,
        "id": ids[card.index],
        "why": card.why,
        "miou": None if np.isnan(miou) else float(miou),
        "cells": [{"what": what, "uri": data_uri(small(what, cell, side), jpeg=what == "image")} for what, cell in card.cells],
    }
