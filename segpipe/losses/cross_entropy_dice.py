"""Cross-entropy plus Dice, the loss of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z)."""

from torch import Tensor, nn

from segpipe.losses.blocks.cross_entropy import CrossEntropy
from segpipe.losses.blocks.dice import Dice


def build(
    *,
    num_classes: int,
    ignore_index: int = 255,
    weight: list[float] | None = None,
    dice_share: float = 1.0,
    squared: bool = False,
    smooth: float = 0.0,
    absent: str = "skip",
    background: bool = True,
) -> nn.Module:
    """Cross-entropy + `dice_share` * Dice; the formulas are in `cross_entropy.py` and `dice.py`, and so are the other options.

    The class weights go to the cross-entropy alone: Dice counts every class the same already.

    Raises:
        ValueError: an option is out of range.
    """
    if not dice_share >= 0:
        raise ValueError(f"dice_share: {dice_share!r} must be 0 or more")
    entropy = CrossEntropy(num_classes=num_classes, ignore_index=ignore_index, weight=weight)
    overlap = Dice(
        num_classes=num_classes,
        ignore_index=ignore_index,
        squared=squared,
        smooth=smooth,
        absent=absent,
        background=background,
    )
    return CrossEntropyDice(entropy, overlap, dice_share)


class CrossEntropyDice(nn.Module):
    """The sum of the two terms, see `build`."""

    def __init__(self, cross_entropy: CrossEntropy, dice: Dice, dice_share: float) -> None:
        super().__init__()
        self.cross_entropy, self.dice, self.dice_share = cross_entropy, dice, dice_share

    def forward(self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        entropy: Tensor = self.cross_entropy(logits, target, pixel_weight)
        overlap: Tensor = self.dice(logits, target, pixel_weight)
        return entropy + self.dice_share * overlap
