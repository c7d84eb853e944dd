"""What an augmentation draws. A policy is a pure function of (image, mask, seed): no global state, no hidden random stream.

The pixels of a mask are moved, never mixed, so that an augmented mask holds labels of the original and `ignore_index` only. Where
geometry looks past the edge of the image, the image is mirrored and the mask says `ignore_index`: nothing is learnt from pixels
that nobody labelled, and no object appears twice.
"""

import hashlib
import json
import random
import threading
from typing import Any

import numpy as np

NAMES = ("none", "flip", "mirror", "light", "strong")


def sample_seed(*parts: int | str) -> int:
    """A seed in 0..2**32-1 from any texts and whole numbers, the same in every process and on every machine.

    Used as `sample_seed(run_seed, epoch, sample_id)`: samples are then the same for any number of workers and in any order.
    """
    text = json.dumps(list(parts), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class Policy:
    """A named augmentation policy; see `build`. Safe to share between threads and to pickle into processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        # albumentations' objects hold the random stream of the call in progress, so that every thread needs its own.
        self._local = threading.local()

    @property
    def uses_transforms(self) -> bool:
        """Whether a draw needs `transforms.py`, and with it albumentations."""
        return self.name in ("light", "strong")

    def __reduce__(self) -> tuple[Any, ...]:
        return Policy, (self.name,)

    def apply(self, image: np.ndarray, mask: np.ndarray, *, seed: int, ignore_index: int = 255) -> tuple[np.ndarray, np.ndarray]:
        """One draw: the augmented pair, same shapes and dtypes; the arguments are left as they are.

        Args:
            image: uint8 (H, W, 3) RGB.
            mask: labels uint8 or uint16 (H, W).
            seed: decides the draw, see `sample_seed`; 0 or more.
            ignore_index: the label of pixels that come from outside the image.
        """
        image, mask, _ = self.apply_with_layers(
            image, mask, np.empty((0, *mask.shape), np.uint16), seed=seed, ignore_index=ignore_index
        )
        return image, mask

    def apply_with_layers(
        self, image: np.ndarray, mask: np.ndarray, layers: np.ndarray, *, seed: int, ignore_index: int = 255
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `apply`, moving also `layers` (n, H, W) of instance numbers, uint16, the same way as the mask.

        In a layer `ignore_index` means "no instance", which is also what pixels from outside the image get.
        """
        assert image.ndim == 3 and image.dtype == np.uint8, f"{image.dtype} {image.shape} is no RGB image"
        assert image.shape[:2] == mask.shape == layers.shape[1:], f"{image.shape}, {mask.shape} and {layers.shape} differ"
        if self.name == "none":
            return image.copy(), mask.copy(), layers.copy()
        if self.name in ("flip", "mirror"):
            step = -1 if self.name == "mirror" or random.Random(seed).random() < 0.5 else 1
            return image[:, ::step].copy(), mask[:, ::step].copy(), layers[:, :, ::step].copy()
        # Importing albumentations takes a while, which policies that do not use it need not pay.
        from segpipe.augmentation import transforms

        if getattr(self._local, "ignore_index", None) != ignore_index:
            self._local.compose = transforms.build(self.name, ignore_index=ignore_index)
            self._local.ignore_index = ignore_index
        return transforms.draw(self._local.compose, image, mask, layers, seed=seed)


def build(name: str) -> Policy:
    """The policy of that name.

    - `none`: leaves everything as it is.
    - `flip`: mirrors left and right, every second time.
    - `mirror`: mirrors always; what the offline engine falls back to.
    - `light`: flip, scale 0.9 to 1.1, rotation up to 10 degrees, shift up to 5 %, mild brightness, contrast and colour.
    - `strong`: the same in wider ranges with shear, U-Net's elastic deformation, blur and noise.

    Raises:
        ValueError: there is no such policy.
    """
    if name not in NAMES:
        raise ValueError(f"augmentation policy {name!r}: unknown. Choices: {', '.join(NAMES)}.")
    return Policy(name)
