"""The training loop: `fit` repeats `train_one_epoch` and `validate`, and keeps what a killed run needs to go on.

There is no trainer to inherit from. Lightning Fabric places the model, casts to the precision and, under `torchrun`, averages
gradients; everything else is in plain sight here and in `epoch.py`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from lightning_fabric import Fabric
from torch import nn, optim

from segpipe.model_io import portable
from segpipe.training import checkpoint, data, devices
from segpipe.training.checkpoint import State
from segpipe.training.epoch import Progress, Run, Saver, train_one_epoch, validate

HISTORY = ("epoch", "train_loss", "val_loss", "val_miou", "val_pa", "lr", "seconds", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came out of a run: the model passed to `fit` holds the weights of `best_epoch`.

    `history` has one row per epoch with the keys `HISTORY`, where `seconds` is that epoch's. `seconds` is the wall time
    of training and validation over all resumes; `images_per_second` counts training images and training time only;
    `finished_by` is epochs, patience or minutes.
    """

    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    finished_by: str


def fit(
    model: nn.Module,
    *,
    fabric: Fabric,
    samples: data.Samples,
    task: ModuleType,
    criterion: nn.Module,
    loss_weights: dict[str, float],
    optimizer: optim.Optimizer,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    num_classes: int,
    epochs: int,
    batch_size: int,
    schedule: str = "poly",
    gamma: float | None = None,
    channels_last: bool = False,
    patience: int | None = None,
    minutes: float | None = None,
    workers: int = 0,
    checkpoint_folder: Path | None = None,
    checkpoint_minutes: float = 5.0,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    report: Callable[[str], None] = lambda message: None,
) -> Fitted:
    """Train `model` and leave the weights of its best epoch (highest validation mIoU, the earliest of equals) in it.

    The same arguments give the same weights: bit for bit on a CPU with one torch build and thread count, for any `workers`, and
    also if the process is killed at any moment and called again with the same `checkpoint_folder`.

    Args:
        model: the network, with an `input_rule`; answers {"out": logits, ...}. It is moved to the device, and back to the CPU.
        fabric: see `devices.make_fabric`.
        samples: training and validation samples; their seed is the run's seed.
        task: module with `loss(outputs, target, criterion=, loss_weights=)` and `predict(outputs)`.
        criterion: the loss; moved to the device.
        loss_weights: the weight of each of the network's outputs.
        optimizer: over the model's parameters, see `optimizer.build`.
        mean, std: per channel, in 0..1.
        num_classes: K.
        epochs: planned epochs, over which the schedule runs.
        batch_size: images per step. On a GPU out of memory a step is split, and gradients are summed up.
        schedule, gamma: see `schedule.factor`.
        channels_last: the memory layout, see `devices.use_channels_last`.
        patience: stop when mIoU has not risen for this many epochs.
        minutes: stop after the epoch in which training has used this much wall time, resumes included.
        workers: loader processes.
        checkpoint_folder: where the run's state is kept; None keeps none. Whoever calls removes it when all is done.
        checkpoint_minutes: at least this much time lies between two checkpoints, taken after a step or an epoch.
        on_epoch: called with each new row of the history.
        on_step: called after each training step.
        report: called with a sentence when something happened that a person should know.

    Raises:
        ValueError: the loss is not a finite number; the message names epoch, step and the samples' ids.
    """
    state = State(micro_batch=batch_size)
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]
    devices.mend(model)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    if not fabric.is_global_zero:
        on_epoch, on_step, report = _nothing, _nothing, _nothing
    if checkpoint_folder is not None:
        loaded = checkpoint.load(checkpoint_folder, model=model, optimizer=optimizer)
        if loaded is not None:
            state = loaded
            fabric.strategy.precision.load_state_dict(state.scaler)
            report(f"going on after {state.epoch} epochs and {state.step} steps, from {checkpoint_folder}")
    plan = data.Plan(
        samples,
        batch_size=batch_size,
        epochs=epochs,
        seed=samples.seed,
        epoch=state.epoch,
        step=state.step,
        rank=fabric.global_rank,
        processes=fabric.world_size,
    )
    run = Run(
        fabric=fabric,
        model=wrapped,
        optimizer=wrapped_optimizer,
        task=task,
        criterion=fabric.to_device(criterion),
        loss_weights=loss_weights,
        mean=torch.tensor(mean, device=fabric.device),
        std=torch.tensor(std, device=fabric.device),
        num_classes=num_classes,
        ignore_index=samples.ignore_index,
        seed=samples.seed,
        epochs=epochs,
        steps=plan.steps,
        schedule=schedule,
        gamma=gamma,
        channels_last=channels_last,
        report=report,
        on_step=on_step,
    )

    def save() -> None:
        assert checkpoint_folder is not None
        state.scaler = fabric.strategy.precision.state_dict()
        checkpoint.save(checkpoint_folder, state, model=model, optimizer=optimizer)

    saver = Saver(save, minutes=checkpoint_minutes, wanted=checkpoint_folder is not None and fabric.is_global_zero)
    finished_by = _finished(state, epochs, patience, minutes, fabric)
    batches = data.stream(samples, plan, workers=workers if finished_by is None else 0, pin=fabric.device.type == "cuda")
    while finished_by is None:
        train_loss = train_one_epoch(run, state, batches, saver=saver)
        started = time.monotonic()
        scores = validate(run, state, batches, count=len(plan.val_batches))
        seconds = time.monotonic() - started
        row = {
            "epoch": state.epoch + 1,
            "train_loss": train_loss,
            **scores,
            "lr": _last_lr(run, state),
            "seconds": state.epoch_seconds + seconds,
            "images_per_second": state.images / state.epoch_seconds,
        }
        _end_epoch(state, row, model, seconds=seconds, device=fabric.device)
        on_epoch(row)
        if saver.due():
            saver.save()
        finished_by = _finished(state, epochs, patience, minutes, fabric)
    del batches
    model.load_state_dict(state.best)
    model.to("cpu")
    train_seconds = sum(len(samples) / row["images_per_second"] for row in state.history)
    return Fitted(
        history=state.history,
        best_epoch=state.best_epoch,
        seconds=state.seconds,
        images_per_second=len(samples) * len(state.history) / train_seconds,
        peak_memory_mb=state.peak_memory_mb,
        finished_by=finished_by,
    )


def _last_lr(run: Run, state: State) -> float:
    """The highest learning rate in the last step of the epoch; from the plan, as that step may lie before a resume."""
    factor = run.lr_factor((state.epoch + 1) * run.steps - 1)
    return float(max(group["base_lr"] for group in run.optimizer.param_groups) * factor)


def _end_epoch(state: State, row: dict[str, float], model: nn.Module, *, seconds: float, device: torch.device) -> None:
    """Take the finished epoch's row into the state, and its weights if they are the best so far."""
    state.epoch, state.step, state.loss_sum, state.images, state.epoch_seconds = state.epoch + 1, 0, 0.0, 0, 0.0
    state.seconds += seconds
    state.peak_memory_mb = max(state.peak_memory_mb, devices.peak_memory_mb(device))
    state.history.append(row)
    if not state.best or row["val_miou"] > state.best_miou:
        state.best_epoch = state.epoch
        state.best_miou = -1.0 if math.isnan(row["val_miou"]) else row["val_miou"]
        state.best = portable(model.state_dict())


def _finished(state: State, epochs: int, patience: int | None, minutes: float | None, fabric: Fabric) -> str | None:
    """Why no further epoch begins, or None. All processes follow the clock of the first."""
    reason = None
    if state.epoch >= epochs:
        reason = "epochs"
    elif state.epoch and not state.step:
        if patience is not None and state.epoch - state.best_epoch >= patience:
            reason = "patience"
        elif minutes is not None and state.seconds >= 60 * minutes:
            reason = "minutes"
    return str(reason) if (reason := fabric.broadcast(reason)) else None


def _nothing(_: object) -> None:
    """The callback of every process but the first."""
