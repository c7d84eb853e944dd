"""What an evaluation says and how it lies on disk: `evaluations/<experiment>/`. Needs no torch, so that readers start fast.

scores.json        the dataset's scores, flat but for modes, corruptions and instances; an undefined one is null
confusions.npz     counts int64 (N, K, K), ids, groups: every score, interval and test of counts follows from these
masks.npz          metrics of label masks, each float64 (N, K); trimap int64 (R, K, K) in bands of trimap_radii around contours
calibration.json   the temperature fitted on val, and the reliability of the confidence without and with it
variants.npz       counts int64 (V, N, K, K) in other inference modes and on corrupted images, names, kinds, seconds (V, N)
per_image.parquet  one row per image: id, group, pa, mpa, miou, mdice, n_classes, seconds, and the means of the metrics of masks
predictions.arrow  id, mask (PNG of label indices), confidence (PNG, 255 is certain), in the order of the test split
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
    recall,
)
from segpipe.shards import decode_mask, encode_mask

SCORES, COUNTS, PER_IMAGE, PREDICTIONS, DRAWING = (
    "scores.json",
    "confusions.npz",
    "per_image.parquet",
    "predictions.arrow",
    "confusion.png",
)
MASKS, CALIBRATION, VARIANTS = "masks.npz", "calibration.json", "variants.npz"
TRIMAP, TRIMAP_RADII = "trimap", "trimap_radii"
PREDICTION_SCHEMA = pa.schema([("id", pa.string()), ("mask", pa.binary()), ("confidence", pa.binary())])
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


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Counts int64 (V, N, K, K) of the same images predicted in V other ways; `kinds` are "mode" or "corruption" (`noise-3`).

    `seconds` is float64 (V, N). All are of the network's own answers, also where a CRF follows it.
    """

    counts: np.ndarray
    names: list[str]
    kinds: list[str]
    seconds: np.ndarray


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
    """The table of `evaluation_files.per_image_table`, one row per image."""
    return pd.read_parquet(_existing(folder, PER_IMAGE))


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    """The content of masks.npz: metrics of label masks by key, float64 (N, K), and `trimap`, `trimap_radii`."""
    with np.load(_existing(folder, MASKS), allow_pickle=False) as arrays:
        return dict(arrays)


def read_calibration(folder: Path) -> dict[str, Any]:
    """The content of calibration.json, see `calibration.Calibration.document`; `images` of val the temperature was fitted on."""
    document: dict[str, Any] = json.loads(_existing(folder, CALIBRATION).read_text())
    return document


def read_variants(folder: Path) -> Variants:
    """The content of variants.npz; V is 0 where params.yaml asks for no other way."""
    with np.load(_existing(folder, VARIANTS), allow_pickle=False) as arrays:
        return Variants(
            counts=arrays["counts"],
            names=[str(v) for v in arrays["names"]],
            kinds=[str(v) for v in arrays["kinds"]],
            seconds=arrays["seconds"],
        )


class Predictions:
    """The predicted label maps of an evaluation, memory-mapped and decoded on demand.

    Iterating gives (id, mask) in the order of the test split; `predictions["some id"]` and `predictions.mask(3)` give one
    mask, uint8 or uint16 (H, W). `predictions.confidence("some id")` says how sure the network was.
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
        return self.mask(self._row(name))

    def mask(self, row: int) -> np.ndarray:
        """The label map of image number `row`."""
        return self._decoded("mask", row)

    def confidence(self, name: str) -> np.ndarray:
        """How sure the network is of each pixel's label, uint8 (H, W): 255 times its probability, with the fitted temperature.

        Raises:
            ValueError: there is no such image, or the file was written without.
        """
        row = self._row(name)
        if "confidence" not in self._table.column_names or not self._table.column("confidence")[row].is_valid:
            raise ValueError(f"{self.path}: holds no confidence. Run `dvc repro` so that evaluate writes it.")
        return self._decoded("confidence", row)

    def _row(self, name: str) -> int:
        if name not in self._rows:
            raise ValueError(f"{self.path}: holds no prediction for {name!r}")
        return self._rows[name]

    def _decoded(self, column: str, row: int) -> np.ndarray:
        return decode_mask(np.frombuffer(self._table.column(column)[row].as_buffer(), np.uint8))


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

    def write(self, name: str, mask: np.ndarray, confidence: np.ndarray | None = None) -> None:
        """Append the label map uint8/uint16 (H, W) of one image, and how sure the network is, uint8 (H, W), where it is known."""
        assert confidence is None or (confidence.shape == mask.shape and confidence.dtype == np.uint8)
        sure = None if confidence is None else encode_mask(confidence)
        self._rows.append({"id": name, "mask": encode_mask(mask), "confidence": sure})
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


def write_masks(folder: Path, masks: Mapping[str, np.ndarray], *, trimap: np.ndarray, radii: Sequence[int]) -> None:
    """Write masks.npz: metrics float64 (N, K) by key, and counts int64 (R, K, K) in bands of R `radii` around contours."""
    arrays: dict[str, Any] = {**masks, TRIMAP: trimap, TRIMAP_RADII: np.array(radii, np.int64)}
    np.savez_compressed(folder / MASKS, **arrays)


def write_calibration(folder: Path, document: Mapping[str, Any]) -> None:
    """Write calibration.json."""
    (folder / CALIBRATION).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_variants(folder: Path, counts: np.ndarray, *, names: Sequence[str], kinds: Sequence[str], seconds: np.ndarray) -> None:
    """Write variants.npz, see `Variants`; also without any."""
    assert counts.dtype == np.int64 and len(counts) == len(names) == len(kinds) and counts.shape[:2] == seconds.shape
    texts: dict[str, Any] = {"names": np.array(names, dtype=np.str_), "kinds": np.array(kinds, dtype=np.str_)}
    np.savez_compressed(folder / VARIANTS, counts=counts, seconds=seconds, **texts)


def write_per_image(folder: Path, table: pd.DataFrame) -> None:
    """Write per_image.parquet, the table of `evaluation_files.per_image_table`."""
    table.to_parquet(folder / PER_IMAGE, index=False)


SCALARS = {
    "miou": mean_iou,
    "mpa": mean_pixel_accuracy,
    "pa": pixel_accuracy,
    "mdice": mean_dice,
    "fwiou": frequency_weighted_iou,
}
TABLES = {"iou": iou, "dice": dice, "class_accuracy": class_accuracy, "precision": precision, "recall": recall}
"""With `SCALARS` the metrics that every evaluation has, by their key in scores.json."""


def score(counts: np.ndarray, *, class_names: Sequence[str], metrics: Mapping[str, ModuleType] | None = None) -> dict[str, Any]:
    """The scores of a whole test split from per-image counts int64 (N, K, K).

    All are on the counts summed over images, except `image_miou`, the mean over images of each image's mIoU (mIoU^I of Wang
    et al. 2023, arXiv 2310.19252). Undefined ones are None; `n_classes_averaged` says how many classes are in the means.
    `metrics` are further ones of counts by name, modules as in `segpipe/metrics`; those of `SCALARS` and `TABLES` are there anyway.
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


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _existing(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.exists():
        raise ValueError(f"{path}: missing, so {folder} is not a finished evaluation. Run `dvc repro` so that evaluate writes it.")
    return path
