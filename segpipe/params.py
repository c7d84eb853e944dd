"""The only reader of params.yaml: typed, validated, and it names the bad key and the good ones.

One row of `experiments` may override any key of `train`; nothing else inherits. Library code never sees these objects as
dictionaries: a stage unpacks them into plain arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from segpipe import components
from segpipe.dataset_row import Dataset, read_row
from segpipe.evaluate_row import Evaluate, read_evaluate
from segpipe.strict import make, mapping, typed

PARAMS_FILE = Path("params.yaml")
CHOICES = {
    "optimizer": ("adamw", "sgd", "rmsprop"),
    "schedule": ("poly", "cosine", "constant", "exponential"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "class_weights": ("none", "median_frequency", "inverse_frequency"),
    "policy": ("none", "light", "strong"),
    "online": ("none", "flip", "light", "strong"),
    "layers": ("deepest", "all"),
    "metric": ("miou", "mpa", "pa", "dice"),
    "interval": ("percentile", "bca"),
}


class ParamsError(ValueError):
    """params.yaml holds something the pipeline cannot run with; the message names the key, the value and the choices."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Offline augmentation: `copies` new samples per training sample, drawn with `policy`."""

    policy: str
    copies: int


@dataclass(frozen=True, kw_only=True)
class Train:
    """How a network is trained. Every key may be overridden by an experiment's row."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "adamw"
    layer_rates: bool = True
    """Whether parts of a network learn at other rates where its paper says so (`param_groups` of the architecture)."""
    weight_decay: float = 1e-4
    momentum: float = 0.9
    schedule: str = "poly"
    gamma: float | None = None
    """What `schedule: exponential` multiplies the learning rate by after each epoch; the other schedules have none."""
    precision: str = "auto"
    size: tuple[int, int] | None = None
    """(height, width) that images are resized to before the network sees them; null leaves them as they are."""
    crop: tuple[int, int] | None = None
    """(height, width) of a random training window; null trains on whole images."""
    online: str = "flip"
    augmented: bool = True
    """Whether the offline augmented samples are used."""
    class_weights: str = "none"
    patience: int | None = None
    """Stop when validation mIoU has not risen for this many epochs; null never stops early."""
    minutes: float | None = None
    """Stop, after a whole epoch, when training has used this many minutes of wall time; null has no such bound."""
    checkpoint_minutes: float = 5.0
    workers: int = 2
    """Loader processes; they change the speed, never the samples."""
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One row of `experiments`: one trained model."""

    name: str
    dataset: str
    architecture: str
    loss: str
    task: str
    seed: int
    options: dict[str, Any]
    """Keyword options of the architecture's `build`."""
    loss_options: dict[str, Any]
    train: Train


@dataclass(frozen=True, kw_only=True)
class Explain:
    """How many error regions are explained, and on which of the network's CAM layers."""

    regions: int = 60
    layers: str = "deepest"


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Bootstrap resamples (and permutation draws), the error rate that the tests hold over all pairs, and the kind of interval."""

    resamples: int = 2000
    alpha: float = 0.05
    interval: str = "percentile"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a challenger must show: `metric` better in the paired test at `alpha`, and at least `minimum`."""

    metric: str = "miou"
    alpha: float = 0.05
    minimum: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Register:
    """The name under which models are registered, and the gate before `champion` moves."""

    model_name: str
    gate: Gate


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of params.yaml."""

    seed: int
    datasets: dict[str, Dataset]
    augment: Augment
    train: Train
    experiments: dict[str, Experiment]
    evaluate: Evaluate
    explain: Explain
    compare: Compare
    register: Register


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and validate `path`.

    Raises:
        ParamsError: a key, a value, a dataset, an architecture or a loss is wrong; the message says which and what is right.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file. Run the pipeline from the folder that holds params.yaml.") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from error
    try:
        return _params(document)
    except ParamsError:
        raise
    except ValueError as error:
        raise ParamsError(f"{path}: {error}") from error


def _params(document: Any) -> Params:
    if not isinstance(document, Mapping):
        raise ValueError("must be a mapping with the keys " + ", ".join(f.name for f in fields(Params)))
    components.check_options(document, [f.name for f in fields(Params)], where="top level")
    for f in fields(Params):
        if f.name not in document:
            raise ValueError(f"the key {f.name!r} is missing")
    seed = typed(document["seed"], int, "seed")
    datasets = {name: read_row(name, row) for name, row in _rows(document, "datasets")}
    train = _make(Train, document["train"], "train")
    _check_train(train, "train")
    experiments = {
        name: _experiment(name, row, seed=seed, defaults=document["train"], datasets=datasets)
        for name, row in _rows(document, "experiments")
    }
    register = dict(mapping(document["register"], "register"))
    register["gate"] = _make(Gate, register.get("gate") or {}, "register.gate")
    params = Params(
        seed=seed,
        datasets=datasets,
        augment=_make(Augment, document["augment"], "augment"),
        train=train,
        experiments=experiments,
        evaluate=read_evaluate(document["evaluate"] or {}),
        explain=_make(Explain, document["explain"] or {}, "explain"),
        compare=_make(Compare, document["compare"] or {}, "compare"),
        register=_make(Register, register, "register"),
    )
    _check(params.augment.copies >= 0, "augment.copies", params.augment.copies, "0 or more")
    _check(params.explain.regions >= 1, "explain.regions", params.explain.regions, "1 or more")
    _check(params.compare.resamples >= 100, "compare.resamples", params.compare.resamples, "100 or more")
    _check(0 < params.compare.alpha < 1, "compare.alpha", params.compare.alpha, "between 0 and 1")
    _check(0 < params.register.gate.alpha < 1, "register.gate.alpha", params.register.gate.alpha, "between 0 and 1")
    return params


def _experiment(name: str, row: Any, *, seed: int, defaults: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> Experiment:
    where = f"experiments.{name}"
    row = dict(mapping(row, where))
    own = ["dataset", "architecture", "loss", "task", "seed", "options", "loss_options"]
    train_keys = [f.name for f in fields(Train)]
    components.check_options(row, own + train_keys, where=where)
    for key in ("dataset", "architecture", "loss"):
        if key not in row:
            raise ValueError(f"{where}.{key}: missing")
    if row["dataset"] not in datasets:
        hint = components.suggestion(row["dataset"], datasets)
        raise ValueError(f"{where}.dataset: no {row['dataset']!r} under datasets.{hint} There are: {', '.join(datasets)}.")
    train = _make(Train, {**defaults, **{k: v for k, v in row.items() if k in train_keys}}, where)
    _check_train(train, where)
    options, loss_options = (dict(mapping(row.get(k) or {}, f"{where}.{k}")) for k in ("options", "loss_options"))
    experiment = Experiment(
        name=name,
        dataset=row["dataset"],
        architecture=_plugin("architectures", row["architecture"], f"{where}.architecture"),
        loss=_plugin("losses", row["loss"], f"{where}.loss"),
        task=_plugin("tasks", row.get("task", "semantic"), f"{where}.task"),
        seed=typed(row.get("seed", seed), int, f"{where}.seed"),
        options=options,
        loss_options=loss_options,
        train=train,
    )
    takes = components.options("architectures", experiment.architecture, "build", fixed=("num_classes", "in_channels"))
    components.check_options(options, takes, where=f"{where}.options")
    takes = components.options("losses", experiment.loss, "build", fixed=("num_classes", "ignore_index"))
    components.check_options(loss_options, [n for n in takes if n != "weight"], where=f"{where}.loss_options")
    if train.class_weights != "none" and "weight" not in takes:
        raise ValueError(
            f"{where}.class_weights: {train.class_weights!r}, but the loss {experiment.loss!r} takes no class weights."
            " Use none, or a loss whose build() takes `weight`."
        )
    return experiment


def _check_train(train: Train, where: str) -> None:
    _check(train.epochs >= 1, f"{where}.epochs", train.epochs, "1 or more")
    _check(train.batch_size >= 1, f"{where}.batch_size", train.batch_size, "1 or more")
    _check(train.lr > 0, f"{where}.lr", train.lr, "above 0")
    _check(train.gamma is None or 0 < train.gamma <= 1, f"{where}.gamma", train.gamma, "null, or above 0 and at most 1")
    if train.schedule == "exponential" and train.gamma is None:
        raise ValueError(f"{where}.gamma: missing; schedule: exponential multiplies the learning rate by it after each epoch")
    _check(train.workers >= 0, f"{where}.workers", train.workers, "0 or more")
    for key in ("size", "crop"):
        value = getattr(train, key)
        _check(value is None or _is_size(value), f"{where}.{key}", value, "null or [height, width]")
    for key in ("patience", "minutes"):
        value = getattr(train, key)
        _check(value is None or value > 0, f"{where}.{key}", value, "null or above 0")


def _make(cls: Any, row: Any, where: str) -> Any:
    return make(cls, row, where, choices=CHOICES)


def _plugin(kind: str, name: Any, where: str) -> str:
    try:
        components.check_name(kind, str(name))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return str(name)


def _rows(document: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    rows = mapping(document[key], key)
    if not rows:
        raise ValueError(f"{key}: empty; at least one row is needed")
    for name in rows:
        if not (isinstance(name, str) and name and all(c.isalnum() or c in "-_" for c in name)):
            raise ValueError(f"{key}.{name}: a row's name is made of letters, digits, '-' and '_'")
        if key == "experiments" and name in ("comparison", "datasets"):
            raise ValueError(f"experiments.{name}: this name is taken by a folder of reports/")
    return list(rows.items())


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value)


def _check(holds: bool, where: str, value: Any, rule: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {value!r} must be {rule}")
