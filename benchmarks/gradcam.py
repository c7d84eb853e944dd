"""Grad-CAM of several targets per image against pytorch-grad-cam, same maps: `python -m benchmarks.gradcam`. The target is 3.

Four maps per image, as the failure analysis needs them: the true and the predicted class over an error region, and the same over
its matched correct region. On torchvision's DeepLabv3-ResNet50 (random weights), 256 x 256, layer4, which is the claim; and on
this library's U-Net, 480 x 352, bottleneck, where a small region's gradient is zero over most of the image. The peer runs as its
documentation shows, one call per map. Each takes turns with the other, image by image, so that a busy machine slows both;
the ratio is that of the medians. A forward pass alone stands beside them.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from segpipe.architectures import unet
from segpipe.failures.gradcam import Target, class_activation

IMAGES = 3
CLASSES = (3, 7)
TARGET = 3.0


class OnlyLogits(nn.Module):
    """The peer wants a tensor, not a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)["out"]


def forward(model: nn.Module, layer: nn.Module, x: Tensor, masks: list[np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return model(x)["out"].numpy()


def ours(model: nn.Module, layer: nn.Module, x: Tensor, masks: list[np.ndarray]) -> np.ndarray:
    targets = [Target(class_index=c, weights=mask) for mask in masks for c in CLASSES]
    return class_activation(model, x, layers={"layer": layer}, targets=targets).layers["layer"].gradcam


def theirs(model: nn.Module, layer: nn.Module, x: Tensor, masks: list[np.ndarray]) -> np.ndarray:
    with GradCAM(model=OnlyLogits(model), target_layers=[layer]) as cam:
        return np.stack([cam(input_tensor=x, targets=[SemanticSegmentationTarget(c, mask)])[0] for mask in masks for c in CLASSES])


def as_theirs(raw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Our raw map (h, w) through the peer's ReLU, min-max, resize, min-max."""
    scaled = _min_max(np.maximum(raw, 0))
    return _min_max(cv2.resize(scaled, (size[1], size[0])))


def _min_max(values: np.ndarray) -> np.ndarray:
    shifted = values - values.min()
    return shifted / (1e-7 + shifted.max())


def compare(name: str, model: nn.Module, layer: nn.Module, size: tuple[int, int]) -> float:
    """Print the times of one network and return the ratio."""
    # Random batch statistics of an untrained trunk would leave maps near zero; one batch sets them.
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, *size))
    model.eval()
    methods: dict[str, Callable[..., np.ndarray]] = {"forward": forward, "segpipe": ours, "pytorch-grad-cam": theirs}
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    worst, filled = 0.0, 0
    for number in range(IMAGES + 1):
        x = torch.randn(1, 3, *size)
        masks = [np.zeros(size, np.float32) for _ in range(2)]
        masks[0][60 + number : 130, 80 : 140 + number] = 1
        masks[1][150 + number : 200, 40:130] = 1
        found = {}
        for method, run in methods.items():
            start = time.perf_counter()
            found[method] = run(model, layer, x, masks)
            if number:  # the first image warms all up
                seconds[method].append(time.perf_counter() - start)
        scaled = np.stack([as_theirs(raw, size) for raw in found["segpipe"]])
        worst = max(worst, float(np.abs(scaled - found["pytorch-grad-cam"]).max()))
        filled += sum(int(raw.max() > 0) for raw in found["segpipe"])
    assert filled, "empty maps prove nothing"
    assert worst < 1e-4, f"the maps differ by {worst:.2e} of a scale of 0..1"
    medians = {method: float(np.median(values)) for method, values in seconds.items()}
    maps = 2 * len(CLASSES)
    print(f"{name}, {size[0]}x{size[1]}, {maps} maps an image, median of {IMAGES} images, {torch.get_num_threads()} threads")
    print(f"  a forward pass   {medians['forward']:6.2f} s")
    for method in ("segpipe", "pytorch-grad-cam"):
        print(f"  {method:16} {medians[method]:6.2f} s, {maps / medians[method]:.2f} maps/s")
    ratio = medians["pytorch-grad-cam"] / medians["segpipe"]
    print(f"  same maps: largest difference {worst:.1e} on a scale of 0..1; {ratio:.2f} times faster")
    return ratio


def main() -> None:
    torch.manual_seed(0)
    model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21)
    ratio = compare("DeepLabv3-ResNet50", model, model.backbone.layer4, (256, 256))
    small = unet.build(num_classes=12, padding="same", norm="batch", width=16)
    compare("U-Net of width 16", small, unet.cam_layers(small)["bottleneck"], (480, 352))
    print(f"ratio {ratio:.2f} on DeepLabv3 (target {TARGET:g})")


if __name__ == "__main__":
    main()
