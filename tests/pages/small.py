"""Comparisons of a few made-up counts, for tests of what pages make of them."""

from typing import Any

import numpy as np

from segpipe.comparison import Comparison, compare
from segpipe.metrics import iou, mean_dice, mean_iou, mean_pixel_accuracy, pixel_accuracy
from segpipe.model_scores import Scored


def small_comparison(per_model: dict[str, np.ndarray], *, groups: list[str] | None = None, **cost: Any) -> Comparison:
    metrics = {
        "miou": mean_iou.compute,
        "mpa": mean_pixel_accuracy.compute,
        "pa": pixel_accuracy.compute,
        "dice": mean_dice.compute,
    }
    scored = [
        Scored(
            name=name,
            architecture="unet",
            loss="dice",
            seed=0,
            recipe=name,
            dataset="d",
            dataset_digest="d",
            ids=[str(i) for i in range(len(counts))],
            groups=groups or [""] * len(counts),
            counts=counts,
            cost={key: value[name] for key, value in cost.items()},
        )
        for name, counts in per_model.items()
    ]
    return compare(scored, metrics=metrics, per_class=iou.compute, resamples=200, alpha=0.05, seed=0)


def graded(right: list[int]) -> np.ndarray:
    """Two-class images of 200 pixels with so many right in each class."""
    return np.array([[[r, 100 - r], [100 - r, r]] for r in right], np.int64)
