"""DeepLab v1, LargeFOV (Chen, Papandreou, Kokkinos, Murphy, Yuille 2014): https://arxiv.org/abs/1412.7062

VGG16 that keeps a stride of 8: the last two poolings do not stride, and the fifth stage has holes (dilation 2). fc6 is a 3x3
convolution with dilation 12 and 1024 channels, which spans 25 cells of 8 pixels, instead of VGG's 7x7 with 4096 channels; fc7 and
the scores are 1x1. 20,505,429 parameters for 21 classes. The logits are at stride 8; bilinear resizing that aligns corners, exact
for sides of 8k + 1, brings them to the image's size.

Traps: poolings are 3x3 with padding 1 and round up; after the fifth comes a 3x3 *average* pooling that counts the padding, which
DeepLab v2 dropped; holes are in the fifth stage and fc6 only. The authors train at stride 8, on every eighth pixel of the
labels; here the loss sees logits at the image's size, like that of every network.

The paper sharpens the result by a fully connected CRF at full resolution. That is no layer: `crf` says that this model wants it,
and evaluation does it. Scores start as N(0, 0.01), the rest from ImageNet's VGG16; without those weights by He's initialisation,
for which `norm="batch"`, ours and not the paper's, normalises after every convolution but the scores.
"""

from typing import Any

import torch
from torch import nn

from segpipe.architectures.blocks import caffe_rates, options, pretrained
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.dilated_vgg import DilatedVGG, fc6_fc7, score
from segpipe.architectures.blocks.input_rule import InputRule

SOURCE = {
    "title": "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs",
    "authors": "Chen, Papandreou, Kokkinos, Murphy, Yuille",
    "year": 2015,
    "venue": "ICLR",
    "arxiv": "1412.7062",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule(multiple=8, offset=1, minimum=9, aligned=True)
TINY = {"width": 4, "norm": "batch"}

RATE = 12


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    crf: bool = False,
    width: int = 64,
    fc: int | None = None,
    norm: str = "none",
    weights: str | None = None,
) -> "DeepLabV1":
    """DeepLab-LargeFOV on VGG16; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        crf: whether predictions are meant to be refined by the dense CRF; kept as `model.crf`, the network is the same.
        width: channels of VGG's first stage.
        fc: channels of fc6 and fc7; None takes 16 * width, the paper's 1024 at its own width.
        norm: `none` (the paper) or `batch`.
        weights: VGG16's for the trunk, fc6 and fc7: None, `imagenet` or the path of a .safetensors file (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.flag(crf, name="crf")
    options.positive(width, name="width")
    options.one_of(norm, ("none", "batch"), name="norm")
    if fc is not None:
        options.positive(fc, name="fc")
    return DeepLabV1(num_classes, in_channels, crf, width, fc or 16 * width, norm, weights)


def cam_layers(model: "DeepLabV1") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): fc7, then the last stages of the trunk."""
    return {"fc7": model.fc7, "fc6": model.fc6, **model.trunk.cam_layers()}


def cam_grid(model: "DeepLabV1") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(8, -3.5) for name in cam_layers(model)}


def param_groups(model: "DeepLabV1") -> list[dict[str, Any]]:
    """The paper's rates: 10 for the scores, twice as much for biases."""
    return caffe_rates.param_groups(model, new=[model.score])


class DeepLabV1(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)}; sides of 8k + 1 become k + 1, others (side + 14) // 8."""

    def __init__(self, num_classes: int, in_channels: int, crf: bool, width: int, fc: int, norm: str, weights: str | None) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.crf = crf
        self.trunk = DilatedVGG(in_channels=in_channels, width=width, norm=norm)
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)
        self.fc6, self.fc7 = fc6_fc7(self.trunk.deep_channels, fc, rate=RATE, norm=norm)
        self.score = score(fc, num_classes)
        pretrained.load_vgg16(self.trunk, weights, fc6=self.fc6, fc7=self.fc7)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.score(self.fc7(self.fc6(self.pool5a(self.trunk(x)))))}
