"""Where the cells of a feature map lie in the network's input, so that a map can be laid over the image without a shift.

Stretching a map over the whole input is right only where the map covers just that. Unpadded convolutions see less of it, FCN's
padded first convolution sees more, and rounded-up pooling or sides of 16k + 1 leave a part of the last cell outside.
"""

from typing import NamedTuple


class CamGrid(NamedTuple):
    """Cell i of a row or column covers `start + i * stride` to `start + (i + 1) * stride` of the network's input.

    In pixels between edges: the input's first pixel covers 0 to 1. `start` is negative where a map reaches beyond the input.
    """

    stride: float
    start: float
