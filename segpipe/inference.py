"""Every network answers at the image's size: pads, tiles, blends, flips and scales around a model, as its `input_rule` asks.

Padding is never zeros. A region of an image is given to the network with the pixels that really surround it, and beyond the
image's border with its mirror image; a tile and a whole image are the same case.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.tiles import Tile, check_tile, tile_size, tiles

STRIP_VALUES = 2**26
"""Logits held at image resolution at once while labels are made from coarser logits: 256 MiB of float32."""

SCALES = (0.75, 1.0, 1.25)
TTA: dict[str, tuple[tuple[float, bool], ...]] = {
    "none": ((1.0, False),),
    "flip": ((1.0, False), (1.0, True)),
    "scales": tuple((scale, False) for scale in SCALES),
    "flip_scales": tuple((scale, mirrored) for scale in SCALES for mirrored in (False, True)),
}
"""Test-time augmentation: by name the views (scale, mirrored) of an image whose logits are mapped back and averaged."""


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
        tta: which views' logits are averaged, see `TTA`: "flip" has the image and its mirror image, "scales" the image at
            three sizes, "flip_scales" both, "none" the image alone. Mirrored logits are mirrored back, resized ones resized
            bilinearly to those of the image as it is.
        tile: "auto" tiles above `tiles.WHOLE_PIXELS`, "none" never; "parts" makes four overlapping tiles of any image, (height,
            width) tiles of that size. A network of fixed size is always tiled by that size.
        device: where the network runs.

    Returns:
        float32 (K, H, W).
    """
    logits: np.ndarray | None = None
    for top, strip in logit_strips(model, image, mean=mean, std=std, size=size, tta=tta, tile=tile, device=device):
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
    for top, strip in logit_strips(model, image, mean=mean, std=std, size=size, tta=tta, tile=tile, device=device):
        found = most_likely(strip)
        labels = labels.astype(found.dtype, copy=False)
        labels[top : top + len(found)] = found
    return labels


@torch.inference_mode()
def logit_strips(
    model: nn.Module,
    image: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    tta: str = "none",
    tile: Tile = "auto",
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, Tensor]]:
    """(first row, logits (K, rows, W) on `device`) from top to bottom of the image: what `predict` returns, in pieces that fit in
    memory. Arguments as there."""
    assert not model.training, "a network that predicts is in eval mode"
    if tta not in TTA:
        raise ValueError(f"tta: {tta!r}. Choices: {', '.join(TTA)}.")
    check_tile(tile)
    seen = image if size is None else resize_image(image, size)
    height, width = seen.shape[:2]

    def answers(scale: float, mirrored: bool) -> Iterator[Tensor]:
        # A view of another size is made from the image itself, which may have more to show than what the network sees.
        view = seen if scale == 1 else resize_image(image, [max(1, round(scale * side)) for side in (height, width)])
        x = normalise(view, mean=mean, std=std, device=device)
        for strip in _strips(model, x.flip(-1) if mirrored else x, tile=_window(_rule(model), tile, *view.shape[:2])):
            yield strip["out"][0].flip(-1) if mirrored else strip["out"][0]

    views = TTA[tta]
    strips: Iterator[Any]
    if all(scale == 1 for scale, _ in views):
        strips = (sum(same) / len(views) for same in zip(*(answers(*view) for view in views), strict=True))
    else:  # tiles of another scale end at other rows
        wholes = (torch.cat(list(answers(*view)), dim=1) for view in views)
        strips = iter([sum(_resize(whole[None], (height, width))[0] for whole in wholes) / len(views)])
    if (height, width) != image.shape[:2]:
        yield from _upsampled(torch.cat(list(strips), dim=1), image.shape[0], image.shape[1])
        return
    top = 0
    for strip in strips:
        yield top, strip
        top += strip.shape[1]


def most_likely(logits: Tensor) -> np.ndarray:
    """The class of the largest of the logits (K, H, W), the first of equal ones: uint8 (H, W), uint16 for more than 254 classes."""
    # On a CPU numpy takes a sixth of torch's time for this.
    found = logits.float().numpy().argmax(axis=0) if logits.device.type == "cpu" else logits.argmax(dim=0).cpu().numpy()
    return found.astype(np.uint8 if len(logits) <= 254 else np.uint16)


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


def _window(rule: InputRule, tile: Tile, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) of the tiles of an image, or None for the whole image in one piece."""
    if rule.fixed is not None:
        return _fixed_tile(rule) if _must_tile(rule, height, width) else None
    return tile_size(tile, height, width)


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
    down, across = tiles(height, tile[0]), tiles(width, tile[1])
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
