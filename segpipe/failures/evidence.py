"""The columns that looking at a region adds to its row, the same for an error and for its matched correct region."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.failures.labelling import connected
from segpipe.failures.look import KINDS, Answer
from segpipe.failures.measures import measure, reading, scene


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The connected segments of one image by number, int32 (H, W), 0 where there is none: of the ground truth and of the
    prediction."""

    true: np.ndarray
    predicted: np.ndarray


def segments_of(target: np.ndarray, prediction: np.ndarray, *, ignore_index: int) -> Segments:
    """The segments of labels (H, W); ignored pixels belong to none."""
    found = [connected(np.where(target == ignore_index, 0, labels.astype(np.int32) + 1))[0] for labels in (target, prediction)]
    return Segments(true=found[0], predicted=found[1])


def columns_of(answer: Answer, region: np.ndarray, *, segments: Segments, target: np.ndarray, num_classes: int) -> dict[str, Any]:
    """What an answer says about `region` bool (H, W), as columns; those of a layer are named `<layer>/<kind>_<measure>`.

    `logit_true`, `logit_predicted` and `margin` (predicted less true); for each layer `<layer>/area_<place>` and
    `<layer>/area_classes`, the shares of the shown pixels that the energy shares stand beside, `<layer>/reading`, and the
    measures of `measures.measure` for both kinds of map. Those named `..._classes` hold an array float32 (K,).
    """
    true, predicted = answer.logits
    row: dict[str, Any] = {"logit_true": true, "logit_predicted": predicted, "margin": predicted - true}
    first = np.unravel_index(int(region.argmax()), region.shape)
    segment, guess = (labels == labels[first] for labels in (segments.true, segments.predicted))
    for layer, (rows, columns) in answer.axes.items():
        cell = (1 / rows.scale, 1 / columns.scale)
        place = scene(region, segment=segment, guess=guess, target=target, window=answer.window, cell=cell)
        row |= {f"{layer}/area_{name}": share for name, share in place.areas().items()}
        row[f"{layer}/area_classes"] = place.classes(place.window.astype(np.float64), num_classes=num_classes)
        for kind in KINDS:
            pair = answer.maps[layer][kind]
            found = measure(pair[0], pair[1], place=place, rows=rows, columns=columns, num_classes=num_classes)
            row |= {f"{layer}/{kind}_{name}": value for name, value in found.items()}
            if kind == "hirescam":
                row[f"{layer}/reading"] = reading(found)
    return row
