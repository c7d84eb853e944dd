"""The soft Dice term; formula and options in `segpipe/losses/dice.py`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.losses.blocks.pixels import checked_weight, divided, full_precision, valid_pixels

ABSENT = ("skip", "keep")


class Dice(nn.Module):
    """Weighted mean over classes of 1 - soft Dice coefficient, each over all pixels of the batch that count."""

    weight: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_index: int,
        weight: list[float] | None = None,
        squared: bool = False,
        smooth: float = 0.0,
        absent: str = "skip",
        background: bool = True,
    ) -> None:
        super().__init__()
        if absent not in ABSENT:
            raise ValueError(f"absent: {absent!r}. Choices: {', '.join(ABSENT)}.")
        if not smooth >= 0:
            raise ValueError(f"smooth: {smooth!r} must be 0 or more")
        weights = checked_weight(weight, num_classes)
        weights = torch.ones(num_classes, dtype=torch.float64) if weights is None else weights
        if not background:
            weights[0] = 0
        if not weights.sum() > 0:
            raise ValueError("background: false leaves no class with a weight above 0")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.squared, self.smooth, self.keep_absent = squared, smooth, absent == "keep"
        self.register_buffer("weight", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            p = F.softmax(full_precision(logits, target, self.num_classes), dim=1)
            share, labels = valid_pixels(target, self.ignore_index, pixel_weight, p)
            # All (K,). The one-hot truth g is never made: sum pg collects the true class's p of each pixel.
            true_p = p.gather(1, labels[:, None])[:, 0] * share
            intersection = p.new_zeros(self.num_classes).index_add(0, labels.flatten(), true_p.flatten())
            truth = p.new_zeros(self.num_classes).index_add(0, labels.flatten(), share.flatten())
            predicted = ((p.square() if self.squared else p) * share[:, None]).sum((0, 2, 3))
            sizes = predicted + truth
            dice = divided(2 * intersection + self.smooth, sizes + self.smooth)
            # A class that is neither true nor possibly predicted anywhere (all pixels are ignored) has no coefficient.
            counts = (sizes > 0) if self.keep_absent else (truth > 0)
            weight = self.weight.to(p) * counts
            return divided((weight * (1 - dice)).sum(), weight.sum())
