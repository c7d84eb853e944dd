"""Semantic segmentation: one class per pixel. What the loss of a batch and the prediction of a batch are."""

from collections.abc import Callable, Mapping
from types import ModuleType

import torch
from torch import Tensor, nn


class NetworkCriterion(nn.Module):
    """An experiment's pixel loss, and beside it the loss terms that its network brings (see `segpipe.architectures`)."""

    def __init__(self, pixel_loss: nn.Module, loss_terms: Callable[..., dict[str, Tensor]], *, ignore_index: int) -> None:
        super().__init__()
        self.pixel_loss, self.loss_terms, self.ignore_index = pixel_loss, loss_terms, ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.pixel_loss(logits, target)

    def terms(self, outputs: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """The network's own terms for these outputs, scalars by name."""
        return self.loss_terms(outputs, target, criterion=self.pixel_loss, ignore_index=self.ignore_index)


def build_criterion(pixel_loss: nn.Module, *, architecture: ModuleType, ignore_index: int) -> nn.Module:
    """What `loss` is to be called with: the pixel loss, together with `loss_terms` of an architecture file that has them."""
    terms = getattr(architecture, "loss_terms", None)
    return pixel_loss if terms is None else NetworkCriterion(pixel_loss, terms, ignore_index=ignore_index)


def loss(
    outputs: Mapping[str, Tensor], target: Tensor, *, criterion: Callable[..., Tensor], loss_weights: Mapping[str, float]
) -> Tensor:
    """The weighted sum of the criterion over a network's outputs, and of the network's own terms.

    Args:
        outputs: logits (N, K, H, W) by name: "out", and auxiliary ones while training.
        target: int64 (N, H, W) class indices and the ignored label.
        criterion: called as (logits, target), answers a scalar. The own terms of a `NetworkCriterion` are added; one that has
            the name of an output takes the place of the criterion there.
        loss_weights: the weight of each output and each own term in the sum (the architecture's LOSS_WEIGHTS).

    Returns:
        A scalar, float32.

    Raises:
        ValueError: the network has an output, or a term, that `loss_weights` does not name.
    """
    own = criterion.terms(outputs, target) if isinstance(criterion, NetworkCriterion) else {}
    total = torch.zeros((), device=target.device)
    for name in dict.fromkeys([*outputs, *own]):
        if name not in loss_weights:
            raise ValueError(
                f"the network's output {name!r} has no weight: add it to LOSS_WEIGHTS of its architecture file,"
                f" which has {', '.join(loss_weights) or 'none'}"
            )
        if loss_weights[name]:
            total = total + loss_weights[name] * (own[name] if name in own else criterion(outputs[name], target))
    return total


def predict(outputs: Mapping[str, Tensor]) -> Tensor:
    """The most likely class of each pixel: int64 (N, H, W) from the logits (N, K, H, W) of "out"."""
    return outputs["out"].argmax(1)
