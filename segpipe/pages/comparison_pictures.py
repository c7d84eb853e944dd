"""The pictures of the comparison page: which images are shown, side by side or one model against another, and in how many bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segpipe.agreement import ONLY_B
from segpipe.comparison import Comparison
from segpipe.drawing import colour_mask, label_edges
from segpipe.pages.render import data_uri
from segpipe.wording import points

ROWS_EACH = 3
PAIRS_DRAWN = 3
"""Pairs of models whose disagreements are drawn: the best model against those that follow it."""
PICTURE_BYTES = 6 * 2**20
"""What all pictures of a page may take together, before base64: the page stays under 10 MB whatever the dataset."""
LARGEST, SMALLEST = 360, 96
"""Longer side of a picture in pixels."""
RIGHT, EDGE, IGNORED = (244, 244, 242), (196, 200, 204), (0, 0, 0)
ONLY_A_COLOUR, ONLY_B_COLOUR, BOTH_WRONG_COLOUR = (0, 114, 178), (230, 159, 0), (170, 51, 119)
"""Told apart with any colour vision, and in print by their lightness."""
Sample = Callable[[int], tuple[np.ndarray, np.ndarray]]
Prediction = Callable[[str, int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture uint8 (H, W, 3). `kind` is "photo", "labels" (which keep hard edges) or "map" (whose thin lines must not go)."""

    caption: str
    picture: np.ndarray
    kind: str


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One test image side by side: why it was chosen, and its pictures."""

    why: str
    id: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class Versus:
    """The images on which model `b` is right on most pixels that model `a` gets wrong."""

    a: str
    b: str
    rows: Sequence[PictureRow]


def choose_images(comparison: Comparison) -> list[tuple[int, str]]:
    """[(index, why)]: the images with the lowest and the highest mean mIoU over the models, and those with the widest spread.

    No image is chosen twice; with one model there is no spread; images without a defined score are never chosen.
    """
    table = np.array([model.per_image for model in comparison.models])
    known = ~np.isnan(table).any(axis=0)
    mean, spread = table.mean(axis=0), table.max(axis=0) - table.min(axis=0)
    orders = [("worst", mean), ("best", -mean)] + ([("most disagreed", -spread)] if len(table) > 1 else [])
    taken: set[int] = set()
    chosen = []
    for why, order in orders:
        left = [int(i) for i in np.argsort(order, kind="stable") if known[i] and i not in taken][:ROWS_EACH]
        taken.update(left)
        chosen += [(i, why) for i in left]
    return chosen


def picture_rows(
    comparison: Comparison, sample: Sample, prediction: Prediction, palette: np.ndarray, *, ignore_index: int
) -> list[PictureRow]:
    """The rows of `choose_images`: `sample(index)` is (image, mask), `prediction(experiment, index)` the label mask (H, W).

    A model with several seeds is shown by its first one, whose name and own score the caption gives. In predictions the pixels
    without a label are black as in the truth, since nothing there counts.
    """
    rows = []
    for index, why in choose_images(comparison):
        image, mask = sample(index)
        cells = [_photo(image), _labels("truth", mask, mask, palette, ignore_index)]
        for model in comparison.models:
            first = model.members[0]
            caption = f"{first.name}  {points(float(first.per_image[index]))}"
            cells.append(_labels(caption, prediction(first.name, index), mask, palette, ignore_index))
        rows.append(PictureRow(why=why, id=comparison.ids[index], cells=cells))
    return rows


def versus_rows(
    comparison: Comparison,
    counts: np.ndarray,
    sample: Sample,
    prediction: Prediction,
    palette: np.ndarray,
    *,
    ignore_index: int,
) -> list[Versus]:
    """For the first pairs, the images on which the lower one is right most often where the higher one is wrong, drawn.

    `counts` is int64 (N, pairs, 5) of `agreement.count_agreement`, the pairs in the order of `comparison.pairs`; the other
    arguments are those of `picture_rows`.
    """
    found = []
    models = {model.name: model.members[0] for model in comparison.models}
    for number, pair in enumerate(comparison.pairs[:PAIRS_DRAWN]):
        only_b = counts[:, number, ONLY_B]
        rows = []
        for index in np.argsort(-only_b, kind="stable")[:ROWS_EACH].tolist():
            if not only_b[index]:
                continue
            image, mask = sample(index)
            a, b = (prediction(models[name].name, index) for name in (pair.a, pair.b))
            pixels = int(counts[index, number, 1:].sum())
            cells = [_photo(image), _labels("truth", mask, mask, palette, ignore_index)]
            for name, labels in ((pair.a, a), (pair.b, b)):
                caption = f"{models[name].name}  {points(float(models[name].per_image[index]))}"
                cells.append(_labels(caption, labels, mask, palette, ignore_index))
            drawn = difference_map(mask, a, b, ignore_index=ignore_index)
            cells.append(Cell(caption="who is right", picture=_fit(drawn, LARGEST, "map"), kind="map"))
            why = f"{pair.b} right, {pair.a} wrong on {100 * only_b[index] / pixels:.1f} % of the pixels"
            rows.append(PictureRow(why=why, id=comparison.ids[index], cells=cells))
        if rows:
            found.append(Versus(a=pair.a, b=pair.b, rows=rows))
    return found


def difference_map(truth: np.ndarray, a: np.ndarray, b: np.ndarray, *, ignore_index: int) -> np.ndarray:
    """uint8 (H, W, 3): pale where both labels are right, with the outlines of the truth; else who is wrong, by colour.

    `truth`, `a` and `b` are label maps (H, W). Pixels without a label are black.
    """
    picture = np.full((*truth.shape, 3), RIGHT, np.uint8)
    picture[label_edges(truth)] = EDGE
    right_a, right_b = a == truth, b == truth
    picture[right_a & ~right_b] = ONLY_A_COLOUR
    picture[right_b & ~right_a] = ONLY_B_COLOUR
    picture[~right_a & ~right_b] = BOTH_WRONG_COLOUR
    picture[truth == ignore_index] = IGNORED
    return picture


def encoded(groups: Sequence[Sequence[PictureRow]], *, limit: int = PICTURE_BYTES) -> list[list[dict[str, Any]]]:
    """Groups of rows as the template takes them: {"why", "id", "cells": [{"caption", "uri", "kind"}]}.

    Every picture's longer side is as long as lets all of them together stay within `limit` bytes, up to LARGEST pixels.
    """
    pictures = sum(len(row.cells) for rows in groups for row in rows)
    side = int(np.clip(np.sqrt(2 * limit / max(pictures, 1)), SMALLEST, LARGEST))
    while True:
        found: list[list[dict[str, Any]]] = [
            [{"why": row.why, "id": row.id, "cells": [_encoded(cell, side) for cell in row.cells]} for row in rows]
            for rows in groups
        ]
        # Base64 makes four letters of three bytes.
        size = sum(len(cell["uri"]) * 3 // 4 for rows in found for row in rows for cell in row["cells"])
        if size <= limit or side <= SMALLEST:
            return found
        side = max(SMALLEST, int(side * min(0.9, (limit / size) ** 0.5)))


def _encoded(cell: Cell, side: int) -> dict[str, str]:
    picture = _fit(cell.picture, side, cell.kind)
    factor = side // max(picture.shape[:2])
    if cell.kind != "photo" and factor >= 2:
        # Browsers blur what they enlarge; labels must keep their edges.
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return {"caption": cell.caption, "uri": data_uri(picture, jpeg=cell.kind == "photo"), "kind": cell.kind}


def _photo(image: np.ndarray) -> Cell:
    return Cell(caption="image", picture=_fit(image, LARGEST, "photo"), kind="photo")


def _labels(caption: str, labels: np.ndarray, mask: np.ndarray, palette: np.ndarray, ignore_index: int) -> Cell:
    shown = np.where(mask == ignore_index, np.array(ignore_index, mask.dtype), labels)
    picture = colour_mask(shown, palette, ignore_index=ignore_index)
    return Cell(caption=caption, picture=_fit(picture, LARGEST, "labels"), kind="labels")


def _fit(picture: np.ndarray, side: int, kind: str) -> np.ndarray:
    """`picture` with its longer side at most `side`; smaller ones are left as they are."""
    factor = side / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if kind == "labels" else cv2.INTER_AREA))
