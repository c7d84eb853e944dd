"""What a training leaves beside its model: history.csv and cost.json."""

import copy
import csv
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segpipe.inference import forward_at_size
from segpipe.model_io import replacing
from segpipe.training.fit import HISTORY, Fitted


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the rows of a run, one per epoch, with a header."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_cost(path: Path, fitted: Fitted, model: nn.Module, *, device: torch.device, devices: int, size: tuple[int, int]) -> None:
    """Write what a training cost and how large its model is.

    `wall_seconds` is training and validation over all resumes, without starting up; `device_seconds` is the same times the number
    of devices.

    Args:
        path: cost.json.
        fitted: what `fit` returned.
        model: the trained network, on the CPU.
        device: where it was trained.
        devices: how many of them.
        size: (height, width) of the image that `gflops` are counted for.
    """
    cost = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "device_seconds": fitted.seconds * devices,
        "wall_seconds": fitted.seconds,
        "peak_memory_mb": fitted.peak_memory_mb,
        "images_per_second": fitted.images_per_second,
        "parameters": parameter_count(model),
        "gflops": forward_gflops(model, size=size),
        "epochs": len(fitted.history),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(cost, indent=1) + "\n")


def parameter_count(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def forward_gflops(model: nn.Module, *, size: tuple[int, int], in_channels: int = 3) -> float:
    """10^9 floating-point operations of one image's way through the network, padding included; a multiply-add counts as two.

    Args:
        model: any device; it is left as it is.
        size: (height, width) of the image.
        in_channels: C.
    """
    # Shapes alone decide the count: on the meta device nothing is computed and nothing allocated, whatever the size.
    shapes = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward_at_size(shapes, torch.zeros(1, in_channels, *size, device="meta"))
    return counter.get_total_flops() / 1e9
