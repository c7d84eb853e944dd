"""What an evaluation says and how it lies on disk: `evaluations/<experiment>/`. Needs no torch, so that readers start fast.

scores.json        the dataset's scores, flat; an undefined one is null
confusions.npz     counts int64 (N, K, K), ids, groups: every score, interval and test follows from these
per_image.parquet  one row per image: id, group, pa, mpa, miou, mdice, n_classes, seconds
predictions.arrow  id, mask (PNG of label indices), in the order of the test split
confusion.png      the summed counts, drawn
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from segpipe.metrics import (
    class_accuracy,
    dice,
    frequency_weighted_iou,
    iou,
    mean_dice,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
    precision,
)
from segpipe.shards import decode_mask, encode_mask

SCORES, COUNTS, PER_IMAGE, PREDICTIONS, DRAWING = (
    "scores.json",
    "confusions.npz",
    "per_image.parquet",
    "predictions.arrow",
    "confusion.png",
)
PREDICTION_SCHEMA = pa.schema([("id", pa.string()), ("mask", pa.binary())])
ROWS_PER_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Results:
    """One evaluation, read back: counts int64 (N, K, K), and the id and the group of each of the N images."""

    counts: np.ndarray
    ids: list[str]
    groups: list[str]
    class_names: list[str]
    scores: dict[str, Any]
    """The content of scores.json."""


def read_evaluation(folder: Path) -> Results:
    """Read scores and counts of `evaluations/<experiment>/`.

    Raises:
        ValueError: a file is missing.
    """
    scores = json.loads(_existing(folder, SCORES).read_text())
    with np.load(_existing(folder, COUNTS), allow_pickle=False) as arrays:
        return Results(
            counts=arrays["counts"],
            ids=[str(v) for v in arrays["ids"]],
            groups=[str(v) for v in arrays["groups"]],
            class_names=list(scores["iou"]),
            scores=scores,
        )


def read_per_image(folder: Path) -> pd.DataFrame:
    """The table of `per_image_table`, one row per image."""
    return pd.read_parquet(_existing(folder, PER_IMAGE))


class Predictions:
    """The predicted label maps of an evaluation, memory-mapped and decoded on demand.

    Iterating gives (id, mask) in the order of the test split; `predictions["some id"]` and `predictions.mask(3)` give one
    mask, uint8 or uint16 (H, W).
    """

    def __init__(self, folder: Path) -> None:
        self.path = _existing(folder, PREDICTIONS)
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        self._table = reader.read_all()
        self.ids: list[str] = self._table.column("id").to_pylist()
        self._rows = {name: row for row, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        return ((name, self.mask(row)) for row, name in enumerate(self.ids))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._rows:
            raise ValueError(f"{self.path}: holds no prediction for {name!r}")
        return self.mask(self._rows[name])

    def mask(self, row: int) -> np.ndarray:
        """The label map of image number `row`."""
        return decode_mask(np.frombuffer(self._table.column("mask")[row].as_buffer(), np.uint8))


def read_predictions(folder: Path) -> Predictions:
    """The predicted label maps of `evaluations/<experiment>/`; see `Predictions`."""
    return Predictions(folder)


class PredictionWriter:
    """Streams predictions.arrow into `folder`, so that memory holds a few images at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = pa.ipc.new_file(str(folder / PREDICTIONS), PREDICTION_SCHEMA)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, name: str, mask: np.ndarray) -> None:
        """Append the label map uint8/uint16 (H, W) of one image."""
        self._rows.append({"id": name, "mask": encode_mask(mask)})
        if len(self._rows) >= ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=PREDICTION_SCHEMA))
            self._rows = []


def write_scores(folder: Path, scores: dict[str, Any]) -> None:
    """Write scores.json. NaN is not JSON: undefined scores are None."""
    (folder / SCORES).write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")


def write_counts(folder: Path, counts: np.ndarray, *, ids: Sequence[str], groups: Sequence[str]) -> None:
    """Write confusions.npz: counts int64 (N, K, K), and the id and the group of each image."""
    assert counts.dtype == np.int64 and len(counts) == len(ids) == len(groups)
    np.savez_compressed(folder / COUNTS, counts=counts, ids=np.array(ids, dtype=np.str_), groups=np.array(groups, dtype=np.str_))


def write_per_image(folder: Path, table: pd.DataFrame) -> None:
    """Write per_image.parquet, the table of `per_image_table`."""
    table.to_parquet(folder / PER_IMAGE, index=False)


SCALARS = {
    "miou": mean_iou,
    "mpa": mean_pixel_accuracy,
    "pa": pixel_accuracy,
    "mdice": mean_dice,
    "fwiou": frequency_weighted_iou,
}
TABLES = {"iou": iou, "dice": dice, "class_accuracy": class_accuracy, "precision": precision}
"""With `SCALARS` the metrics that every evaluation has, by their key in scores.json."""


def score(counts: np.ndarray, *, class_names: Sequence[str], metrics: Mapping[str, ModuleType] | None = None) -> dict[str, Any]:
    """The scores of a whole test split from per-image counts int64 (N, K, K).

    All are on the counts summed over images, except `image_miou`, the mean over images of each image's mIoU (mIoU^I of Wang
    et al. 2023, arXiv 2310.19252). Undefined ones are None; `n_classes_averaged` says how many classes are in the means.
    `metrics` are further ones by name, modules as in `segpipe/metrics`; those of `SCALARS` and `TABLES` are there anyway.
    """
    total = counts.sum(axis=0)
    assert total.shape == (len(class_names), len(class_names)), f"counts {counts.shape} for {len(class_names)} classes"
    known = {metric.__name__.rpartition(".")[2] for metric in (*SCALARS.values(), *TABLES.values())}
    per_image = mean_iou.compute(counts)
    defined = per_image[~np.isnan(per_image)]

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        return {name: _number(value) for name, value in zip(class_names, values, strict=True)}

    return {
        **{key: _number(metric.compute(total)) for key, metric in SCALARS.items()},
        "image_miou": float(defined.mean()) if defined.size else None,
        "n_images": len(counts),
        "n_classes_averaged": int(np.isfinite(iou.compute(total)).sum()),
        **{key: by_class(metric.compute(total)) for key, metric in TABLES.items()},
        **{
            name: by_class(metric.compute(total)) if metric.PER_CLASS else _number(metric.compute(total))
            for name, metric in (metrics or {}).items()
            if name not in known
        },
    }


def per_image_table(
    counts: np.ndarray, *, ids: Sequence[str], groups: Sequence[str], seconds: Sequence[float] | np.ndarray
) -> pd.DataFrame:
    """One row per image: id, group, its scores (NaN where undefined), the classes in its mIoU, and the seconds it took."""
    return pd.DataFrame(
        {
            "id": list(ids),
            "group": list(groups),
            "pa": pixel_accuracy.compute(counts),
            "mpa": mean_pixel_accuracy.compute(counts),
            "miou": mean_iou.compute(counts),
            "mdice": mean_dice.compute(counts),
            "n_classes": np.isfinite(iou.compute(counts)).sum(axis=-1),
            "seconds": np.asarray(seconds, np.float64),
        }
    )


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _existing(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.exists():
        raise ValueError(f"{path}: missing, so {folder} is not a finished evaluation. Run `dvc repro` so that evaluate writes it.")
    return path
