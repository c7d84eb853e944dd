"""What the files of the pipeline say about one experiment, in MLflow's terms: parameters, curves, scores and artifacts."""

import csv
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEADERBOARD = Path("reports/comparison/leaderboard.csv")
REPORT_FILES = (
    ("models/{}/history.csv", "training"),
    ("models/{}/cost.json", "training"),
    ("models/{}/config.json", "training"),
    ("evaluations/{}/scores.json", "evaluation"),
    ("evaluations/{}/confusions.npz", "evaluation"),
    ("evaluations/{}/confusion.png", "evaluation"),
    ("evaluations/{}/calibration.json", "evaluation"),
    ("reports/{}/evaluation/index.html", "evaluation"),
    ("failures/{}/summary.json", "failures"),
    ("reports/{}/failures/index.html", "failures"),
)
WEIGHTS, CONFIG = "model.safetensors", "config.json"
UNREAD = (
    "class_accuracy",
    "precision",
    "recall",
    "surface_images",
    "surface_one_empty",
    "boundary_iou",
    "assd",
    "hd95_pooled",
    "hd95_directed_max",
    "nsd_tau1px",
    "nsd_tau2px",
    "nsd_tau5px",
)
"""Scores by class that stay in scores.json, so that MLflow's pages stay readable: near 1 for rare classes, or told by a mean."""
MAX_VALUE = 6000  # MLflow's longest parameter


@dataclass(frozen=True, kw_only=True)
class Record:
    """One experiment as MLflow shall hold it. `contents` changes when any of its files does; `protocol`: how it was evaluated.

    `curves` holds {"epoch": e, column: value}; `scores` finite numbers only, with names that MLflow takes.
    """

    experiment: str
    model: Path
    config: Mapping[str, Any]
    params: Mapping[str, str]
    curves: Sequence[Mapping[str, float]]
    scores: Mapping[str, float]
    confusions: Path
    artifacts: Sequence[tuple[Path, str]]
    contents: str
    protocol: str

    @property
    def dataset(self) -> str:
        return str(self.config["dataset"])

    @property
    def dataset_digest(self) -> str:
        return str(self.config["dataset_digest"])

    @property
    def model_digest(self) -> str:
        return str(self.config["digest"])


def read_record(experiment: str, *, params: Mapping[str, Any], root: Path = Path(".")) -> Record:
    """Read everything below `root` that belongs to one row of `experiments`; `params` may be nested.

    Raises:
        ValueError: a file is missing, or the comparison does not know the experiment.
    """
    artifacts = [(root / pattern.format(experiment), folder) for pattern, folder in REPORT_FILES]
    model = root / "models" / experiment
    for path in (model / WEIGHTS, *(path for path, _ in artifacts), root / LEADERBOARD):
        if not path.exists():
            raise ValueError(f"{path}: missing, so {experiment} cannot be registered. Run `dvc repro`.")
    config = json.loads((model / CONFIG).read_text())
    found = json.loads((root / "evaluations" / experiment / "scores.json").read_text())
    cost = json.loads((model / "cost.json").read_text())
    failures = json.loads((root / "failures" / experiment / "summary.json").read_text())
    with (root / LEADERBOARD).open(newline="") as file:
        ranked = {row["experiment"]: row for row in csv.DictReader(file)}
    if experiment not in ranked:
        raise ValueError(f"{root / LEADERBOARD}: has no row {experiment!r}. Run `dvc repro` so that compare sees all models.")
    intervals = {key: _number(value) for key, value in ranked[experiment].items() if "_ci_" in key}
    hashed = hashlib.sha256()
    for path, _ in artifacts:
        hashed.update(f"{path.name} {sha256(path)}\n".encode())
    return Record(
        experiment=experiment,
        model=model,
        config=config,
        params=flatten(params) | flatten({"precision": config["precision"]}),
        curves=_curves(model / "history.csv"),
        scores=_scores(found, cost)
        | _variants(found)
        | _failures(failures)
        | {key: value for key, value in intervals.items() if value is not None},
        confusions=root / "evaluations" / experiment / "confusions.npz",
        artifacts=artifacts,
        contents=hashed.hexdigest(),
        protocol=f"tta={found.get('tta')} tile={found.get('tile')}" + (f" crf={found['crf']}" if "crf" in found else ""),
    )


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes. (`model_io.digest` is the same, and would import torch, which takes seconds.)"""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"train": {"lr": 0.1}} becomes {"train.lr": "0.1"}."""
    flat: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:MAX_VALUE]
    return flat


def metric_names(classes: Sequence[str]) -> dict[str, str]:
    """For each class name one that MLflow takes in a metric's name, and that no other class has."""
    names: dict[str, str] = {}
    for name in classes:
        plain = re.sub(r"[^\w.\- ]", "_", name).strip()[:200]
        plain = plain if plain.strip(".") else "_"
        taken, number = set(names.values()), 2
        unique = plain
        while unique in taken:
            unique, number = f"{plain}_{number}", number + 1
        names[name] = unique
    return names


def _scores(found: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, float]:
    scores = {key: _number(value) for key, value in found.items()}
    scores |= {f"cost/{key}": _number(value) for key, value in cost.items()}
    tables = [key for key, value in found.items() if isinstance(value, Mapping) and key not in UNREAD and _is_flat(value)]
    for table in tables:
        per_class = found[table]
        safe = metric_names(list(per_class))
        scores |= {f"{table}/{safe[name]}": _number(value) for name, value in per_class.items()}
    return {key: value for key, value in scores.items() if value is not None}


def _is_flat(table: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, Mapping | list) for value in table.values())


def _variants(found: Mapping[str, Any]) -> dict[str, float]:
    """What other inference modes gain and cost (`modes/<name>/gain`), and what corruptions take (`corruptions/<name>/drop`)."""
    scores: dict[str, float | None] = {}
    for kind, keys in (("modes", ("gain", "cost_ratio")), ("corruptions", ("miou", "drop"))):
        for name, row in (found.get(kind) or {}).items():
            scores |= {f"{kind}/{name}/{key}": _number(row.get(key)) for key in keys}
    return {key: value for key, value in scores.items() if value is not None}


def _failures(summary: Mapping[str, Any]) -> dict[str, float]:
    """What each kind of failure costs (`fail/<mode>/miou_cost`), its share of the wrong pixels, and how many findings there are."""
    scores: dict[str, float | None] = {}
    for row in summary["modes"]:
        scores[f"fail/{row['mode']}/miou_cost"] = _number(row["cost"])
        scores[f"fail/{row['mode']}/share"] = _number(row["share"])
    scores["fail/confirmed_biases"] = float(len(summary["bias"]["findings"]))
    return {key: value for key, value in scores.items() if value is not None}


def _curves(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        rows = [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def _number(value: Any) -> float | None:
    """A finite number, also one written as text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
