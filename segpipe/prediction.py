"""A trained model ready for a person's own images: where it comes from does not matter to the caller."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import nn

from segpipe import inference
from segpipe.model_io import load_model

REGISTRY_PREFIX = "models:/"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A network with what it was trained on: `labels` of an image, and the classes' names and colours."""

    network: nn.Module
    config: dict[str, Any]
    device: str

    @property
    def class_names(self) -> list[str]:
        return [c["name"] for c in self.config["classes"]]

    @property
    def palette(self) -> np.ndarray:
        """uint8 (256, 3): the colour of each label."""
        table = np.zeros((256, 3), np.uint8)
        for index, c in enumerate(self.config["classes"]):
            table[index] = c["colour"]
        return table

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 or uint16 (H, W) class indices of an image uint8 (H, W, 3) RGB, at the image's own size."""
        return inference.predict_labels(
            self.network,
            image,
            mean=self.config["mean"],
            std=self.config["std"],
            size=self.config["size"],
            device=self.device,
        )


def open_model(model: str, *, tracking_uri: str) -> Predictor:
    """The model of a folder such as `models/unet`, or of MLflow's registry (`models:/NAME@champion`, `models:/NAME/3`).

    Raises:
        ValueError: there is no such model.
    """
    if model.startswith(REGISTRY_PREFIX):
        from segpipe.tracking.fetch import fetch_model  # MLflow takes seconds to import, and a folder does not need it

        folder = fetch_model(model, tracking_uri=tracking_uri)
    else:
        folder = Path(model)
    network, config = load_model(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor(network=network.to(device), config=config, device=device)


def read_image(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB of an image file, turned upright as its EXIF tag says.

    Raises:
        ValueError: the file is missing or is no image that can be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
