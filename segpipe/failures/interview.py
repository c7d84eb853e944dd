"""The second look, with the network: it is asked about the chosen error regions and about their matched correct regions.

All questions about one image share its forward pass, so an image is shown once, however many of its regions were chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.context import Context
from segpipe.failures.controls import Control
from segpipe.failures.evidence import columns_of, segments_of
from segpipe.failures.look import Answer, Question
from segpipe.failures.regions import error_regions


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One chosen region, or the correct one matched to it, and all there is to draw it: the row of the error in
    `Explanation.regions`, its image, and its maps."""

    index: int
    image: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    region: np.ndarray
    answer: Answer

    @property
    def question(self) -> Question:
        """What the network was asked about it."""
        row, column = np.unravel_index(int(self.region.argmax()), self.region.shape)
        return Question(region=self.region, true=int(self.target[row, column]), predicted=int(self.prediction[row, column]))


@dataclass(frozen=True, kw_only=True)
class Answers:
    """`errors`: the explained regions in the order of the table asked about; `measured`: the columns of `evidence.columns_of`
    for each, by the same index; `controls`: one row per matched correct region (matched, id, unit, label, predicted, area, top,
    left, and the same columns); `matched`: these regions themselves, by the index of their error."""

    errors: list[Explained]
    matched: dict[int, Explained]
    measured: pd.DataFrame
    controls: pd.DataFrame


def ask(context: Context, chosen: pd.DataFrame, controls: Sequence[Control]) -> Answers:
    """Ask about the rows `chosen` of the table of error regions (columns id, region, true, predicted) and about `controls`."""
    explained: dict[int, Explained] = {}
    rows: dict[int, dict[str, Any]] = {}
    others: dict[int, dict[str, Any]] = {}
    matched: dict[int, Explained] = {}
    ids = dict.fromkeys([*chosen["id"].astype(str), *(control.id for control in controls)])
    for name in sorted(ids, key=context.positions.__getitem__):
        image, target, prediction = context.arrays(name)
        mine = chosen[chosen["id"] == name]
        theirs = [number for number, control in enumerate(controls) if control.id == name]
        questions = [*_errors(mine, context, name), *(_control(controls[number]) for number in theirs)]
        segments = segments_of(target, prediction, ignore_index=context.ignore_index)
        answers = context.viewer.ask(image, questions)
        columns = [
            columns_of(answer, question.region, segments=segments, target=target, num_classes=len(context.class_names))
            for question, answer in zip(questions, answers, strict=True)
        ]
        indices = [*(int(index) for index in mine.index), *(controls[number].matched for number in theirs)]
        regions = [
            Explained(index=index, image=image, target=target, prediction=prediction, region=question.region, answer=answer)
            for index, question, answer in zip(indices, questions, answers, strict=True)
        ]
        for region, found in zip(regions[: len(mine)], columns, strict=False):
            rows[region.index], explained[region.index] = found, region
        for number, region, found in zip(theirs, regions[len(mine) :], columns[len(mine) :], strict=True):
            others[number], matched[region.index] = found, region
    order = [int(index) for index in chosen.index]
    measured = pd.DataFrame([rows[index] for index in order], index=chosen.index)
    return Answers(
        errors=[explained[index] for index in order],
        matched=matched,
        measured=measured,
        controls=_table(context, controls, [others[number] for number in range(len(controls))], list(measured.columns)),
    )


def _errors(rows: pd.DataFrame, context: Context, name: str) -> list[Question]:
    if rows.empty:
        return []
    _, target, prediction = context.arrays(name)
    labels, _ = error_regions(
        target, prediction=prediction, num_classes=len(context.class_names), ignore_index=context.ignore_index
    )
    keys = zip(rows["region"], rows["true"], rows["predicted"], strict=True)
    return [Question(region=labels == region, true=int(true), predicted=int(predicted)) for region, true, predicted in keys]


def _control(control: Control) -> Question:
    return Question(region=control.region, true=control.true, predicted=control.predicted)


def _table(
    context: Context, controls: Sequence[Control], measured: Sequence[dict[str, Any]], columns: Sequence[str]
) -> pd.DataFrame:
    """One row per control; without any, the columns are there all the same."""
    where = {
        "matched": np.array([control.matched for control in controls], np.int64),
        "id": pd.Series([control.id for control in controls], dtype="str"),
        "unit": np.array([context.units[context.positions[control.id]] for control in controls], np.int64),
        "label": np.array([control.true for control in controls], np.int32),
        "predicted": np.array([control.predicted for control in controls], np.int32),
        "area": np.array([control.area for control in controls], np.int64),
        "top": np.array([control.top for control in controls], np.int32),
        "left": np.array([control.left for control in controls], np.int32),
    }
    return pd.concat([pd.DataFrame(where), pd.DataFrame(list(measured), columns=list(columns))], axis=1)
