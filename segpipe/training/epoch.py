"""One pass over the training samples and one over the validation samples, step by step; `fit` repeats them."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn, optim

from segpipe import confusion
from segpipe.augmentation.policy import sample_seed
from segpipe.inference import forward_at_size
from segpipe.training import data, schedule
from segpipe.training.checkpoint import State
from segpipe.training.optimizer import set_lr

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: epoch counts from 1; `seconds` are used so far, `seconds_left` is an estimate for all planned epochs."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    seconds: float
    seconds_left: float


@dataclass(kw_only=True)
class Run:
    """What stays the same during a run. `mean` and `std` are per channel in 0..1, on the device."""

    fabric: Fabric
    model: nn.Module
    optimizer: optim.Optimizer
    task: ModuleType
    criterion: Callable[..., Tensor]
    loss_weights: dict[str, float]
    mean: Tensor
    std: Tensor
    num_classes: int
    ignore_index: int
    seed: int
    epochs: int
    steps: int
    schedule: str
    gamma: float | None = None
    channels_last: bool
    report: Callable[[str], None]
    on_step: Callable[[Progress], None]

    def lr_factor(self, step: int) -> float:
        """What the learning rates are multiplied by at `step`, counted from the run's first."""
        return schedule.factor(self.schedule, step=step, steps=self.epochs * self.steps, epochs=self.epochs, gamma=self.gamma)


class Saver:
    """Calls `save` no more often than every `minutes`; never if not `wanted`."""

    def __init__(self, save: Callable[[], None], *, minutes: float, wanted: bool = True) -> None:
        self._save, self._seconds, self._wanted, self._last = save, 60 * minutes, wanted, time.monotonic()

    def due(self) -> bool:
        return self._wanted and time.monotonic() - self._last >= self._seconds

    def save(self) -> None:
        self._save()
        self._last = time.monotonic()


def train_one_epoch(run: Run, state: State, batches: Iterator[data.Batch], *, saver: Saver | None = None) -> float:
    """Train on the rest of the epoch that `state` stands in and return the mean loss of all the epoch's images.

    `state` moves on with every step. The value of a loss is looked at one step later, so that a GPU never waits for it, but
    before anything is saved.

    Raises:
        ValueError: a loss is not a finite number.
    """
    run.model.train()
    pending: tuple[Tensor, data.Batch, int] | None = None
    last = time.monotonic()
    while state.step < run.steps:
        batch = next(batches)
        assert batch.train and batch.epoch == state.epoch, "the stream of batches and the run have lost each other"
        done = state.epoch * run.steps + state.step
        set_lr(run.optimizer, run.lr_factor(done))
        loss = _step(run, state, batch)
        if pending is not None:
            _add_loss(state, *pending)
        pending = (loss, batch, state.step)
        state.step += 1
        save_now = saver is not None and saver.due()
        if save_now or state.step == run.steps:
            _add_loss(state, *pending)
            pending = None
        now = time.monotonic()
        state.epoch_seconds, state.seconds, last = state.epoch_seconds + now - last, state.seconds + now - last, now
        if saver is not None and save_now:
            saver.save()
        run.on_step(
            Progress(
                epoch=state.epoch + 1,
                epochs=run.epochs,
                step=state.step,
                steps=run.steps,
                images_per_second=state.images / state.epoch_seconds,
                seconds=state.seconds,
                seconds_left=state.seconds / (done + 1) * (run.epochs * run.steps - done - 1),
            )
        )
    return state.loss_sum / state.images


@torch.no_grad()
def validate(run: Run, state: State, batches: Iterator[data.Batch], *, count: int) -> dict[str, float]:
    """Score the next `count` batches, which are the validation split: val_loss, val_miou and val_pa.

    The loss is the mean over images of what the network answers in eval mode (auxiliary outputs that it then leaves out are not
    in it). mIoU is the mean over the classes that occur in truth or prediction; NaN where every pixel is ignored. Scores are at
    the size of the network's input, `size` if given.
    """
    run.model.eval()
    confused = np.zeros((run.num_classes, run.num_classes), np.int64)
    loss_sum, images = 0.0, 0
    labels = np.uint8 if run.num_classes <= 254 else np.uint16
    for _ in range(count):
        batch = next(batches)
        assert not batch.train and batch.epoch == state.epoch, "the stream of batches and the run have lost each other"

        def score(micro: int, batch: data.Batch = batch) -> list[tuple[float, np.ndarray]]:
            parts = []
            for x, target, share in _pieces(run, batch, micro):
                outputs = forward_at_size(run.model, x)
                loss = run.task.loss(outputs, target, criterion=run.criterion, loss_weights=run.loss_weights)
                parts.append((float(loss) * share, run.task.predict(outputs).to(torch.int32).cpu().numpy()))
            return parts

        parts = _within_memory(run, state, len(batch), score)
        loss_sum += len(batch) * sum(loss for loss, _ in parts)
        images += len(batch)
        confused += confusion.count_batch(
            batch.target.numpy().astype(labels, copy=False),
            np.concatenate([prediction for _, prediction in parts]).astype(labels),
            num_classes=run.num_classes,
            ignore_index=run.ignore_index,
        ).sum(0)
    hits, total = np.diagonal(confused), confused.sum()
    union = confused.sum(0) + confused.sum(1) - hits
    return {
        "val_loss": loss_sum / images,
        "val_miou": float(np.mean(hits[union > 0] / union[union > 0])) if total else math.nan,
        "val_pa": float(hits.sum() / total) if total else math.nan,
    }


def _step(run: Run, state: State, batch: data.Batch) -> Tensor:
    """One step of the optimiser; returns the batch's mean loss, still on the device."""

    def gradients(micro: int) -> Tensor:
        # Whatever the network draws (dropout) follows from the step, and a resumed run draws the same.
        torch.manual_seed(sample_seed(run.seed, state.epoch, state.step, run.fabric.global_rank))
        run.optimizer.zero_grad()
        total = torch.zeros((), device=run.fabric.device)
        for x, target, share in _pieces(run, batch, micro):
            outputs = forward_at_size(run.model, x)
            loss = run.task.loss(outputs, target, criterion=run.criterion, loss_weights=run.loss_weights) * share
            run.fabric.backward(loss)
            total += loss.detach()
        return total

    loss = _within_memory(run, state, len(batch), gradients)
    run.optimizer.step()
    return loss


def _pieces(run: Run, batch: data.Batch, micro: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """(input float32 (n, C, H, W), target int64 (n, H, W), n / N) for even pieces of at most `micro` images, on the device."""
    for rows in np.array_split(np.arange(len(batch)), -(-len(batch) // micro)):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        images, target = run.fabric.to_device(batch.images[part]), run.fabric.to_device(batch.target[part])
        x = data.normalise(images, mean=run.mean, std=run.std, channels_last=run.channels_last)
        yield x, target.long(), len(rows) / len(batch)


def _within_memory(run: Run, state: State, images: int, work: Callable[[int], T]) -> T:
    """`work(micro_batch)`, again with half the micro-batch whenever the device runs out of memory; the run keeps the half."""
    assert state.micro_batch is not None
    while True:
        try:
            return work(state.micro_batch)
        except torch.OutOfMemoryError as error:
            micro = min(state.micro_batch, images)
            if micro == 1 or run.fabric.world_size > 1:
                raise ValueError(
                    f"batch_size: {micro} image(s) at once are more than {run.fabric.device} has memory for,"
                    " and cannot be split further. Lower batch_size, crop or size."
                ) from error
        # Only here, outside the handler, is the failed attempt's memory free.
        run.optimizer.zero_grad()
        if run.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        state.micro_batch = -(-micro // 2)
        run.report(
            f"out of memory with {micro} images at once in epoch {state.epoch + 1}:"
            f" from here on {state.micro_batch} at once, with gradients summed up over the batch"
        )


def _add_loss(state: State, loss: Tensor, batch: data.Batch, step: int) -> None:
    value = float(loss)
    if not math.isfinite(value):
        raise ValueError(
            f"the training loss is {value} in epoch {state.epoch + 1}, step {step + 1}, on the samples {', '.join(batch.ids)}."
            " Lower lr, or use precision fp32 or bf16, or look at these samples."
        )
    state.loss_sum += value * len(batch)
    state.images += len(batch)
