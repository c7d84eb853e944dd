"""Cross-entropy over softmax, with class weights as torch defines the weighted mean."""

from torch import nn

from segpipe.losses.blocks.cross_entropy import CrossEntropy


def build(
    *, num_classes: int, ignore_index: int = 255, weight: list[float] | None = None, label_smoothing: float = 0.0
) -> nn.Module:
    """Cross-entropy: (sum of w_y * u * L) / (sum of w_y * u), L = -log p_y; w_y is the class weight, u the pixel weight.

    Args:
        num_classes: K.
        ignore_index: target label that does not count.
        weight: K class weights, 0 or more; None weighs all the same.
        label_smoothing: e in 0..1; L becomes (1 - e) * -log p_y + e * (mean over classes of -log p), with the weight of the
            true class (Szegedy et al. 2016, arXiv 1512.00567).

    Raises:
        ValueError: an option is out of range.
    """
    return CrossEntropy(num_classes=num_classes, ignore_index=ignore_index, weight=weight, label_smoothing=label_smoothing)
