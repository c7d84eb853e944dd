"""What every loss checks and prepares alike: class weights, the pixels that count, full precision."""

import torch
from torch import Tensor


def checked_weight(weight: list[float] | None, num_classes: int) -> Tensor | None:
    """Class weights as float64 (K,).

    Raises:
        ValueError: not one finite weight of 0 or more for each class, or all are 0.
    """
    if weight is None:
        return None
    values = torch.as_tensor(weight, dtype=torch.float64)
    if values.shape != (num_classes,):
        raise ValueError(f"weight: {values.tolist()} must be one weight for each of the {num_classes} classes")
    if not bool(torch.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ValueError(f"weight: {values.tolist()} must be finite, 0 or more, and not all 0")
    return values


def valid_pixels(target: Tensor, ignore_index: int, pixel_weight: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """How much each pixel counts, (N, H, W) of `like`'s dtype, 0 where it is ignored; and its label, 0 where it is ignored."""
    valid = target != ignore_index
    share = valid.to(like.dtype) if pixel_weight is None else pixel_weight.to(like.dtype) * valid
    return share, target.where(valid, 0)


def full_precision(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """The logits in float32 (float64 stays): exponentials and sums over all pixels need its range and digits."""
    assert logits.ndim == 4 and logits.shape[1] == num_classes, f"logits {tuple(logits.shape)} for {num_classes} classes"
    assert target.shape == logits[:, 0].shape, f"target {tuple(target.shape)} for logits {tuple(logits.shape)}"
    return logits if logits.dtype == torch.float64 else logits.float()


def divided(total: Tensor, by: Tensor) -> Tensor:
    """`total` / `by`, where `by` is 0 or more and `total` is 0 wherever `by` is: 0 there, with a gradient of 0."""
    return total / by.where(by > 0, by.new_ones(()))
