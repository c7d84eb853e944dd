"""Workspaces as the pipeline leaves them, made by hand: real small models, and confusion counts of a chosen quality."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segpipe import model_io
from segpipe.architectures import unet
from segpipe.metrics import mean_iou
from segpipe.tracking import gate, lineage, records, registry

CLASSES = ("sky & sea", "sky | sea", "a/b: tree")
RULE = gate.Rule(name="miou", metric=mean_iou.compute, alpha=0.05, minimum=0.0, resamples=200, seed=0)
NO_LINEAGE = lineage.Lineage(revision=None, dirty=False, outs={})
OPTIONS = {"padding": "same", "norm": "batch", "width": 4}
EPOCHS = 3


def add_experiment(
    root: Path,
    name: str,
    *,
    quality: float,
    seed: int = 0,
    dataset: str = "scenes",
    digest: str = "d1",
    images: int = 30,
    prefix: str = "i",
) -> None:
    """Everything that train, evaluate, explain and compare leave of one experiment; `quality` is the share of right pixels."""
    torch.manual_seed(seed)
    model = unet.build(num_classes=3, **OPTIONS)
    config = dict.fromkeys(model_io.KEYS) | {
        "architecture": "unet",
        "options": OPTIONS,
        "num_classes": 3,
        "in_channels": 3,
        "classes": [{"name": c, "colour": [i, i, i], "thing": False} for i, c in enumerate(CLASSES)],
        "ignore_index": 255,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "precision": "32-true",
        "dataset": dataset,
        "dataset_digest": digest,
    }
    models = root / "models" / name
    model_io.save_model(models, model, config)
    write_history(models / "history.csv", seed=seed)
    cost = {"device": "cpu", "parameters": 1234, "wall_seconds": 2.5, "gflops": 0.1, "peak_memory_mb": None}
    (models / "cost.json").write_text(json.dumps(cost))
    evaluations = root / "evaluations" / name
    evaluations.mkdir(parents=True, exist_ok=True)
    counts = confusions(quality, images=images, seed=seed)
    ids = [f"{prefix}{i}" for i in range(images)]
    np.savez(evaluations / "confusions.npz", counts=counts, ids=np.array(ids), groups=np.array(ids))
    miou = float(mean_iou.compute(counts.sum(axis=0)))
    scores = {"miou": miou, "mpa": 0.5, "pa": quality, "mdice": 0.6, "tta": "none", "tile": "auto"}
    scores["iou"] = {CLASSES[0]: 0.5, CLASSES[1]: None, CLASSES[2]: 0.25}
    scores["modes"] = {"flip": {"gain": 0.01, "cost_ratio": 2.0, "p": None}}
    scores["corruptions"] = {"fog-3": {"drop": 0.2, "miou": None, "classes": {CLASSES[0]: {"drop": 0.1}}}}
    (evaluations / "scores.json").write_text(json.dumps(scores))
    (evaluations / "confusion.png").write_bytes(b"png")
    (evaluations / "calibration.json").write_text("{}")
    for kind in ("failures", "evaluation"):
        page = root / "reports" / name / kind / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"<title>{name}</title>")
    failures = root / "failures" / name
    failures.mkdir(parents=True, exist_ok=True)
    modes = [{"mode": "missed", "cost": 0.125, "share": 0.5}, {"mode": "boundary", "cost": None, "share": 0.5}]
    (failures / "summary.json").write_text(json.dumps({"modes": modes, "bias": {"findings": [{"sentence": "one"}]}}))
    add_to_comparison(root, name, miou=miou)


def add_to_comparison(root: Path, name: str, *, miou: float) -> None:
    path = root / records.LEADERBOARD
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    rows = [row for row in rows if row["experiment"] != name]
    rows.append({"experiment": name, "miou": miou, "miou_ci_low": miou - 0.01, "miou_ci_high": miou + 0.01})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["experiment", "miou", "miou_ci_low", "miou_ci_high"])
        writer.writeheader()
        writer.writerows(rows)


def write_history(path: Path, *, seed: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(epoch_row(1, seed=seed)))
        writer.writeheader()
        writer.writerows(epoch_row(epoch, seed=seed) for epoch in range(1, EPOCHS + 1))


def epoch_row(epoch: int, *, seed: int) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": 1 / (3 * epoch + seed), "val_miou": epoch / 7, "seconds": 0.5}


def confusions(quality: float, *, images: int, seed: int) -> np.ndarray:
    """int64 (images, 3, 3): 900 pixels per image, of which about `quality` are right."""
    rng = np.random.default_rng(seed)
    right = np.clip(np.round(300 * (quality + 0.02 * rng.standard_normal((images, 3)))), 0, 300).astype(np.int64)
    counts = np.zeros((images, 3, 3), np.int64)
    for c in range(3):
        counts[:, c, c] = right[:, c]
        counts[:, c, (c + 1) % 3] = 300 - right[:, c]
    return counts


def register(root: Path, uri: str, *names: str, **changes: Any) -> dict[str, Any]:
    """Register the experiments `names` of the workspace `root`."""
    found = [records.read_record(name, params={"seed": 0, "train": {"lr": 0.1}}, root=root) for name in names]
    settings: dict[str, Any] = {"uri": uri, "model_name": "segmenter", "rule": RULE, "lineage": NO_LINEAGE, "root": root}
    return registry.register(found, **(settings | changes))
