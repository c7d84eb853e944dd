"""The files of `evaluations/<experiment>/` from what `evaluation.py` measured, all but the predictions, which are streamed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segpipe import gains, image_level, results, surfaces
from segpipe.confusion_drawing import draw_confusion
from segpipe.evaluation import Evaluation
from segpipe.metrics import iou, mean_dice, mean_iou, mean_pixel_accuracy, pixel_accuracy
from segpipe.metrics._ratios import mean_of_defined


def write_evaluation(folder: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Write the files of `evaluations/<experiment>/`, all but the predictions (`results.PredictionWriter`); return the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    counts, ids, groups = evaluation.counts, evaluation.ids, evaluation.groups
    results.write_counts(folder, counts, ids=ids, groups=groups)
    results.write_per_image(folder, per_image_table(evaluation))
    results.write_masks(folder, evaluation.masks, trimap=evaluation.trimap, radii=surfaces.TRIMAP_RADII)
    results.write_calibration(folder, evaluation.calibration.document() | {"images": evaluation.calibration_images})
    results.write_variants(
        folder,
        evaluation.variant_counts,
        names=[variant.name for variant in evaluation.variants],
        kinds=[variant.kind for variant in evaluation.variants],
        seconds=evaluation.variant_seconds,
    )
    draw_confusion(counts.sum(axis=0), class_names=evaluation.class_names, path=folder / results.DRAWING)
    scores = scores_of(evaluation)
    results.write_scores(folder, scores)
    return scores


def scores_of(evaluation: Evaluation) -> dict[str, Any]:
    """The content of scores.json, flat but for `modes`, `corruptions` and `instances`; an undefined score is None.

    Beside the scores of `results.score`, `image_level.scores` and `surfaces.scores`: `trimap_miou` {radius: mIoU in the band};
    `temperature`, and `ece`, `mce` and `mean_confidence` with it, `ece_without_temperature` without; `ap`, `ap50` and `pq` where
    there are instances. `seconds_per_image` is the median, which the slower first image does not move.

    With a CRF all scores are those of its labels, but confidence, modes and corruptions are the network's own; `crf`,
    `miou_without_crf` and `crf_gain` say what it made of them.
    """
    counts, names = evaluation.counts, evaluation.class_names
    scores = {
        **results.score(counts, class_names=names, metrics=evaluation.metrics),
        **image_level.scores(counts, class_names=names, ids=evaluation.ids),
        **surfaces.scores(evaluation.masks, counts, class_names=names),
        "distance_unit": evaluation.distance_unit,
        "trimap_miou": {
            str(radius): _number(value)
            for radius, value in zip(surfaces.TRIMAP_RADII, mean_iou.compute(evaluation.trimap), strict=True)
        },
        **_calibration(evaluation),
        **_instances(evaluation),
        "seconds_per_image": float(np.median(evaluation.seconds)),
        "tta": evaluation.tta,
        "tile": evaluation.tile if isinstance(evaluation.tile, str) else list(evaluation.tile),
    }
    if evaluation.crf is not None:
        before = results.score(evaluation.network_counts, class_names=names)["miou"]
        gain = None if before is None or scores["miou"] is None else scores["miou"] - before
        scores |= {"crf": str(evaluation.crf), "miou_without_crf": before, "crf_gain": gain}
    return scores | _variants(evaluation)


def per_image_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row per image: id, group, its scores (NaN where undefined), the classes in its mIoU, the seconds it took, and the means
    over its classes of the metrics of label masks."""
    counts = evaluation.counts
    return pd.DataFrame(
        {
            "id": evaluation.ids,
            "group": evaluation.groups,
            "pa": pixel_accuracy.compute(counts),
            "mpa": mean_pixel_accuracy.compute(counts),
            "miou": mean_iou.compute(counts),
            "mdice": mean_dice.compute(counts),
            "n_classes": np.isfinite(iou.compute(counts)).sum(axis=-1),
            "seconds": evaluation.seconds,
            **{key: mean_of_defined(values) for key, values in evaluation.masks.items()},
        }
    )


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    document = evaluation.calibration.document()
    return {
        "temperature": document["temperature"],
        "temperature_images": evaluation.calibration_images,
        "mean_confidence": document["after"]["mean_confidence"],
        "ece": document["after"]["ece"],
        "mce": document["after"]["mce"],
        "ece_without_temperature": document["before"]["ece"],
    }


def _instances(evaluation: Evaluation) -> dict[str, Any]:
    found = evaluation.instances
    if found is None:
        return {}
    return {"ap": found["ap"]["ap"], "ap50": found["ap"]["ap50"], "pq": found["pq"]["pq"], "instances": found}


def _variants(evaluation: Evaluation) -> dict[str, Any]:
    """`modes` and `corruptions`, see `gains`; each is {} where params.yaml asks for none."""
    counts, seconds = evaluation.variant_counts, np.median(evaluation.variant_seconds, axis=1)
    numbered = list(enumerate(evaluation.variants))
    return {
        "modes": gains.mode_scores(
            evaluation.network_counts,
            [(v.name, counts[i], float(seconds[i])) for i, v in numbered if v.corruption is None],
            groups=evaluation.groups,
            main_seconds=float(np.median(evaluation.network_seconds)),
            seed=evaluation.seed,
        ),
        "corruptions": gains.corruption_scores(
            evaluation.network_counts,
            [(v.corruption, v.severity, counts[i]) for i, v in numbered if v.corruption is not None],
            groups=evaluation.groups,
            class_names=evaluation.class_names,
            seed=evaluation.seed,
        ),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
