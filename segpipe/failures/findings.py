"""The most important things that a failure analysis says of its model, in words: what the page opens with and Prefect shows."""

from collections.abc import Iterator
from typing import Any

MOST = 3
MANY_SUSPECTS = 0.05
"""Share of the wrong pixels from which suspected labels are worth one of the places."""


def findings(document: dict[str, Any]) -> list[dict[str, str]]:
    """The first three of: confirmed biases, the costliest class pair, maps that failed their sanity check, the costliest mode,
    that no region was large enough to be explained, suspected labels, the largest group of regions, and where the maps have their
    evidence; each {claim, text}.

    `document` is the content of summary.json; keys of steps that did not run may be missing.
    """
    if not document["pixels"]:
        return [{"claim": "There is nothing to explain:", "text": "no pixel of the test split has a class."}]
    if not document["wrong_pixels"]:
        text = f"all {_whole(document['pixels'])} pixels of {document['images']} test images are predicted right."
        return [{"claim": "There is nothing to explain:", "text": text}]
    steps = (_biases, _pair, _failed_gate, _mode, _unexplained, _suspects, _group, _evidence)
    found = [pair for step in steps for pair in step(document)]
    return [{"claim": claim, "text": text} for claim, text in found[:MOST]]


def _biases(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """One place for all confirmed biases: the strongest in full, the others by their number."""
    confirmed = document.get("bias", {}).get("findings", [])
    if confirmed:
        first, others = confirmed[0], len(confirmed) - 1
        more = f" {others} more {'was' if others == 1 else 'were'} confirmed." if others else ""
        text = f"{first['sentence']} {first['intervention']['sentence']}{more}"
        yield "A bias was found, and confirmed by changing the images:", text


def _pair(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    first, *others = document["pairs"]
    claim = f"{first['true_name']} predicted as {first['predicted_name']} costs most: {_cost(first)}."
    text = (
        f"That is what mIoU ({_percent(document['miou'])}) would gain if these {_whole(first['pixels'])} pixels were right;"
        f" they are {_percent(first['share'])} of all wrong pixels. In all, {_percent(document['wrong_share'])} of the pixels are"
        f" wrong, on {document['images_with_errors']} of {document['images']} images."
    )
    if others:
        second = others[0]
        text += f" Next comes {second['true_name']} predicted as {second['predicted_name']} ({_points(second['cost'])} points)."
    yield claim, text


def _failed_gate(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sanity = document.get("sanity", {})
    if sanity and not sanity["passed"] and sanity.get("status") != "unknown":
        yield "The maps on this page are not evidence for this model.", sanity["sentence"]


def _mode(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    worst = max(document["modes"], key=lambda row: row["cost"])
    text = (
        f"{worst['meaning'].capitalize()}. It makes {_percent(worst['share'])} of the wrong pixels, in {_whole(worst['regions'])}"
        " regions."
    )
    yield f"The costliest kind of error is “{worst['mode']}”: {_cost(worst)}.", text


def _unexplained(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not document["chosen"]:
        text = f"the largest of {_whole(document['regions'])} error regions is smaller than {document['min_area']} pixels."
        yield "No region was explained:", text


def _suspects(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    row = next(row for row in document["modifiers"] if row["modifier"] == "suspect")
    if row["share"] >= MANY_SUSPECTS:
        claim = f"{_percent(row['share'])} of the wrong pixels may be wrong labels."
        places = "In one thick region" if row["regions"] == 1 else f"In {_whole(row['regions'])} thick regions"
        yield claim, f"{places} the network gives its class more than 95 % on average: send them to be labelled again first."


def _group(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    groups = document.get("clusters", {})
    if groups.get("clusters"):
        yield f"Errors that go wrong alike: {groups['clusters'][0]['name']}.", groups["sentence"]


def _evidence(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the predicted class has its evidence, unless the maps failed their check."""
    layer = document["main_layer"]
    near = document.get("measures", {}).get(layer, {}).get("hirescam", {}).get("predicted_near")
    if not near or near["errors"]["median"] is None or list(_failed_gate(document)):
        return
    claim = f"Where the network errs, {_percent(near['errors']['median'])} of the predicted class's evidence lies on the error."
    text = f"That is the median of HiResCAM on layer {layer}, within one of its cells of the region"
    if near["controls"]["median"] is not None:
        text += f"; on {near['controls']['n']} matched correct regions it is {_percent(near['controls']['median'])}"
    yield claim, f"{text}. What a map shows is a hypothesis until a change of the image confirms it."


def _cost(row: dict[str, Any]) -> str:
    """A cost with its interval, such as "2.10 points of mIoU (95 % 0.80 to 3.31)"."""
    text = f"{_points(row['cost'])} points of mIoU"
    return text if row["cost_low"] is None else f"{text} (95 % {_points(row['cost_low'])} to {_points(row['cost_high'])})"


def _points(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:.2f}"


def _percent(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def _whole(value: int) -> str:
    return f"{value:,}".replace(",", " ")
