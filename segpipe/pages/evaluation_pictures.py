"""The test images that the page of an evaluation shows: which, why, and their pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segpipe import image_level
from segpipe.drawing import colour_mask
from segpipe.metrics import iou

WORST_SHOWN, CLASSES_SHOWN = 8, 24
"""So many of the worst images, and of the classes with the lowest IoU, are shown."""
LONGEST_SIDE = 340
RIGHT, WRONG, UNLABELLED = (222, 226, 230), (190, 30, 45), (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One test image to show: its index, why (sentences), the classes whose numbers lead to it, and pictures uint8 (H, W, 3)."""

    index: int
    why: Sequence[str]
    classes: Sequence[int]
    cells: Sequence[tuple[str, np.ndarray]]


def choose_images(counts: np.ndarray, class_names: Sequence[str]) -> list[tuple[int, list[str], list[int]]]:
    """[(index, why, classes)]: the images with the lowest mIoU, and for each of the lowest classes that with most wrong pixels.

    An image stands once, with all reasons for it; the order is that of the reasons.
    """
    _, worst = image_level.worst_images(counts, share=1.0)
    chosen: dict[int, tuple[list[str], list[int]]] = {}
    for rank, index in enumerate(worst[:WORST_SHOWN].tolist(), start=1):
        place = "Lowest mIoU of all images" if rank == 1 else f"Number {rank} of the images with the lowest mIoU"
        chosen[index] = ([place], [])
    per_class = iou.compute(counts.sum(axis=0))
    right = np.diagonal(counts, axis1=1, axis2=2)
    wrong = counts.sum(axis=1) + counts.sum(axis=2) - 2 * right
    known = [k for k in np.argsort(per_class, kind="stable").tolist() if not np.isnan(per_class[k])]
    for k in known[:CLASSES_SHOWN]:
        index = int(wrong[:, k].argmax())
        if wrong[index, k]:
            reasons, mine = chosen.setdefault(index, ([], []))
            reasons.append(f"Most wrong pixels of {class_names[k]}")
            mine.append(k)
    return [(index, reasons, mine) for index, (reasons, mine) in chosen.items()]


def show_images(
    counts: np.ndarray,
    class_names: Sequence[str],
    sample: Callable[[int], tuple[np.ndarray, np.ndarray]],
    prediction: Callable[[int], np.ndarray],
    palette: np.ndarray,
    *,
    ignore_index: int,
) -> list[Card]:
    """The images of `choose_images` as pictures: the image, the truth, the prediction, and what of it is wrong.

    `sample(index)` is (image uint8 (H, W, 3), mask (H, W)), `prediction(index)` the labels (H, W), `palette` uint8 (K, 3).
    Pictures are made as small as the page will show them at most.
    """
    cards = []
    for index, why, classes in choose_images(counts, class_names):
        image, mask = sample(index)
        guess = prediction(index).copy()
        guess[mask == ignore_index] = ignore_index
        errors = np.array([RIGHT, WRONG, UNLABELLED], np.uint8)[np.where(mask == ignore_index, 2, guess != mask)]
        cells = [
            ("image", image),
            ("truth", colour_mask(mask, palette, ignore_index=ignore_index)),
            ("prediction", colour_mask(guess, palette, ignore_index=ignore_index)),
            ("wrong pixels", errors),
        ]
        cards.append(
            Card(index=index, why=why, classes=classes, cells=[(what, small(what, cell, LONGEST_SIDE)) for what, cell in cells])
        )
    return cards


def small(what: str, picture: np.ndarray, side: int) -> np.ndarray:
    """`picture` with its longer side at most `side`; labels keep their colours and are enlarged to stay sharp."""
    factor = side / max(picture.shape[:2])
    if factor < 1:
        size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
        kind = cv2.INTER_AREA if what == "image" else cv2.INTER_NEAREST_EXACT
        return np.asarray(cv2.resize(picture, size, interpolation=kind))
    return picture if what == "image" else picture.repeat(int(factor), axis=0).repeat(int(factor), axis=1)
