"""The first look at a whole split: every error region of every image, and its confusion counts. Needs no network."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segpipe import confusion
from segpipe.failures import modes
from segpipe.failures.context import Context
from segpipe.failures.regions import COLUMNS, boundary_radius, error_regions
from segpipe.shards import decode_mask

AHEAD = 4
"""Images that are looked at in threads before their turn (decoding and the compiled kernels let go of the interpreter)."""
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Survey:
    """`regions`: one row per error region in the split's order (columns id, unit, COLUMNS, mode and the modifiers). `counts`:
    confusion counts int64 (N, K, K) of each image."""

    regions: pd.DataFrame
    counts: np.ndarray


def survey(context: Context) -> Survey:
    """Find and count the errors of all images.

    Raises:
        ValueError: a prediction does not fit its image.
    """
    names = list(context.positions)
    classes = len(context.class_names)
    counts = np.zeros((len(names), classes, classes), np.int64)
    kinds = {"id": object, "unit": np.int64, **COLUMNS, "mode": object, **dict.fromkeys(modes.MODIFIERS, np.bool_)}
    parts: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype)] for name, dtype in kinds.items()}
    for row, (counted, found) in enumerate(_looked_at(context)):
        counts[row] = counted
        found |= {"id": np.full(len(found["area"]), names[row], object)}
        found |= {"unit": np.full(len(found["area"]), context.units[row], np.int64)}
        for column, values in found.items():
            parts[column].append(values)
    table = pd.DataFrame({name: np.concatenate(parts[name]) for name in kinds}).astype({"id": "str", "mode": "str"})
    total = counts.sum(axis=0)
    assert int(table["area"].sum()) == int(total.sum() - np.trace(total)), "every wrong pixel lies in one region"
    return Survey(regions=table, counts=counts)


def _looked_at(context: Context) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        waiting: deque[Future[tuple[np.ndarray, dict[str, np.ndarray]]]] = deque()
        for name, encoded in zip(context.positions, context.split.column("mask"), strict=True):
            waiting.append(pool.submit(_look, context, name, encoded))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look(context: Context, name: str, encoded: bytes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Confusion counts (K, K) and the columns of the error regions of one image."""
    target, prediction, classes = decode_mask(encoded), context.predictions[name], len(context.class_names)
    try:
        counts = confusion.count(target, prediction, num_classes=classes, ignore_index=context.ignore_index)
        _, table = error_regions(
            target,
            prediction=prediction,
            num_classes=classes,
            ignore_index=context.ignore_index,
            confidence=context.confidence(name),
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}. Run evaluate again: these predictions do not fit the test split.") from error
    radius, below = boundary_radius(*target.shape), modes.small_below(*target.shape)
    table["mode"] = modes.assign(table, radius=radius)
    return counts, table | modes.modifiers(table, radius=radius, below=below)
