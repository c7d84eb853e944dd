"""A workspace as the stages before `compare` leave it, drawn from a seed in a second: small pictures and made-up predictions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segpipe import confusion, results
from segpipe.shards import ClassInfo, DatasetInfo, Sample, SplitWriter, encode_image, encode_mask, write_info
from tests.imports import ROOT

CLASSES = (
    ClassInfo(name="meadow", colour=(132, 178, 92)),
    ClassInfo(name="water", colour=(70, 130, 180)),
    ClassInfo(name='<img src=x onerror=alert(1)> & "co"', colour=(220, 90, 70), thing=True),
    ClassInfo(name="pole", colour=(240, 200, 60), thing=True),
    ClassInfo(name="never seen", colour=(150, 80, 170)),
)
UNET = {"architecture": "unet", "loss": "cross_entropy"}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "unet": UNET,
    "unet-seed1": UNET | {"seed": 1},
    "segnet": {"architecture": "segnet", "loss": "cross_entropy"},
    "fcn_8s": {"architecture": "fcn", "loss": "cross_entropy"},
}
QUALITY = {"unet": 0.9, "unet-seed1": 0.89, "segnet": 0.62, "fcn_8s": 0.87}
"""How likely a disc of a picture is found by each model."""


def write_workspace(
    folder: Path,
    *,
    dataset: str = "scenes",
    experiments: Mapping[str, Mapping[str, Any]] = EXPERIMENTS,
    images: int = 24,
    size: tuple[int, int] = (48, 64),
    groups: int | None = None,
    failures: bool = True,
) -> None:
    """Write params.yaml and all that `compare` reads under `folder`; a second call adds a dataset and its experiments."""
    rng = np.random.default_rng(len(dataset))
    pairs = [_scene(rng, size) for _ in range(images)]
    ids = [f"{dataset}-{i:04d}" for i in range(images)]
    named = [f"sequence-{i % groups}" if groups else name for i, name in enumerate(ids)]
    digest = _write_dataset(folder / "data/converted" / dataset, dataset, pairs, ids, named)
    for name, row in experiments.items():
        _write_experiment(folder, name, row, dataset, digest, pairs, ids, named, failures=failures)
    _write_params(folder, dataset, experiments)


def _write_params(folder: Path, dataset: str, experiments: Mapping[str, Mapping[str, Any]]) -> None:
    path = folder / "params.yaml"
    document = yaml.safe_load((path if path.exists() else ROOT / "params.yaml").read_text())
    if not path.exists():
        document["experiments"], document["datasets"] = {}, {}
        document["compare"]["resamples"] = 300
    document["datasets"][dataset] = {"format": "scenes"}
    document["experiments"] |= {name: {**row, "dataset": dataset} for name, row in experiments.items()}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask: a meadow, a lake, discs and thin poles; the left edge has no label."""
    y, x = np.indices(size)
    mask = np.where(y > size[0] * rng.uniform(0.4, 0.8), 1, 0).astype(np.uint8)
    for _ in range(int(rng.integers(2, 5))):
        centre, radius = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0.06, 0.16) * size[1]
        mask[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = 2
    if rng.random() < 0.6:
        column = int(rng.integers(2, size[1] - 2))
        mask[size[0] // 6 :, column : column + 2] = 3
    table = np.array([c.colour for c in CLASSES], np.float64)
    image = np.clip(table[mask] + rng.normal(0, 18, (*size, 3)), 0, 255).astype(np.uint8)
    mask[:, :2] = 255
    return image, mask


def _predict(rng: np.random.Generator, mask: np.ndarray, quality: float) -> np.ndarray:
    """A prediction: the truth shifted by a pixel or two, with blocks of it taken for their neighbours' class."""
    guess = np.roll(np.where(mask == 255, 0, mask), rng.integers(-1, 2, 2), axis=(0, 1)).astype(np.uint8)
    step = max(4, mask.shape[1] // 8)
    for top in range(0, mask.shape[0], step):
        for left in range(0, mask.shape[1], step):
            if rng.random() > quality:
                block = guess[top : top + step, left : left + step]
                block[:] = np.where(block >= 2, 0, np.where(rng.random() < 0.3, 2, block))
    return guess


def _write_dataset(folder: Path, name: str, pairs: list[tuple[np.ndarray, np.ndarray]], ids: list[str], groups: list[str]) -> str:
    folder.mkdir(parents=True)
    with SplitWriter(folder, "test") as writer:
        for (image, mask), id_, group in zip(pairs, ids, groups, strict=True):
            height, width = mask.shape
            sample = Sample(
                id=id_, image=encode_image(image), mask=encode_mask(mask), height=height, width=width, group=group, source=id_
            )
            writer.write(sample)
        digest = writer.close()
    pixels = np.bincount(np.concatenate([mask.ravel() for _, mask in pairs]), minlength=256)[: len(CLASSES)].tolist()
    info = DatasetInfo(
        name=name,
        classes=CLASSES,
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": 0, "val": 0, "test": len(ids)},
        pixels={"train": pixels, "val": pixels, "test": pixels},
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        provenance={},
        digest=digest,
    )
    write_info(folder, info)
    return digest


def _write_experiment(
    folder: Path,
    name: str,
    row: Mapping[str, Any],
    dataset: str,
    digest: str,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    ids: list[str],
    groups: list[str],
    *,
    failures: bool,
) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    quality = QUALITY.get(name, 0.8)
    evaluation, model = folder / "evaluations" / name, folder / "models" / name
    counts = []
    with results.PredictionWriter(evaluation) as writer:
        for (_, mask), id_ in zip(pairs, ids, strict=True):
            predicted = _predict(rng, mask, quality)
            writer.write(id_, predicted)
            counts.append(confusion.count(mask, predicted, num_classes=len(CLASSES), ignore_index=255))
    stacked = np.stack(counts)
    results.write_counts(evaluation, stacked, ids=ids, groups=groups)
    scores = results.score(stacked, class_names=[c.name for c in CLASSES])
    results.write_scores(evaluation, {**scores, "seconds_per_image": 0.01 + 0.02 * quality})
    model.mkdir(parents=True)
    config = {**row, "dataset": dataset, "dataset_digest": digest, "seed": row.get("seed", 0)}
    (model / "config.json").write_text(json.dumps(config))
    parameters = {"unet": 482_000, "segnet": 1_920_000, "fcn": 905_000}[row["architecture"]]
    cost = {
        "device": "cpu",
        "wall_seconds": parameters / 8000 + 3 * rng.random(),
        "parameters": parameters,
        "images_per_second": 41.5,
        "gflops": parameters / 3e5,
        "peak_memory_mb": None,
        "epochs": 8,
    }
    (model / "cost.json").write_text(json.dumps(cost))
    epochs = np.arange(1, 9)
    miou = quality * (1 - np.exp(-epochs / 2.5)) + 0.02 * rng.standard_normal(8)
    lines = ["epoch,train_loss,val_loss,val_miou,val_pa,lr,seconds,images_per_second"]
    for epoch, value in zip(epochs, miou, strict=True):
        lines.append(f"{epoch},{1.6 * np.exp(-epoch / 4):.5f},{1.7 * np.exp(-epoch / 5):.5f},{value:.5f},0.9,0.001,4.0,41.5")
    (model / "history.csv").write_text("\n".join(lines) + "\n")
    if failures:
        (folder / "failures" / name).mkdir(parents=True)
        (folder / "failures" / name / "summary.json").write_text("{}")
