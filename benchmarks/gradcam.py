"""Grad-CAM pairs against pytorch-grad-cam, same maps: `python -m benchmarks.gradcam`. Prints the ratio; the target is 2.

A pair is what the failure page needs: the maps of the true and of the predicted class over one region of one image, on
torchvision's DeepLabv3-ResNet50 (random weights), 256 x 256, layer4. The peer runs as its documentation shows, one call per map.
Each takes turns with the other, image by image, so that a busy machine slows both; the ratio is that of the medians.
"""

import time

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from segpipe.failures.gradcam import Target, class_activation

SIDE, IMAGES = 256, 3
TRUE, PREDICTED = 3, 7


class OnlyLogits(nn.Module):
    """The peer wants a tensor, not a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)["out"]


def ours(model: nn.Module, x: Tensor, mask: np.ndarray) -> np.ndarray:
    targets = [Target(class_index=c, weights=mask) for c in (TRUE, PREDICTED)]
    return class_activation(model, x, layers={"layer4": model.backbone.layer4}, targets=targets).layers["layer4"].gradcam


def theirs(model: nn.Module, x: Tensor, mask: np.ndarray) -> np.ndarray:
    with GradCAM(model=OnlyLogits(model), target_layers=[model.backbone.layer4]) as cam:
        maps = [cam(input_tensor=x, targets=[SemanticSegmentationTarget(c, mask)])[0] for c in (TRUE, PREDICTED)]
    return np.stack(maps)


def as_theirs(raw: np.ndarray) -> np.ndarray:
    """Our raw map (h, w) through the peer's ReLU, min-max, resize, min-max."""
    scaled = _min_max(np.maximum(raw, 0))
    return _min_max(cv2.resize(scaled, (SIDE, SIDE)))


def _min_max(values: np.ndarray) -> np.ndarray:
    shifted = values - values.min()
    return shifted / (1e-7 + shifted.max())


def main() -> None:
    torch.manual_seed(0)
    model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21).eval()
    # Random batch statistics of the untrained trunk would leave maps near zero; one batch sets them.
    calibration = torch.randn(4, 3, SIDE, SIDE)
    model.train()
    with torch.no_grad():
        model(calibration)
    model.eval()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    worst = 0.0
    for number in range(IMAGES + 1):
        x = torch.randn(1, 3, SIDE, SIDE)
        mask = np.zeros((SIDE, SIDE), np.float32)
        mask[60 + number : 130, 80 : 170 + number] = 1
        maps = {}
        for name, method in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            maps[name] = method(model, x, mask)
            if number:  # the first image warms both up
                seconds[name].append(time.perf_counter() - start)
        worst = max(worst, float(np.abs(np.stack([as_theirs(raw) for raw in maps["ours"]]) - maps["theirs"]).max()))
    assert worst < 1e-4, f"the maps differ by {worst:.2e} of a scale of 0..1"
    assert all(raw.max() > 0 for raw in maps["ours"]), "an empty map proves nothing"
    own, peer = (float(np.median(seconds[name])) for name in ("ours", "theirs"))
    print(f"pairs of maps at {SIDE}x{SIDE}, median of {IMAGES} images, {torch.get_num_threads()} threads")
    print(f"segpipe          {own:6.2f} s a pair")
    print(f"pytorch-grad-cam {peer:6.2f} s a pair")
    print(f"same maps: largest difference {worst:.1e} on a scale of 0..1")
    print(f"ratio {peer / own:.2f} times faster (target 2)")


if __name__ == "__main__":
    main()
