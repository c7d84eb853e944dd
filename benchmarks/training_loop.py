"""Our training loop against a bare torch loop: `python -m benchmarks.training_loop`.

Both train the same network on the same batches (uint8, in memory) in the same precision and memory layout with the same loss and
optimiser, epoch by epoch in turns. Prints the ratio of the median times per epoch: above 1 ours is slower; 1.05 is the bound.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from segpipe import components
from segpipe.tasks import semantic
from segpipe.training import devices, optimizer
from segpipe.training.checkpoint import State
from segpipe.training.data import Batch
from segpipe.training.epoch import Run, train_one_epoch

CLASSES = 5
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.21, 0.22)
Epoch = Callable[[], float]


def draw(steps: int, *, batch_size: int, size: tuple[int, int]) -> list[Batch]:
    """Noise, uint8, with labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, *size)
    return [
        Batch(
            images=torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator),
            target=torch.randint(0, CLASSES, shape, dtype=torch.uint8, generator=generator),
            ids=[f"{step}-{i}" for i in range(batch_size)],
            train=True,
            epoch=0,
        )
        for step in range(steps)
    ]


def network(device: torch.device, *, channels_last: bool) -> nn.Module:
    torch.manual_seed(0)
    unet = components.load("architectures", "unet")
    model: nn.Module = unet.build(num_classes=CLASSES, padding="same", norm="batch", width=12, dropout=0.0)
    return model.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format).train()


def ours(device: torch.device, precision: str, batches: list[Batch]) -> Epoch:
    """A call trains one epoch with `train_one_epoch` and answers its mean loss."""
    channels_last = devices.use_channels_last(device, precision)
    model = network(device, channels_last=channels_last)
    fabric = devices.make_fabric(device, precision=precision)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer.build(model, name="adamw", lr=1e-3, weight_decay=0.0))
    run = Run(
        fabric=fabric,
        model=wrapped,
        optimizer=wrapped_optimizer,
        task=semantic,
        criterion=nn.CrossEntropyLoss(ignore_index=255),
        loss_weights={"out": 1.0},
        mean=torch.tensor(MEAN, device=device),
        std=torch.tensor(STD, device=device),
        num_classes=CLASSES,
        ignore_index=255,
        seed=0,
        epochs=1,
        steps=len(batches),
        schedule="constant",
        channels_last=channels_last,
        report=print,
        on_step=lambda progress: None,
    )
    return lambda: train_one_epoch(run, State(micro_batch=len(batches[0])), iter(batches))


def bare(device: torch.device, precision: str, batches: list[Batch]) -> Epoch:
    """A call trains one epoch in the fewest lines of torch and answers its mean loss."""
    channels_last = devices.use_channels_last(device, precision)
    model = network(device, channels_last=channels_last)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    mean, std = torch.tensor(MEAN, device=device)[:, None, None], torch.tensor(STD, device=device)[:, None, None]
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16

    def epoch() -> float:
        total = 0.0
        for batch in batches:
            x = (batch.images.to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
            adam.zero_grad()
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                logits = model(x)["out"]
            loss = criterion(logits.float(), batch.target.to(device).long())
            loss.backward()
            adam.step()
            total += loss.item()
        return total / len(batches)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="per epoch")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with devices.training_device(options.device, report=print) as device:
        precision = devices.choose_precision(options.precision, device)
        batches = draw(options.steps, batch_size=options.batch_size, size=tuple(options.size))
        sides = {"ours": ours(device, precision, batches), "bare": bare(device, precision, batches)}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        losses = {}
        for turn in range(options.rounds + 1):
            for name in sorted(sides, reverse=bool(turn % 2)):
                start = time.perf_counter()
                losses[name] = sides[name]()
                # The first round warms up.
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    # One loop rounds its input to the precision and the other does not, so that the sums drift apart a little.
    difference = abs(losses["ours"] - losses["bare"])
    assert difference < 0.01 * losses["bare"], f"the two sides do not train the same network: {losses}"
    images = options.steps * options.batch_size
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{name}: {images / value:.1f} images/s on {device} in {precision}, final loss {losses[name]:.4f}")
    print(f"training loop, ours / bare: {median['ours'] / median['bare']:.3f} times the time (bound 1.05)")


if __name__ == "__main__":
    main()
