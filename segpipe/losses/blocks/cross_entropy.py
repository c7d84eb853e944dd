"""The cross-entropy term; formula and options in `segpipe/losses/cross_entropy.py`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.losses.blocks.pixels import checked_weight, divided, full_precision, valid_pixels


class CrossEntropy(nn.Module):
    """Weighted mean of -log softmax of the true class over the pixels that count."""

    weight: Tensor | None

    def __init__(
        self, *, num_classes: int, ignore_index: int, weight: list[float] | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing: {label_smoothing!r} must be between 0 and 1")
        self.num_classes, self.ignore_index, self.label_smoothing = num_classes, ignore_index, label_smoothing
        self.register_buffer("weight", checked_weight(weight, num_classes), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            log_p = F.log_softmax(full_precision(logits, target, self.num_classes), dim=1)
            share, labels = valid_pixels(target, self.ignore_index, pixel_weight, log_p)
            if self.weight is not None:
                share = share * self.weight.to(log_p)[labels]
            loss = -log_p.gather(1, labels[:, None])[:, 0]
            if self.label_smoothing:
                loss = (1 - self.label_smoothing) * loss - self.label_smoothing * log_p.mean(1)
            return divided((share * loss).sum(), share.sum())
