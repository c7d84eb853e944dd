"""The state of a run in progress in one file, written atomically, so that a killed run goes on as if nothing had happened.

One safetensors file holds the weights, the best weights and the optimiser's tensors; its metadata holds the rest as JSON.
Random streams need no state: each step and each sample starts its own from (run seed, epoch, step or sample id). The learning
rate follows from the step. Nothing is pickled.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from segpipe.model_io import digest, portable, replacing

FILE = "state.safetensors"
DIGITS = 16


@dataclass(kw_only=True)
class State:
    """Where a run stands: `epoch` and `step` are the next to do; `loss_sum` and `images` belong to the epoch in progress.

    `best` holds the weights of `best_epoch` (on the CPU), the epoch with the highest validation mIoU so far. Seconds add up over
    kills and resumes; what ran after the last checkpoint before a kill is not in them. Epochs in `best_epoch` and in `history`
    count from 1.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_miou: float = -1.0
    micro_batch: int | None = None
    peak_memory_mb: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def folder_of(root: Path, name: str, decides: Mapping[str, Any]) -> Path:
    """`root`/`name`-<hash>, where the hash is over everything that decides the result (anything that JSON can hold)."""
    text = json.dumps(decides, sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"


def sources_digest(paths: Iterable[Path]) -> str:
    """One sha256 over the Python files given, and over all Python files of the folders given."""
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    return hashlib.sha256("\n".join(f"{file.name} {digest(file)}" for file in files).encode()).hexdigest()


def save(folder: Path, state: State, *, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Write the checkpoint of `folder`, replacing the one before it."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    numbers: dict[str, Any] = {}
    for index, row in optimizer.state_dict()["state"].items():
        for name, value in row.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    plain = {key: value for key, value in vars(state).items() if key != "best"}
    with replacing(folder / FILE) as path:
        # One key only: safetensors writes several in no fixed order.
        save_file(portable(tensors), path, metadata={"state": json.dumps({"run": plain, "optimizer": numbers})})


def load(folder: Path, *, model: nn.Module, optimizer: optim.Optimizer) -> State | None:
    """Read the checkpoint of `folder` into the model and the optimiser, and return its state; None where there is none.

    Raises:
        ValueError: the file is damaged or belongs to another network.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        model.load_state_dict(_part(tensors, "model."))
        _load_optimizer(optimizer, _part(tensors, "optimizer."), document["optimizer"])
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: this checkpoint cannot be used ({error}). Delete {folder} to train anew.") from error
    return State(**document["run"], best=_part(tensors, "best."))


def remove(root: Path, name: str) -> None:
    """Delete every checkpoint of the experiment `name`, also those of earlier parameters."""
    for folder in root.glob(f"{name}-*"):
        if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{{DIGITS}}}", folder.name):
            shutil.rmtree(folder)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    rows: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        param = params[int(index)]
        if isinstance(value, Tensor) and value.shape == param.shape:
            # In the parameter's own memory layout, so that the arithmetic runs in the same order as before.
            value = torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value)
        rows.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": rows, "param_groups": optimizer.state_dict()["param_groups"]})
