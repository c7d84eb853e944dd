"""Every network answers at the image's size: pads, tiles, blends and flips around a model, as its `input_rule` asks.

Padding is never zeros. A region of an image is given to the network with the pixels that really surround it, and beyond the
image's border with its mirror image; a tile and a whole image are the same case.
"""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.architectures.blocks.input_rule import InputRule

WHOLE_PIXELS = 1024 * 1024
"""`tile: auto` gives the network images of up to this many pixels in one piece, and larger ones in tiles."""
AUTO_SIDE, AUTO_OVERLAP = 1024, 256
"""The most pixels of a side of such a tile, and how many of them the next tile has too."""
OVERLAP = 0.25
"""Share of a tile's side that it shares with the next tile, at least."""
STRIP_VALUES = 2**26
"""Logits held at image resolution at once while labels are made from coarser logits: 256 MiB of float32."""

Tile = str | Sequence[int]


def forward_at_size(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Run `model` on images of any size and return every output at that size. Differentiable; training uses it too.

    The images are mirrored beyond their borders until the sides satisfy `model.input_rule`; outputs that are coarser are
    upsampled bilinearly (with aligned corners if the rule says so) and the added border is cut off. Images larger than a
    fixed-size network takes are cut into overlapping tiles of that size and blended.

    Args:
        model: a network with `input_rule: InputRule`, called with (N, C, h, w), returning dict[str, (N, K, h', w')].
        x: float (N, C, H, W).

    Returns:
        The same names, each (N, K, H, W).
    """
    height, width = x.shape[-2:]
    if not _must_tile(_rule(model), height, width):
        return _region(model, x, rows=(0, height), columns=(0, width))
    strips = list(_strips(model, x, tile=_fixed_tile(_rule(model))))
    return {name: torch.cat([strip[name] for strip in strips], dim=2) for name in strips[0]}


def predict(
    model: nn.Module,
    image: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    tta: str = "none",
    tile: Tile = "auto",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The logits of one image at its own resolution, in float32.

    Args:
        model: in eval mode, on `device`.
        image: uint8 (H, W, 3) RGB.
        mean, std: per channel, of image values in 0..1.
        size: (height, width) that the image is resized to for the network; None leaves it as it is.
        tta: "flip" averages the logits of the image and of its mirror image; "none" does not.
        tile: "auto" tiles above `WHOLE_PIXELS`, "none" never, (height, width) always with tiles of that size. A network
            of fixed size is always tiled by that size.
        device: where the network runs.

    Returns:
        float32 (K, H, W).
    """
    logits: np.ndarray | None = None
    with torch.inference_mode():
        for top, strip in _logit_strips(model, image, mean, std, size, tta, tile, device):
            if logits is None:
                logits = np.empty((strip.shape[0], *image.shape[:2]), np.float32)
            logits[:, top : top + strip.shape[1]] = strip.float().cpu().numpy()
    assert logits is not None
    return logits


def predict_labels(
    model: nn.Module,
    image: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    tta: str = "none",
    tile: Tile = "auto",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The most likely class of each pixel, (H, W): uint8, or uint16 for more than 254 classes. Arguments as in `predict`.

    The same as the argmax of `predict`, without ever holding all logits at image resolution.
    """
    labels = np.empty(image.shape[:2], np.uint8)
    with torch.inference_mode():
        for top, strip in _logit_strips(model, image, mean, std, size, tta, tile, device):
            if strip.shape[0] > 254:
                labels = labels.astype(np.uint16, copy=False)
            labels[top : top + strip.shape[1]] = strip.argmax(dim=0).to(torch.int32).cpu().numpy()
    return labels


def normalise(image: np.ndarray, *, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
    """What a network sees of an image uint8 (H, W, C): float32 (1, C, H, W), (image / 255 - mean) / std."""
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float()
    shape = (1, -1, 1, 1)
    return (x / 255 - torch.tensor(mean, device=device).view(shape)) / torch.tensor(std, device=device).view(shape)


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """uint8 (H, W, C) resized bilinearly to `size` = (height, width), as training resizes what it learns from."""
    height, width = int(size[0]), int(size[1])
    if image.shape[:2] == (height, width):
        return image
    resized: np.ndarray = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def _logit_strips(
    model: nn.Module,
    image: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None,
    tta: str,
    tile: Tile,
    device: torch.device | str,
) -> Iterator[tuple[int, Tensor]]:
    """(first row, logits (K, rows, W)) from top to bottom of the image: all of it, in pieces that fit in memory."""
    assert not model.training, "a network that predicts is in eval mode"
    if tta not in ("none", "flip"):
        raise ValueError(f"tta: {tta!r}. Choices: none, flip.")
    seen = image if size is None else resize_image(image, size)
    x = normalise(seen, mean=mean, std=std, device=device)
    window = _tile_size(_rule(model), tile, x.shape[-2], x.shape[-1])
    passes = [_strips(model, x, tile=window)]
    if tta == "flip":
        passes.append({"out": s["out"].flip(-1)} for s in _strips(model, x.flip(-1), tile=window))
    strips = (sum(s["out"][0] for s in same) / len(same) for same in zip(*passes, strict=True))
    if seen.shape[:2] != image.shape[:2]:
        yield from _upsampled(torch.cat(list(strips), dim=1), image.shape[0], image.shape[1])
        return
    top = 0
    for strip in strips:
        yield top, strip
        top += strip.shape[1]


def _upsampled(logits: Tensor, height: int, width: int) -> Iterator[tuple[int, Tensor]]:
    """(K, h, w) logits resized bilinearly (align_corners=False) to (K, height, width), strip by strip."""
    rows = max(1, STRIP_VALUES // (logits.shape[0] * width))
    at = (torch.arange(height, dtype=torch.float32, device=logits.device) + 0.5) * (logits.shape[1] / height) - 0.5
    at = at.clamp(0, logits.shape[1] - 1)
    above = at.long()
    below = (above + 1).clamp(max=logits.shape[1] - 1)
    share = (at - above).view(1, -1, 1)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        strip = torch.lerp(logits[:, above[part]], logits[:, below[part]], share[:, part])
        yield top, _resize(strip[None], (strip.shape[1], width))[0]


def _tile_size(rule: InputRule, tile: Tile, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) of the tiles of an image, or None for the whole image in one piece."""
    if tile not in ("auto", "none") and not (
        isinstance(tile, Sequence) and not isinstance(tile, str) and len(tile) == 2 and min(tile) > 0
    ):
        raise ValueError(f"tile: {tile!r}. Choices: auto, none, or (height, width) in pixels.")
    if rule.fixed is not None:
        return _fixed_tile(rule) if _must_tile(rule, height, width) else None
    if tile == "none" or (tile == "auto" and height * width <= WHOLE_PIXELS):
        return None
    window = (_auto_side(height), _auto_side(width)) if tile == "auto" else (int(tile[0]), int(tile[1]))
    return window if height > window[0] or width > window[1] else None


def _auto_side(side: int) -> int:
    """The smallest tile side that covers `side` pixels with as few tiles as `AUTO_SIDE` needs."""
    number = max(1, math.ceil((side - AUTO_OVERLAP) / (AUTO_SIDE - AUTO_OVERLAP)))
    return math.ceil((side + (number - 1) * AUTO_OVERLAP) / number)


def _rule(model: nn.Module) -> InputRule:
    rule = model.input_rule
    assert isinstance(rule, InputRule), f"{type(model).__name__}.input_rule is {rule!r}, not an InputRule"
    return rule


def _fixed_tile(rule: InputRule) -> tuple[int, int]:
    assert rule.fixed is not None
    return rule.fixed[0] - 2 * rule.margin, rule.fixed[1] - 2 * rule.margin


def _must_tile(rule: InputRule, height: int, width: int) -> bool:
    return rule.fixed is not None and (height > _fixed_tile(rule)[0] or width > _fixed_tile(rule)[1])


def _strips(model: nn.Module, x: Tensor, *, tile: tuple[int, int] | None) -> Iterator[dict[str, Tensor]]:
    """The outputs for x (N, C, H, W) as strips (N, K, rows, W) from top to bottom, blended from tiles of `tile`."""
    height, width = x.shape[-2:]
    if tile is None:
        yield _region(model, x, rows=(0, height), columns=(0, width))
        return
    down, across = _tiles(height, tile[0]), _tiles(width, tile[1])
    pending: dict[str, Tensor] = {}
    for index, (top, row_weights) in enumerate(down):
        rows = len(row_weights)
        band: dict[str, Tensor] = {}
        for left, column_weights in across:
            outputs = _region(model, x, rows=(top, rows), columns=(left, len(column_weights)))
            for name, out in outputs.items():
                weights = row_weights.to(out)[:, None] * column_weights.to(out)
                around = (left, width - left - len(column_weights))
                piece = F.pad(out * weights, around)
                band[name] = band[name] + piece if name in band else piece
        final = (down[index + 1][0] if index + 1 < len(down) else height) - top
        for name, strip in pending.items():
            band[name] = band[name] + F.pad(strip, (0, 0, 0, rows - strip.shape[2]))
        yield {name: strip[:, :, :final] for name, strip in band.items()}
        pending = {name: strip[:, :, final:] for name, strip in band.items()}


def _tiles(side: int, tile: int) -> list[tuple[int, Tensor]]:
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


def _region(model: nn.Module, x: Tensor, *, rows: tuple[int, int], columns: tuple[int, int]) -> dict[str, Tensor]:
    """The outputs for one region of x, `rows` and `columns` = (start, length), with the image around it as context."""
    rule = _rule(model)
    inputs = rule.fixed or (rule.padded(rows[1]), rule.padded(columns[1]))
    before = [(given - length) // 2 for given, length in zip(inputs, (rows[1], columns[1]), strict=True)]
    assert min(before) >= rule.margin, f"{inputs} is too small for a region of {rows[1]}x{columns[1]}"
    window = _mirrored(x, 2, rows[0] - before[0], inputs[0])
    window = _mirrored(window, 3, columns[0] - before[1], inputs[1])
    top, left = before[0] - rule.margin, before[1] - rule.margin
    answer = (inputs[0] - 2 * rule.margin, inputs[1] - 2 * rule.margin)
    outputs = {name: _resize(out, answer, aligned=rule.aligned) for name, out in model(window).items()}
    return {name: out[:, :, top : top + rows[1], left : left + columns[1]] for name, out in outputs.items()}


def _mirrored(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` pixels of x along `dim` from `start` on; beyond the borders x is its own mirror image, again and again."""
    side = x.shape[dim]
    if start == 0 and length == side:
        return x
    period = max(2 * side - 2, 1)
    position = torch.arange(start, start + length, device=x.device) % period
    return x.index_select(dim, torch.minimum(position, period - position) if side > 1 else torch.zeros_like(position))


def _resize(logits: Tensor, size: tuple[int, int], *, aligned: bool = False) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    if tuple(logits.shape[-2:]) == (1, 1):  # one answer for the whole image
        return logits.expand(*logits.shape[:2], *size)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=aligned)
