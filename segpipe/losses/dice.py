"""Soft Dice over softmax: one coefficient per class over the whole batch (Milletari et al. 2016, Sudre et al. 2017)."""

from torch import nn

from segpipe.losses.blocks.dice import Dice


def build(
    *,
    num_classes: int,
    ignore_index: int = 255,
    weight: list[float] | None = None,
    squared: bool = False,
    smooth: float = 0.0,
    absent: str = "skip",
    background: bool = True,
) -> nn.Module:
    """Dice loss: mean over classes of 1 - (2 sum u p g + s) / (sum u p + sum u g + s).

    p is the softmax, g the one-hot truth, u the pixel weight; the sums run over all pixels of the batch that count.

    Args:
        num_classes: K.
        ignore_index: target label that does not count, neither in g nor in p.
        weight: K class weights of the mean; None weighs all the same.
        squared: sum u p^2 in place of sum u p (V-Net, Milletari et al. 2016, arXiv 1606.04797).
        smooth: s, 0 or more.
        absent: what becomes of a class without any pixel in the batch's targets. `skip` leaves it out of the mean. `keep`
            leaves it in: at s = 0 it adds 1 whatever is predicted, and at s > 0 the less the less of it is predicted.
        background: False leaves class 0 out of the mean (nnU-Net, Isensee et al. 2021).

    Raises:
        ValueError: an option is out of range.
    """
    return Dice(
        num_classes=num_classes,
        ignore_index=ignore_index,
        weight=weight,
        squared=squared,
        smooth=smooth,
        absent=absent,
        background=background,
    )
