"""Masks of objects for the tests that score them."""

from typing import Any

import numpy as np

from segpipe.items import encode_instance


def rectangle(shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


def instance(mask: np.ndarray, category: int, *, iscrowd: bool = False) -> dict[str, Any]:
    """A row as a shard holds it."""
    return encode_instance({"mask": mask, "iscrowd": iscrowd}, category)
