"""The failure analysis of one model on one split: where it errs, what it looked at there, and whether that is to be believed.

Two passes: the first finds and measures every error region and counts the confusion; the second looks again at the images of
the chosen regions and of their controls, with the network. The other steps ask further of what these two found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.failures import attributes, bias, clusters, features, segments, selection, summary
from segpipe.failures.context import Context, Predictions
from segpipe.failures.controls import find_controls
from segpipe.failures.interview import Answers, ask
from segpipe.failures.interview import Explained as Explained
from segpipe.failures.look import Viewer
from segpipe.failures.paired import compare_with_controls
from segpipe.failures.sanity import Case, check_maps
from segpipe.failures.survey import Survey, survey
from segpipe.failures.tables import Books
from segpipe.resampling import units_of
from segpipe.shards import Split

STEPS = ("errors", "controls", "maps", "sanity", "clusters", "bias", "segments", "costs")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """`regions`: one row per error region, with measures where `chosen`; `controls`: one row per matched correct region, and
    `matched` these regions by the row of their error; `segments`: what this model makes of true segments that are the same for all
    models; `summary`: what goes into summary.json.
    """

    regions: pd.DataFrame
    chosen: list[Explained]
    controls: pd.DataFrame
    matched: dict[int, Explained]
    segments: segments.Segments
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
    on_step: Callable[[str], None] | None = None,
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
        on_step: called with each of STEPS when it begins.

    Raises:
        ValueError: a prediction does not fit its image, or a layer has no map.
    """
    assert layers, "at least one layer"
    begin = on_step or (lambda step: None)
    context = Context(
        split=split,
        predictions=predictions,
        viewer=Viewer(model=model, layers=layers, grids=grids, mean=mean, std=std, size=size, device=device),
        class_names=tuple(class_names),
        ignore_index=ignore_index,
        units=units_of(split.column("group"))[0],
        seed=seed,
    )
    begin("errors")
    seen = survey(context)
    table = _with_choice(seen.regions, count=regions, seed=seed, min_area=min_area)
    chosen = table[table["chosen"]]
    # The order of the choice: the costliest class pairs first.
    chosen = chosen.loc[chosen["rank"].sort_values().index]
    begin("controls")
    controls = find_controls(chosen, context=context, correct=np.diagonal(seen.counts, axis1=1, axis2=2))
    begin("maps")
    answers = ask(context, chosen, controls)
    table = table.drop(columns="rank").join(answers.measured)
    steps: dict[str, Any] = {"measures": _measures(context, table, answers)}
    begin("sanity")
    units = chosen["unit"].tolist()
    cases = [Case(image=one.image, question=one.question, unit=unit) for one, unit in zip(answers.errors, units, strict=True)]
    steps["sanity"] = check_maps(context.viewer, cases, seed=seed)
    begin("clusters")
    table["cluster"], steps["clusters"] = _clusters(context, table, answers)
    begin("bias")
    places = table[["id", "true", "predicted", "row", "column", "area"]]
    steps["bias"] = bias.analyse(context, places, attributes.collect(context))
    begin("segments")
    common = segments.measure(context)
    begin("costs")
    return Explanation(
        regions=table,
        chosen=answers.errors,
        controls=answers.controls,
        matched=answers.matched,
        segments=common,
        summary=_summary(context, table, seen, min_area=min_area, steps=steps),
    )


def _with_choice(regions: pd.DataFrame, *, count: int, seed: int, min_area: int) -> pd.DataFrame:
    """The table with the columns chosen, reason ("" where not chosen) and rank (the place in the choice, -1 for none)."""
    choice = selection.choose(regions, count=count, seed=seed, min_area=min_area)
    reasons = pd.Series("", index=regions.index, dtype="str")
    ranks = pd.Series(-1, index=regions.index, dtype=np.int64)
    reasons[choice["index"]], ranks[choice["index"]] = choice["reason"].to_numpy(), np.arange(len(choice))
    return regions.assign(chosen=ranks >= 0, reason=reasons, rank=ranks)


def _measures(context: Context, table: pd.DataFrame, answers: Answers) -> dict[str, Any]:
    return compare_with_controls(
        table.loc[answers.measured.index],
        answers.controls,
        layers=list(context.viewer.layers),
        num_classes=len(context.class_names),
        seed=context.seed,
    )


def _clusters(context: Context, table: pd.DataFrame, answers: Answers) -> tuple[pd.Series, dict[str, Any]]:
    """The column `cluster` of the table (-1 for none), and what is said of the groups."""
    chosen = table.loc[answers.measured.index]
    found = clusters.cluster(
        chosen,
        features.of_regions(context, chosen["id"].tolist(), [one.region for one in answers.errors]),
        units=chosen["unit"].to_numpy(),
        class_names=context.class_names,
        layer=next(iter(context.viewer.layers)),
        seed=context.seed,
    )
    column = pd.Series(-1, index=table.index, dtype=np.int32)
    column[chosen.index] = found.labels
    return column, found.document


def _summary(context: Context, table: pd.DataFrame, seen: Survey, *, min_area: int, steps: Mapping[str, Any]) -> dict[str, Any]:
    books = Books(regions=table, counts=seen.counts, ids=tuple(context.positions), units=context.units, seed=context.seed)
    layers = list(context.viewer.layers)
    return summary.summarise(books, class_names=context.class_names, layers=layers, min_area=min_area, steps=steps)


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Write regions.parquet, controls.parquet, maps.npz and summary.json (`summary.write`), and segments.parquet and segments.npz
    (`segments.write`) into `folder`."""
    answers = {str(one.index): one.answer for one in sorted(explanation.chosen, key=lambda one: one.index)}
    answers |= {f"control/{index}": one.answer for index, one in sorted(explanation.matched.items())}
    summary.write(
        folder,
        regions=explanation.regions,
        controls=explanation.controls,
        answers=answers,
        document=explanation.summary,
    )
    segments.write(folder, explanation.segments)
