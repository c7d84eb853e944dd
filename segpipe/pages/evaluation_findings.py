"""What the page of an evaluation opens with: its three most important findings in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.metrics import iou
from segpipe.wording import points

MILD_DROP, CALIBRATION_GAP, MODE_GAIN, THIN_BAND = 0.05, 0.03, 0.005, 4
"""From where on the drop under a light corruption, the calibration error and the gain of an inference mode are worth the
page's top; contours are judged by the widest band up to so many pixels."""


@dataclass(frozen=True)
class Finding:
    """A short claim and the sentences that carry it."""

    claim: str
    text: str


def findings(
    scores: Mapping[str, Any],
    counts: np.ndarray,
    class_names: Sequence[str],
    *,
    calibration: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """At most three: how good and how even, the hardest class, and the strongest of damage, confidence, modes and contours.

    Arguments are those of `evaluation.evaluation_page`.
    """
    if scores.get("miou") is None:
        return [Finding("There is nothing to score.", "No pixel of the test split has a class.")]
    further = [robustness(scores), confidence(calibration), gain(scores), contours(scores)]
    found = [level(scores), hardest(counts, class_names), *further]
    return [finding for finding in found if finding][:3]


def level(scores: Mapping[str, Any]) -> Finding:
    """The headline and the worst images."""
    count, worst = scores["n_images"], scores.get("worst10_miou")
    claim = f"The model reaches {points(scores['miou'])} mIoU points on all {count} test images together"
    if worst is not None and count > 1:
        images = len(scores["worst10_images"])
        claim += f", but {points(worst)} on its worst {images if images > 1 else 'image'}"
    text = []
    if scores.get("image_miou") is not None:
        text.append(f"Image by image the mean is {points(scores['image_miou'])}.")
    if scores.get("background") and scores.get("miou_nobg") is not None:
        text.append(f"Without the class {scores['background']} it is {points(scores['miou_nobg'])} on all together.")
    absent = scores.get("n_classes_absent")
    if absent:
        many = "One class is" if absent == 1 else f"{absent} classes are"
        text.append(f"{many} neither in the truth nor predicted, and in no mean.")
    return Finding(f"{claim}.", " ".join(text))


def hardest(counts: np.ndarray, class_names: Sequence[str]) -> Finding | None:
    """The class with the lowest IoU, and what it is mostly taken for."""
    total = counts.sum(axis=0)
    values = iou.compute(total)
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        return None
    k = int(known[values[known].argmin()])
    claim = f"The hardest class is {class_names[k]}, with an IoU of {points(float(values[k]))} points."
    true, predicted, right = int(total[k].sum()), int(total[:, k].sum()), int(total[k, k])
    if not true:
        return Finding(claim, f"It is in no mask of the test split, but {_number(predicted)} pixels were predicted as it.")
    missed, wrong = total[k].copy(), total[:, k].copy()
    missed[k] = wrong[k] = 0
    text = f"{_percent(right / true)} of its pixels are found"
    if missed.any():
        other = int(missed.argmax())
        text += f"; most of the others are taken for {class_names[other]} ({_percent(missed[other] / true)})"
    if predicted:
        text += f". Of the pixels predicted as it {_percent(right / predicted)} are right"
        if wrong.any():
            text += f"; most of the rest are {class_names[int(wrong.argmax())]}"
    return Finding(claim, f"{text}.")


def reference(scores: Mapping[str, Any]) -> float | None:
    """The mIoU that modes and corruptions are compared with: that of the network alone."""
    return scores.get("miou_without_crf", scores["miou"])


def robustness(scores: Mapping[str, Any]) -> Finding | None:
    """The most harmful corruption of the lowest severity, if it is harmful."""
    damaged = [row for row in (scores.get("corruptions") or {}).values() if "severity" in row and row["drop"] is not None]
    light = [row for row in damaged if row["severity"] == min(row["severity"] for row in damaged)]
    worst = max(light, key=lambda row: row["drop"], default=None)
    if worst is None or worst["drop"] < MILD_DROP:
        return None
    claim = f"Even light {worst['corruption']} costs {points(worst['drop'])} mIoU points{_span(worst, 'drop')}."
    text = f"It leaves {points(worst['miou'])} points."
    least = min(light, key=lambda row: row["drop"])
    if least is not worst:
        says = f"costs least: {points(least['drop'])} points" if least["drop"] > 0 else "costs nothing"
        text += f" Of the light corruptions {least['corruption']} {says}."
    return Finding(claim, text)


def confidence(calibration: Mapping[str, Any] | None) -> Finding | None:
    """Whether the network is too sure or not sure enough, if its calibration error is large."""
    if not calibration or calibration["before"]["ece"] is None or calibration["before"]["ece"] < CALIBRATION_GAP:
        return None
    before, after = calibration["before"], calibration["after"]
    sure = "too sure of itself" if before["mean_confidence"] > before["accuracy"] else "not sure enough of itself"
    text = (
        f"On average it gives its answer {_percent(before['mean_confidence'])}, and {_percent(before['accuracy'])} of the pixels"
        f" are right. The temperature {calibration['temperature']:.2f}, fitted on val, brings the calibration error from"
        f" {points(before['ece'])} to {points(after['ece'])} points."
    )
    return Finding(f"The network is {sure}.", text)


def gain(scores: Mapping[str, Any]) -> Finding | None:
    """The inference mode that gains most, if its interval excludes nothing gained."""
    modes = {name: row for name, row in (scores.get("modes") or {}).items() if row["gain"] is not None}
    name = max(modes, key=lambda key: modes[key]["gain"], default=None)
    if name is None or modes[name]["gain"] < MODE_GAIN or not (modes[name]["gain_low"] or 0) > 0:
        return None
    best = modes[name]
    claim = f"Predicting with {name} gains {points(best['gain'])} mIoU points{_span(best, 'gain')}."
    text = "Nothing has to be trained for that"
    if best.get("cost_ratio"):
        text += f"; an image then takes {best['cost_ratio']:.1f} times as long"
    return Finding(claim, f"{text}.")


def contours(scores: Mapping[str, Any]) -> Finding | None:
    """How much worse the score is near contours than on the whole."""
    bands = [(int(r), v) for r, v in (scores.get("trimap_miou") or {}).items() if int(r) <= THIN_BAND and v is not None]
    if not bands:
        return None
    radius, value = max(bands)
    away = "1 pixel" if radius == 1 else f"{radius} pixels"
    claim = f"Within {away} of a true contour the model reaches {points(value)} mIoU points, on the whole {points(scores['miou'])}."
    distance = scores.get("mean_assd")
    if distance is None:
        return Finding(claim, "What is lacking elsewhere is no matter of finer contours.")
    unit = "pixels" if scores.get("distance_unit", "px") == "px" else scores["distance_unit"]
    return Finding(claim, f"True and predicted contours lie {distance:.1f} {unit} apart, averaged over the classes.")


def _span(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return "" if low is None else f" (95 % {points(low)} to {points(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(count: int) -> str:
    return f"{count:,}"
