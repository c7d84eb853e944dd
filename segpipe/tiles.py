"""Where the tiles of an image lie, how large they are, and how much each counts at each pixel: arithmetic on sides."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WHOLE_PIXELS = 1024 * 1024
"""`tile: auto` gives the network images of up to this many pixels in one piece, and larger ones in tiles."""
AUTO_SIDE, AUTO_OVERLAP = 1024, 256
"""The most pixels of a side of such a tile, and how many of them the next tile has too."""
OVERLAP = 0.25
"""Share of a tile's side that it shares with the next tile, at least."""
PART = 0.6
"""Share of the image's side that a side of each tile of `tile: parts` has: with `OVERLAP`, two of them cover it."""
NAMED = ("auto", "none", "parts")

Tile = str | Sequence[int]


def check_tile(tile: Tile) -> None:
    """Raise ValueError unless `tile` is one of `NAMED` or two sides in pixels."""
    sides = isinstance(tile, Sequence) and not isinstance(tile, str) and len(tile) == 2 and min(tile) > 0
    if not sides and tile not in NAMED:
        raise ValueError(f"tile: {tile!r}. Choices: {', '.join(NAMED)}, or (height, width) in pixels.")


def tile_size(tile: Tile, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) of the tiles of an image, or None for the whole image in one piece. `tile` as in `inference.predict`."""
    if tile == "none" or (tile == "auto" and height * width <= WHOLE_PIXELS):
        return None
    if tile == "auto":
        window = _auto_side(height), _auto_side(width)
    elif tile == "parts":
        window = math.ceil(PART * height), math.ceil(PART * width)
    else:
        window = int(tile[0]), int(tile[1])
    return window if height > window[0] or width > window[1] else None


def tiles(side: int, tile: int) -> list[tuple[int, Tensor]]:
    """(start, weights) of the tiles that cover `side` pixels evenly; at each pixel the weights of all tiles sum to 1.

    Weights fall off as a Gaussian from the tile's centre (sigma = an eighth of the tile, as in nnU-Net, Isensee et al. 2021).
    The outermost quarter of each overlap counts for nothing: there a tile's answer knows too little of its surroundings.
    """
    tile = min(tile, side)
    overlap = min(max(int(tile * OVERLAP), 1), tile - 1)
    number = max(1, math.ceil((side - overlap) / (tile - overlap)))
    starts = [round(i * (side - tile) / max(number - 1, 1)) for i in range(number)]
    position = torch.arange(tile, dtype=torch.float64)
    bell = torch.exp(-(((position - (tile - 1) / 2) / (tile / 8)) ** 2) / 2)
    halo = overlap // 4
    raw = torch.zeros(number, side, dtype=torch.float64)
    for i, start in enumerate(starts):
        weights = bell.clone()
        if halo and start > 0:
            weights[:halo] = 0
        if halo and start + tile < side:
            weights[-halo:] = 0
        raw[i, start : start + tile] = weights
    raw /= raw.sum(dim=0)
    return [(start, raw[i, start : start + tile].float()) for i, start in enumerate(starts)]


def _auto_side(side: int) -> int:
    """The smallest tile side that covers `side` pixels with as few tiles as `AUTO_SIDE` needs."""
    number = max(1, math.ceil((side - AUTO_OVERLAP) / (AUTO_SIDE - AUTO_OVERLAP)))
    return math.ceil((side + (number - 1) * AUTO_OVERLAP) / number)
