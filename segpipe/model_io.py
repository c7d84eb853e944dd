"""A trained model on disk: model.safetensors and config.json, which together rebuild it. Nothing is pickled."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segpipe import components

WEIGHTS, CONFIG = "model.safetensors", "config.json"
KEYS = (
    "architecture",
    "options",
    "num_classes",
    "in_channels",
    "classes",
    "ignore_index",
    "mean",
    "std",
    "size",
    "precision",
    "dataset",
    "dataset_digest",
    "task",
    "loss",
    "loss_options",
    "seed",
    "train",
    "best_epoch",
    "segpipe_version",
)
"""What config.json holds; `digest` is added when the model is saved."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there is flushed to disk and then takes the place of `path`.

    Whoever reads `path`, also after a crash, finds the whole old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    yield temporary
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def portable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the plain memory layout: the bytes of a file then depend on the values alone."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def save_model(folder: Path, model: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
    """Write `folder`/model.safetensors and `folder`/config.json, each atomically, and return the configuration as written.

    Args:
        folder: created if missing.
        model: any device; its state_dict is what is written.
        config: all of `KEYS`; `digest`, the sha256 of the weights file, is added here.
    """
    missing = [key for key in KEYS if key not in config]
    assert not missing, f"config lacks {', '.join(missing)}"
    folder = Path(folder)
    with replacing(folder / WEIGHTS) as path:
        save_file(portable(model.state_dict()), path)
    config = {**config, "digest": digest(folder / WEIGHTS)}
    with replacing(folder / CONFIG) as path:
        path.write_text(json.dumps(config, indent=1) + "\n")
    return config


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model of `folder`: (network in eval mode on the CPU, configuration).

    Raises:
        ValueError: a file is missing, the weights are not those that config.json names, or they do not fit the architecture.
    """
    folder = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).exists():
            raise ValueError(f"{folder / name}: missing, so {folder} holds no trained model. Run `dvc repro` first.")
    config = json.loads((folder / CONFIG).read_text())
    found = digest(folder / WEIGHTS)
    if found != config["digest"]:
        raise ValueError(f"{folder / WEIGHTS}: sha256 {found}, but {CONFIG} says {config['digest']}. Train the model again.")
    # Every weight comes from the file, so that none needs to be downloaded first.
    options = {key: None if key == "weights" else value for key, value in config["options"].items()}
    module = components.load("architectures", config["architecture"])
    model = module.build(num_classes=config["num_classes"], in_channels=config["in_channels"], **options)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the architecture {config['architecture']!r}, which has changed since."
            f" Train the model again. {error}"
        ) from error
    return model.eval(), config


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
