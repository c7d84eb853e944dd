"""Semantic segmentation: one class per pixel. What the loss of a batch and the prediction of a batch are."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def loss(
    outputs: Mapping[str, Tensor], target: Tensor, *, criterion: Callable[..., Tensor], loss_weights: Mapping[str, float]
) -> Tensor:
    """The weighted sum of the criterion over a network's outputs.

    Args:
        outputs: logits (N, K, H, W) by name: "out", and auxiliary ones while training.
        target: int64 (N, H, W) class indices and the ignored label.
        criterion: called as (logits, target), answers a scalar.
        loss_weights: the weight of each output in the sum (the architecture's LOSS_WEIGHTS).

    Returns:
        A scalar, float32.

    Raises:
        ValueError: the network has an output that `loss_weights` does not name.
    """
    total = torch.zeros((), device=target.device)
    for name, logits in outputs.items():
        if name not in loss_weights:
            raise ValueError(
                f"the network's output {name!r} has no weight: add it to LOSS_WEIGHTS of its architecture file,"
                f" which has {', '.join(loss_weights) or 'none'}"
            )
        if loss_weights[name]:
            total = total + loss_weights[name] * criterion(logits, target)
    return total


def predict(outputs: Mapping[str, Tensor]) -> Tensor:
    """The most likely class of each pixel: int64 (N, H, W) from the logits (N, K, H, W) of "out"."""
    return outputs["out"].argmax(1)
