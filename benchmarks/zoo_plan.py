"""How many epochs of a network fit into its minutes on this machine: `python -m benchmarks.zoo_plan` prints the number.

Run by `zoo.py` in the folder of a network, whose params.yaml has one experiment. A few steps of `train_one_epoch` and one batch of
`validate` are timed on noise.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from segpipe import components
from segpipe.params import Experiment, read_params
from segpipe.shards import DatasetInfo, read_info
from segpipe.training import devices, optimizer
from segpipe.training.checkpoint import State
from segpipe.training.data import Batch
from segpipe.training.epoch import Run, train_one_epoch, validate

STEPS = 4
SHARE = 0.95
"""Of the minutes: loading and counting take the rest."""


def main() -> None:
    (experiment,) = read_params().experiments.values()
    train, info = experiment.train, read_info(Path("data/converted") / experiment.dataset)
    assert train.minutes is not None, "the zoo's preset bounds the minutes"
    with devices.training_device(train.device, report=print) as device:
        step, checked = timed(experiment, info, device)
    epoch = (info.splits["train"] * step + info.splits["val"] * checked) / train.batch_size
    print(max(1, int(SHARE * 60 * train.minutes / epoch)))


def timed(experiment: Experiment, info: DatasetInfo, device: torch.device) -> tuple[float, float]:
    """Seconds of a training step (the median, without the first) and of a batch of validation."""
    train = experiment.train
    assert train.size is not None, "all images of the zoo have one size"
    architecture, task = components.load("architectures", experiment.architecture), components.load("tasks", experiment.task)
    loss = components.load("losses", experiment.loss)
    model = architecture.build(num_classes=info.num_classes, in_channels=len(info.mean), **experiment.options)
    precision = devices.choose_precision(train.precision, device)
    channels_last = devices.use_channels_last(device, precision)
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    devices.mend(model)
    fabric = devices.make_fabric(device, precision=precision)
    made = optimizer.build(model, name=train.optimizer, lr=train.lr, weight_decay=train.weight_decay)
    wrapped, wrapped_optimizer = fabric.setup(model, made)
    pixel_loss = loss.build(num_classes=info.num_classes, ignore_index=info.ignore_index, **experiment.loss_options)
    ends = [0.0]
    run = Run(
        fabric=fabric,
        model=wrapped,
        optimizer=wrapped_optimizer,
        task=task,
        criterion=task.build_criterion(pixel_loss, architecture=architecture, ignore_index=info.ignore_index),
        loss_weights=architecture.LOSS_WEIGHTS,
        mean=torch.tensor(info.mean, device=device),
        std=torch.tensor(info.std, device=device),
        num_classes=info.num_classes,
        ignore_index=info.ignore_index,
        seed=0,
        epochs=1,
        steps=STEPS,
        schedule="constant",
        channels_last=channels_last,
        report=print,
        on_step=lambda progress: ends.append(progress.seconds),
    )
    state = State(micro_batch=train.batch_size)
    noise = {train_: batches(train.batch_size, train.size, info.num_classes, train=train_) for train_ in (True, False)}
    train_one_epoch(run, state, noise[True])
    started = time.monotonic()
    validate(run, state, noise[False], count=1)
    return statistics.median(np.diff(ends)[1:]), time.monotonic() - started


def batches(batch_size: int, size: tuple[int, int], classes: int, *, train: bool) -> Iterator[Batch]:
    """Noise without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield Batch(
            images=torch.randint(0, 256, (batch_size, *size, 3), dtype=torch.uint8, generator=generator),
            target=torch.randint(0, classes, (batch_size, *size), dtype=torch.uint8, generator=generator),
            ids=["noise"] * batch_size,
            train=train,
            epoch=0,
        )


if __name__ == "__main__":
    main()
