"""Mean IoU, the usual headline of semantic segmentation: on summed counts mIoU^D of Wang et al. 2023 (arXiv 2310.19252)."""

import numpy as np

from segpipe.metrics import iou
from segpipe.metrics._ratios import mean_of_defined

PER_CLASS = False


def compute(confusion: np.ndarray) -> np.ndarray:
    """Mean of the classes' IoU, (...); classes in neither truth nor prediction are left out, NaN if that leaves none."""
    return mean_of_defined(iou.compute(confusion))
