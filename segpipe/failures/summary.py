"""The numbers of a failure analysis in one JSON document, and the files of `failures/<experiment>/`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segpipe.failures.findings import findings
from segpipe.failures.look import KINDS, Answer
from segpipe.failures.measures import FAINT, NO_EVIDENCE, READINGS
from segpipe.failures.tables import Books, mode_table, modifier_table, pair_table
from segpipe.metrics import mean_iou

REGIONS, CONTROLS, MAPS, SUMMARY = "regions.parquet", "controls.parquet", "maps.npz", "summary.json"
PLACES = ("inside", "near", "segment", "border")


def summarise(
    books: Books, *, class_names: Sequence[str], layers: Sequence[str], min_area: int, steps: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of summary.json: counts, costs and medians of error regions with the columns that `explain` adds.

    `pairs`, `modes` and `modifiers` are the rows of `tables`, pairs with class names and the readings of their chosen regions;
    `layers` holds for each layer the medians over the chosen regions; `steps` are further keys, what each later step of the
    analysis found; `findings` says the most important of all this in words. An undefined number is None.
    """
    regions, confusion = books.regions, books.confusion
    pixels = int(confusion.sum())
    chosen = regions[regions["chosen"]]
    pairs = pair_table(books, mean_iou=mean_iou.compute)
    for row in pairs:
        mine = chosen[(chosen["true"] == row["true"]) & (chosen["predicted"] == row["predicted"])]
        row["true_name"], row["predicted_name"] = class_names[row["true"]], class_names[row["predicted"]]
        row["chosen"] = len(mine)
        row["readings"] = _counts(mine[f"{layers[0]}/reading"], READINGS) if len(mine) else {}
    document = {
        "images": len(books.ids),
        "units": int(books.units.max()) + 1,
        "images_with_errors": int(regions["id"].nunique()),
        "pixels": pixels,
        "wrong_pixels": books.wrong,
        "wrong_share": books.wrong / pixels if pixels else None,
        "miou": float(mean_iou.compute(confusion)),
        "class_names": list(class_names),
        "regions": len(regions),
        "regions_large_enough": int((regions["area"] >= min_area).sum()),
        "chosen": len(chosen),
        "min_area": min_area,
        "seed": books.seed,
        "main_layer": layers[0],
        "pairs": pairs,
        "modes": mode_table(books, mean_iou=mean_iou.compute),
        "modifiers": modifier_table(books, mean_iou=mean_iou.compute),
        "layers": {layer: _medians(chosen, layer) for layer in layers} if len(chosen) else {},
        **steps,
    }
    cleaned: dict[str, Any] = _null_for_nan(document)
    return cleaned | {"findings": findings(cleaned)}


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
    """What JSON can hold: numbers of numpy become Python's, undefined ones None."""
    if isinstance(value, dict):
        return {key: _null_for_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def write(
    folder: Path, *, regions: pd.DataFrame, controls: pd.DataFrame, answers: Mapping[str, Answer], document: dict[str, Any]
) -> None:
    """Write the tables, the maps and the summary of an explanation into `folder`, which is created.

    maps.npz holds for each of `answers`, which are named by a row of regions.parquet (`<row>` for the error region, `control/<row>`
    for the correct one matched to it), `<name>/<layer>/<kind>`, float16 (2, h, w): the raw maps of the true and of the
    predicted class divided by `<name>/<layer>/<kind>/scale`, their greatest absolute value; and `<name>/<layer>/<kind>/margin`,
    float16 (h, w), the second less the first, with a `scale` of its own. `names` lists the names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    regions.to_parquet(folder / REGIONS, index=False)
    controls.to_parquet(folder / CONTROLS, index=False)
    arrays: dict[str, np.ndarray] = {"names": np.array(list(answers), np.str_)}
    for name, answer in answers.items():
        for layer, kinds in answer.maps.items():
            for kind, maps in kinds.items():
                arrays |= _stored(f"{name}/{layer}/{kind}", maps) | _stored(f"{name}/{layer}/{kind}/margin", maps[1] - maps[0])
    np.savez_compressed(folder / MAPS, **arrays)  # type: ignore[arg-type]
    (folder / SUMMARY).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _stored(name: str, maps: np.ndarray) -> dict[str, np.ndarray]:
    scale = float(np.abs(maps).max()) or 1.0
    return {name: (maps / scale).astype(np.float16), f"{name}/scale": np.array(scale, np.float32)}
