"""The failure analysis of one model on one split: all error regions, maps for a choice of them, and the tables over both.

Two passes: the first finds and measures every error region and counts the confusion; the second looks again at the images of
the chosen regions, with the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from segpipe import confusion
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.failures import modes, selection, summary
from segpipe.failures.look import KINDS, Answer, Question, Viewer
from segpipe.failures.measures import measure, reading, scene
from segpipe.failures.regions import COLUMNS, boundary_radius, connected, error_regions
from segpipe.shards import Split, decode_mask


class Predictions(Protocol):
    """Predicted label maps by image id, such as `segpipe.results.read_predictions` returns; a dict is one too."""

    def __getitem__(self, name: str, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One chosen region and all there is to draw it: its row in `Explanation.regions`, its image, and its maps."""

    index: int
    image: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    region: np.ndarray
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """`regions`: one row per error region, with measures where `chosen`; `summary`: what goes into summary.json."""

    regions: pd.DataFrame
    chosen: list[Explained]
    summary: dict[str, Any]


def explain(
    model: nn.Module,
    split: Split,
    predictions: Predictions,
    *,
    layers: Mapping[str, nn.Module],
    grids: Mapping[str, CamGrid],
    class_names: Sequence[str],
    ignore_index: int,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    regions: int = 60,
    seed: int = 0,
    min_area: int = selection.MIN_AREA,
    device: torch.device | str = "cpu",
) -> Explanation:
    """Explain where `predictions` err on `split`, and on what `model` based up to `regions` of the errors.

    Args:
        model: in eval mode, on `device`, with `input_rule`; the network behind the predictions.
        predictions: one label map per image of the split, at the image's size.
        layers: modules to take maps from, the main one first.
        grids: for the same names, where their cells lie in the network's input.
        mean, std: per channel of image values in 0..1, as the network was trained.
        size: (height, width) that images are resized to for the network.
        min_area: pixels that a chosen region has at least.

    Raises:
        ValueError: a prediction does not fit its image, or a layer has no map.
    """
    assert layers, "at least one layer"
    classes = len(class_names)
    table, counts = find_regions(split, predictions, num_classes=classes, ignore_index=ignore_index)
    choice = selection.choose(table, count=regions, seed=seed, min_area=min_area)
    reasons = {int(index): reason for index, reason in zip(choice["index"], choice["reason"], strict=True)}
    table["chosen"] = table.index.isin(list(reasons))
    table["reason"] = pd.Series([reasons.get(index, "") for index in table.index], index=table.index, dtype="str")
    viewer = Viewer(model=model, layers=layers, grids=grids, mean=mean, std=std, size=size, device=device)
    explained: dict[int, Explained] = {}
    measured: dict[int, dict[str, Any]] = {}
    positions = {name: i for i, name in enumerate(split.ids)}
    for name, rows in table[table["chosen"]].groupby("id", sort=False):
        image, target = split.arrays(positions[str(name)])
        prediction = predictions[str(name)]
        labels, _ = error_regions(target, prediction=prediction, num_classes=classes, ignore_index=ignore_index)
        segments, _ = connected(np.where(target == ignore_index, 0, target.astype(np.int64) + 1))
        keys = list(zip(rows["region"], rows["true"], rows["predicted"], strict=True))
        questions = [Question(region=labels == r, true=int(t), predicted=int(p)) for r, t, p in keys]
        for index, question, answer in zip(rows.index, questions, viewer.ask(image, questions), strict=True):
            explained[int(index)] = Explained(
                index=int(index),
                image=image,
                target=target,
                prediction=prediction,
                region=question.region,
                answer=answer,
            )
            segment = segments == segments[question.region][0]
            measured[int(index)] = _measures(answer, question.region, segment, target, classes)
    if measured:
        table = table.join(pd.DataFrame.from_dict(measured, orient="index"))
    result = summary.summarise(
        table,
        confusion=counts,
        class_names=class_names,
        layers=list(layers),
        images=len(split),
        seed=seed,
        min_area=min_area,
    )
    return Explanation(regions=table, chosen=[explained[index] for index in reasons], summary=result)


def find_regions(split: Split, predictions: Predictions, *, num_classes: int, ignore_index: int) -> tuple[pd.DataFrame, np.ndarray]:
    """All error regions of a split (columns id, COLUMNS, mode) in its order, and its confusion counts int64 (K, K)."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    parts: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype)] for name, dtype in COLUMNS.items()}
    parts |= {"id": [np.zeros(0, object)], "mode": [np.zeros(0, object)]}
    for name, encoded in zip(split.ids, split.column("mask"), strict=True):
        target, prediction = decode_mask(encoded), predictions[name]
        try:
            counts += confusion.count(target, prediction, num_classes=num_classes, ignore_index=ignore_index)
        except ValueError as error:
            raise ValueError(f"{name}: {error}. Run evaluate again: these predictions do not fit the test split.") from error
        _, found = error_regions(target, prediction=prediction, num_classes=num_classes, ignore_index=ignore_index)
        found |= {"id": np.full(len(found["area"]), name, object)}
        found["mode"] = modes.assign(found, radius=boundary_radius(target.shape[0], target.shape[1]))
        for column, values in found.items():
            parts[column].append(values)
    columns = {name: np.concatenate(parts[name]) for name in ("id", *COLUMNS, "mode")}
    table = pd.DataFrame(columns).astype({"id": "str", "mode": "str"})
    assert int(table["area"].sum()) == int(counts.sum() - np.trace(counts)), "every wrong pixel lies in one region"
    return table, counts


def _measures(answer: Answer, region: np.ndarray, segment: np.ndarray, target: np.ndarray, num_classes: int) -> dict[str, Any]:
    """The columns that explaining adds to a region's row; those of a layer are named `<layer>/<kind>_<measure>`."""
    true, predicted = answer.logits
    row: dict[str, Any] = {"logit_true": true, "logit_predicted": predicted, "margin": predicted - true}
    for layer, (rows, columns) in answer.axes.items():
        place = scene(region, segment=segment, target=target, window=answer.window, cell=(1 / rows.scale, 1 / columns.scale))
        row |= {f"{layer}/area_{name}": share for name, share in place.areas().items()}
        for kind in KINDS:
            pair = answer.maps[layer][kind]
            found = measure(pair[0], pair[1], place=place, rows=rows, columns=columns, num_classes=num_classes)
            row |= {f"{layer}/{kind}_{name}": value for name, value in found.items()}
            if kind == "hirescam":
                row[f"{layer}/reading"] = reading(found)
    return row


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Write regions.parquet, maps.npz and summary.json into `folder`; see `summary.write`."""
    answers = {one.index: one.answer for one in explanation.chosen}
    summary.write(folder, regions=explanation.regions, answers=answers, document=explanation.summary)
