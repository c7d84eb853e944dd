"""One row of `experiments` becomes one model: `python -m stages.train <experiment>`.

A training that was killed goes on where it stood. `torchrun --nproc-per-node=N -m stages.train <experiment>` trains on N GPUs.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from segpipe import components, model_io
from segpipe.augmentation import policy
from segpipe.params import Experiment, Train, read_params
from segpipe.shards import DatasetInfo, Split, read_info
from segpipe.tracking import live_run
from segpipe.tracking.connection import default_uri
from segpipe.training import checkpoint, class_weights, data, devices, optimizer, outcome
from segpipe.training.fit import fit
from stages._progress import TrainingProgress, duration

LIBRARY = Path(components.__file__).parent
CHECKPOINTS = Path(".cache/checkpoints")
LOOP = ("epochs", "batch_size", "schedule", "gamma", "patience", "minutes", "workers", "checkpoint_minutes")
"""Keys of `train` that `fit` takes as they are."""
SPEED_ONLY = ("workers", "checkpoint_minutes", "device")
"""Keys of `train` that never change which model comes out."""


def main() -> None:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    experiments = read_params().experiments
    components.check_options(dict.fromkeys(sys.argv[1:2]), experiments, where="experiments")
    experiment = experiments[sys.argv[1]]
    train = experiment.train
    samples, infos = _samples(experiment)
    info = infos[0]
    architecture = components.load("architectures", experiment.architecture)
    torch.manual_seed(experiment.seed)
    model = architecture.build(num_classes=info.num_classes, in_channels=len(info.mean), **experiment.options)
    loss = components.load("losses", experiment.loss)
    weights = class_weights.of_split(train.class_weights, samples.train[0], num_classes=info.num_classes)
    loss_options = experiment.loss_options | ({} if weights is None else {"weight": weights})
    pixel_loss = loss.build(num_classes=info.num_classes, ignore_index=info.ignore_index, **loss_options)
    task = components.load("tasks", experiment.task)
    here, nodes, requested = _processes(train)
    with TrainingProgress(epochs=train.epochs, minutes=train.minutes) as bar, ExitStack() as stack:
        device = stack.enter_context(devices.training_device(requested, report=bar.report))
        config = _config(experiment, info, loss_options, devices.choose_precision(train.precision, device))
        folder = checkpoint.folder_of(CHECKPOINTS, experiment.name, _decides(experiment, config, infos, device))
        fabric = devices.make_fabric(device, precision=config["precision"], processes=here, nodes=nodes)
        live = _live(stack, config, experiment.name, folder.name, bar) if fabric.is_global_zero else None

        def on_epoch(row: dict[str, float]) -> None:
            bar.on_epoch(row)
            if live is not None:
                live.log_epoch(row)

        fitted = fit(
            model,
            fabric=fabric,
            samples=samples,
            task=task,
            criterion=task.build_criterion(pixel_loss, architecture=architecture, ignore_index=info.ignore_index),
            loss_weights=architecture.LOSS_WEIGHTS,
            optimizer=_optimizer(model, architecture, train),
            mean=info.mean,
            std=info.std,
            num_classes=info.num_classes,
            channels_last=devices.use_channels_last(device, config["precision"]),
            checkpoint_folder=folder,
            on_epoch=on_epoch,
            on_step=bar.on_step,
            report=bar.report,
            **{key: getattr(train, key) for key in LOOP},
        )
        if not fabric.is_global_zero:
            return
        out = Path("models") / experiment.name
        outcome.write_history(out / "history.csv", fitted.history)
        size = samples.usual_size()
        outcome.write_cost(out / "cost.json", fitted, model, device=device, devices=here * nodes, size=size)
        saved = model_io.save_model(out, model, config | {"best_epoch": fitted.best_epoch})
        if live is not None:
            live.finish(saved["digest"])
    checkpoint.remove(CHECKPOINTS, experiment.name)
    best = fitted.history[fitted.best_epoch - 1]
    print(
        f"{experiment.name}: {len(fitted.history)} of {train.epochs} epochs in {duration(fitted.seconds)}"
        f" on {device} in {config['precision']}, ended by {fitted.finished_by};"
        f" best validation mIoU {best['val_miou']:.4f} after epoch {fitted.best_epoch}; model in {out}"
    )


def _samples(experiment: Experiment) -> tuple[data.Samples, list[DatasetInfo]]:
    """The samples of the run, and dataset.json of the converted and, if used, the augmented data."""
    train = experiment.train
    folders = [Path("data/converted") / experiment.dataset]
    if train.augmented:
        folders.append(Path("data/augmented") / experiment.dataset)
    infos = [read_info(folder) for folder in folders]
    if infos[0].dimensions != 2:
        raise SystemExit(
            f"{folders[0]}: holds volumes, and the networks read images. Set datasets.{experiment.dataset}.slices: 0 (the axis)"
            " in params.yaml, so that each slice becomes a sample."
        )
    samples = data.Samples(
        [Split(folder, "train") for folder in folders],
        Split(folders[0], "val"),
        policy=policy.build(train.online),
        seed=experiment.seed,
        ignore_index=infos[0].ignore_index,
        size=train.size,
        crop=train.crop,
    )
    return samples, infos


def _optimizer(model: torch.nn.Module, architecture: ModuleType, train: Train) -> torch.optim.Optimizer:
    own_rates = train.layer_rates and hasattr(architecture, "param_groups")
    return optimizer.build(
        model,
        name=train.optimizer,
        lr=train.lr,
        weight_decay=train.weight_decay,
        momentum=train.momentum,
        groups=architecture.param_groups(model) if own_rates else None,
    )


def _processes(train: Train) -> tuple[int, int, str]:
    """(processes on this node, nodes, device asked for): one process, or what torchrun says."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // here
    alone = here == 1 or train.device == "cpu"
    return here, nodes, train.device if alone else f"cuda:{os.environ['LOCAL_RANK']}"


def _config(experiment: Experiment, info: DatasetInfo, loss_options: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """config.json, less what only the finished training knows."""
    train = {key: value for key, value in asdict(experiment.train).items() if key not in SPEED_ONLY}
    return {
        "architecture": experiment.architecture,
        "options": experiment.options,
        "num_classes": info.num_classes,
        "in_channels": len(info.mean),
        "classes": [asdict(c) for c in info.classes],
        "ignore_index": info.ignore_index,
        "mean": info.mean,
        "std": info.std,
        "size": experiment.train.size,
        "precision": precision,
        "dataset": experiment.dataset,
        "dataset_digest": info.digest,
        "task": experiment.task,
        "loss": experiment.loss,
        "loss_options": dict(loss_options),
        "seed": experiment.seed,
        "train": train,
        "segpipe_version": version("segpipe"),
    }


def _decides(experiment: Experiment, config: Mapping[str, Any], infos: list[DatasetInfo], device: torch.device) -> dict[str, Any]:
    """Everything that decides the result of the training: a checkpoint is only taken up where all of it is the same."""
    rooms = ("training", "tasks", "augmentation", "losses", "architectures/blocks", "inference.py", "shards.py", "confusion.py")
    sources = [LIBRARY / "architectures" / f"{experiment.architecture}.py", *(LIBRARY / room for room in rooms)]
    return {
        "config": config,
        "data": [info.digest for info in infos],
        "device": device.type,
        "torch": torch.__version__,
        "sources": checkpoint.sources_digest(sources),
    }


def _live(stack: ExitStack, config: Mapping[str, Any], name: str, fingerprint: str, bar: TrainingProgress) -> Any:
    """The training's line to MLflow, open until the stack ends; a server that does not answer costs it nothing."""

    return stack.enter_context(
        live_run(
            uri=os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path.cwd()),
            experiment=config["dataset"],
            name=name,
            fingerprint=fingerprint,
            params={key: config[key] for key in ("architecture", "options", "loss", "loss_options", "seed", "train", "precision")},
            tags={"dataset": config["dataset"], "dataset_digest": config["dataset_digest"]},
            report=bar.report,
        )
    )


if __name__ == "__main__":
    main()
