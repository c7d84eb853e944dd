"""The numbers of a failure analysis in one JSON document, and the files of `failures/<experiment>/`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.look import KINDS, Answer
from segpipe.failures.measures import FAINT, NO_EVIDENCE, READINGS
from segpipe.failures.tables import mode_table, pair_table
from segpipe.metrics import mean_iou

REGIONS, MAPS, SUMMARY = "regions.parquet", "maps.npz", "summary.json"
PLACES = ("inside", "near", "segment", "border")


def summarise(
    regions: pd.DataFrame,
    *,
    confusion: np.ndarray,
    class_names: Sequence[str],
    layers: Sequence[str],
    images: int,
    seed: int,
    min_area: int,
) -> dict[str, Any]:
    """Counts, costs and medians of a table of error regions with the columns that `explain` adds.

    `pairs` and `modes` are the rows of `tables`, pairs with class names and the readings of their chosen regions; `layers` holds
    for each layer the medians over the chosen regions. An undefined number is None.
    """
    pixels, right = int(confusion.sum()), int(np.trace(confusion))
    chosen = regions[regions["chosen"]]
    pairs = pair_table(regions, confusion=confusion, mean_iou=mean_iou.compute)
    for row in pairs:
        mine = chosen[(chosen["true"] == row["true"]) & (chosen["predicted"] == row["predicted"])]
        row["true_name"], row["predicted_name"] = class_names[row["true"]], class_names[row["predicted"]]
        row["chosen"] = len(mine)
        row["readings"] = _counts(mine[f"{layers[0]}/reading"], READINGS) if len(mine) else {}
    document = {
        "images": images,
        "images_with_errors": int(regions["id"].nunique()),
        "pixels": pixels,
        "wrong_pixels": pixels - right,
        "wrong_share": (pixels - right) / pixels if pixels else None,
        "miou": float(mean_iou.compute(confusion)),
        "class_names": list(class_names),
        "regions": len(regions),
        "regions_large_enough": int((regions["area"] >= min_area).sum()),
        "chosen": len(chosen),
        "min_area": min_area,
        "seed": seed,
        "main_layer": layers[0],
        "pairs": pairs,
        "modes": mode_table(regions, confusion=confusion, mean_iou=mean_iou.compute),
        "layers": {layer: _medians(chosen, layer) for layer in layers} if len(chosen) else {},
    }
    cleaned: dict[str, Any] = _null_for_nan(document)
    return cleaned


def _medians(chosen: pd.DataFrame, layer: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        prefix = f"{layer}/{kind}_"
        names = [f"{which}_{place}" for which in ("true", "predicted") for place in PLACES]
        kinds[kind] = {name: float(chosen[prefix + name].median()) for name in (*names, "cosine", "spearman")}
        for which in ("true", "predicted"):
            for key, status in (("no_evidence", NO_EVIDENCE), ("faint", FAINT)):
                kinds[kind][f"{which}_{key}"] = int((chosen[f"{prefix}{which}_status"] == status).sum())
    areas = {f"area_{place}": float(chosen[f"{layer}/area_{place}"].median()) for place in PLACES}
    return {**areas, **kinds, "readings": _counts(chosen[f"{layer}/reading"], READINGS)}


def _counts(values: pd.Series, names: Iterable[str]) -> dict[str, int]:
    return {name: number for name in names if (number := int((values == name).sum()))}


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_null_for_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write(folder: Path, *, regions: pd.DataFrame, answers: dict[int, Answer], document: dict[str, Any]) -> None:
    """Write the three files of an explanation into `folder`, which is created.

    maps.npz holds for each explained region (its row in regions.parquet) `<row>/<layer>/<kind>`, float16 (2, h, w): the raw maps of
    the true and of the predicted class divided by `<row>/<layer>/<kind>/scale`, their greatest absolute value. `rows`
    lists the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    regions.to_parquet(folder / REGIONS, index=False)
    arrays: dict[str, np.ndarray] = {"rows": np.array(sorted(answers), np.int64)}
    for index, answer in sorted(answers.items()):
        for layer, kinds in answer.maps.items():
            for kind, maps in kinds.items():
                scale = float(np.abs(maps).max()) or 1.0
                arrays[f"{index}/{layer}/{kind}"] = (maps / scale).astype(np.float16)
                arrays[f"{index}/{layer}/{kind}/scale"] = np.array(scale, np.float32)
    np.savez_compressed(folder / MAPS, **arrays)  # type: ignore[arg-type]
    (folder / SUMMARY).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
