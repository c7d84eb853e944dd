"""Colour-coded masks: a colour as one whole number, which is the label value of such a source."""

import numpy as np


def key(red: int, green: int, blue: int) -> int:
    """The label value of a colour: 65536 R + 256 G + B."""
    return (int(red) << 16) | (int(green) << 8) | int(blue)


def pack(rgb: np.ndarray) -> np.ndarray:
    """int32 (H, W): the label value of each pixel of `rgb` uint8 (H, W, 3)."""
    wide = rgb[..., :3].astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
