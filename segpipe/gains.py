"""What other inference modes gain and cost, and what corruptions take away: from confusion counts, with intervals over test images.

Every interval is of a difference on the same images (`resampling.py`, `intervals.py`): the bootstrap draws the same test sets for
the main mode and for the variant. The unit is the image, or the group that images belong to.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segpipe.intervals import spread
from segpipe.metrics import iou, mean_iou
from segpipe.metrics._ratios import mean_of_defined
from segpipe.resampling import bootstrap, jackknife, paired_test, units_of

RESAMPLES, ALPHA = 1000, 0.05
METRICS = {"miou": mean_iou.compute, "iou": iou.compute}


def mode_scores(
    main: np.ndarray,
    variants: Sequence[tuple[str, np.ndarray, float]],
    *,
    groups: Sequence[str],
    main_seconds: float,
    seed: int,
) -> dict[str, Any]:
    """What scores.json has under `modes`, one entry for each mode by its name; undefined values are None.

    Args:
        main: counts int64 (N, K, K) of the main mode, without CRF.
        variants: (name, counts int64 (N, K, K), seconds per image) of each mode.
        groups: of the N images.
        main_seconds: per image of the main mode, without CRF.

    Returns:
        By name `miou`; `gain` over the main mode with `gain_low`, `gain_high` (95 %) and `p`, of the paired label-swap test
        (not corrected for the number of modes); `seconds_per_image` and `cost_ratio`, that by the main mode's.
    """
    scores: dict[str, Any] = {}
    for name, counts, seconds in variants:
        test = paired_test(counts, main, groups, metric=mean_iou.compute, resamples=RESAMPLES, seed=seed, alpha=ALPHA)
        scores[name] = {
            "miou": _number(mean_iou.compute(counts.sum(axis=0))),
            "gain": _number(test.difference),
            "gain_low": _number(test.ci_low),
            "gain_high": _number(test.ci_high),
            "p": _number(test.p),
            "seconds_per_image": float(seconds),
            "cost_ratio": float(seconds / main_seconds) if main_seconds > 0 else None,
        }
    return scores


def corruption_scores(
    main: np.ndarray,
    variants: Sequence[tuple[str, int, np.ndarray]],
    *,
    groups: Sequence[str],
    class_names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """What scores.json has under `corruptions`; undefined values are None. Drops are positive where the damage costs.

    Args:
        main: counts int64 (N, K, K) of the undamaged images.
        variants: (corruption, severity, counts int64 (N, K, K)) of each.
        groups: of the N images.
        class_names: the K classes.

    Returns:
        `mean`, over all of them, and `noise-1`, `noise-3`, ...: each has `miou`; `drop` of mIoU with `drop_low`, `drop_high`
        (95 %); and `classes` {name: {"drop", "drop_low", "drop_high"}} of IoU. Those of one corruption have `corruption` and
        `severity` too, and `mean` has `kept`, its mIoU by that of the undamaged images. Empty without variants.
    """
    if not variants:
        return {}
    units = units_of(groups)[0]

    def sampled(counts: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By metric: the value (K or 1,), bootstrap draws of it (R, K or 1) and its values without each unit (U, K or 1)."""
        draws = bootstrap(counts[None], units, metrics=METRICS, resamples=RESAMPLES, seed=seed)
        left = jackknife(counts[None], units, metrics=METRICS)
        whole = {name: metric(counts.sum(axis=0)) for name, metric in METRICS.items()}
        return {
            name: (np.atleast_1d(whole[name]), *(found[name][0].reshape(len(found[name][0]), -1) for found in (draws, left)))
            for name in METRICS
        }

    clean = sampled(main)
    damaged = [sampled(counts) for _, _, counts in variants]
    averaged = {
        # The mean over corruptions: a class that one of them leaves undefined is averaged over the others.
        name: tuple(mean_of_defined(np.stack([one[name][part] for one in damaged], axis=-1)) for part in range(3))
        for name in METRICS
    }

    def entry(found: Any) -> dict[str, Any]:
        drops = {name: [_drop(clean[name], found[name], k) for k in range(len(found[name][0]))] for name in METRICS}
        return {
            "miou": _number(found["miou"][0][0]),
            **drops["miou"][0],
            "classes": dict(zip(class_names, drops["iou"], strict=True)),
        }

    miou, reference = averaged["miou"][0][0], clean["miou"][0][0]
    return {
        "mean": {**entry(averaged), "kept": _number(miou / reference) if reference > 0 else None},
        **{
            f"{name}-{severity}": {"corruption": name, "severity": severity, **entry(found)}
            for (name, severity, _), found in zip(variants, damaged, strict=True)
        },
    }


def _drop(clean: Any, damaged: Any, column: int) -> dict[str, float | None]:
    value, draws, left = (
        np.asarray(one)[..., column] - np.asarray(other)[..., column] for one, other in zip(clean, damaged, strict=True)
    )
    chance = spread(draws, float(value), left, alpha=ALPHA)
    return {"drop": _number(value), "drop_low": _number(chance.low), "drop_high": _number(chance.high)}


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
