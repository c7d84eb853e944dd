"""DeepLab v2 (Chen, Papandreou, Kokkinos, Murphy, Yuille 2016): https://arxiv.org/abs/1606.00915

A trunk at stride 8 (ResNet-101, or VGG16 as in v1) and atrous spatial pyramid pooling in its first form: four 3x3 convolutions
with dilations 6, 12, 18 and 24 look at the same features, each gives logits, and these are *summed*. On VGG16 each branch has its
own fc6, fc7 and scores. 44,048,532 parameters with ResNet-101 and 21 classes, 37,877,652 with VGG16.

`multi_scale` runs the same network on the image at 1, 0.75 and 0.5 of its size and takes the maximum of the three logits, element
by element; in training each scale's own logits are outputs too, each with a loss. The logits are at stride 8.

Traps: this pyramid has no 1x1 and no whole-image branch, no batch normalisation and no shared projection (those came with v3); the
ResNet has its strides on the first 1x1 convolutions, dilation in the first block of a stage too, and a pooling that rounds up
(`blocks/caffe_resnet.py`); VGG16 lacks the average pooling of v1. The authors' Caffe files resize with aligned corners, which fits
sides of 32k + 1 exactly; the PyTorch re-implementation that reaches their numbers does not. The default is the latter.

The paper fine-tunes ResNet-101 with its batch normalisation frozen: `freeze_norm`, for a trunk that was trained before.
ResNet-50 and ResNet-18 are ours, for small machines.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import caffe_rates, frozen_norm, options, pretrained
from segpipe.architectures.blocks.caffe_resnet import CaffeResNet
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.dilated_vgg import DilatedVGG, fc6_fc7, score
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.resnet import DEPTHS

SOURCE = {
    "title": "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs",
    "authors": "Chen, Papandreou, Kokkinos, Murphy, Yuille",
    "year": 2018,
    "venue": "IEEE TPAMI",
    "arxiv": "1606.00915",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "scale100": 1.0, "scale75": 1.0, "scale50": 1.0}
INPUT_RULE = InputRule(multiple=8, offset=1, minimum=9, aligned=True)
# Half of it must leave more than one cell to normalise over; with corners aligned, all three scales fit 32k + 1.
MULTI_SCALE_RULES = {
    False: InputRule(multiple=8, offset=1, minimum=33, aligned=True),
    True: InputRule(multiple=32, offset=1, minimum=33, aligned=True),
}
TINY = {"trunk": "resnet18", "width": 8, "multi_scale": True}

TRUNKS = ("resnet101", "vgg16", "resnet50", "resnet18")
RATES = {"aspp": (6, 12, 18, 24), "aspp-s": (2, 4, 8, 12), "largefov": (12,)}
SCALES = {"scale75": (3, 4), "scale50": (1, 2)}


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet101",
    head: str = "aspp",
    multi_scale: bool = False,
    align_corners: bool = False,
    width: int = 64,
    freeze_norm: bool = False,
    weights: str | None = None,
) -> "DeepLabV2":
    """DeepLab v2; the defaults are the paper's single-scale network.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet101`, `vgg16`, `resnet50` or `resnet18`.
        head: `aspp` (rates 6, 12, 18, 24; the paper's ASPP-L), `aspp-s` (2, 4, 8, 12) or `largefov` (12 alone).
        multi_scale: the maximum over the image at 1, 0.75 and 0.5 of its size.
        align_corners: how these images and their logits are resized: False, or True as in the authors' Caffe files.
        width: of the trunk, 64 is the paper's; VGG16's fc6 and fc7 have 16 times as many channels.
        freeze_norm: batch normalisation keeps its loaded statistics, scales and shifts.
        weights: of the trunk, of VGG16 with fc6 and fc7: None, `imagenet` or the path of a .safetensors file
            (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.one_of(head, RATES, name="head")
    options.flag(multi_scale, name="multi_scale")
    options.flag(align_corners, name="align_corners")
    options.positive(width, name="width")
    options.flag(freeze_norm, name="freeze_norm")
    return DeepLabV2(num_classes, in_channels, trunk, head, multi_scale, align_corners, width, freeze_norm, weights)


def cam_layers(model: "DeepLabV2") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the last stages of the trunk.

    With `multi_scale` the trunk runs three times, and the one layer is what it answers for the image at full size.
    """
    return {"features": model.features} if model.multi_scale else model.trunk.cam_layers()


def cam_grid(model: "DeepLabV2") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(8, -3.5) for name in cam_layers(model)}


def param_groups(model: "DeepLabV2") -> list[dict[str, Any]]:
    """The paper's rates: 10 for the layers that give logits, twice as much for biases."""
    branches = list(model.head)
    return caffe_rates.param_groups(model, new=[b[-1] if isinstance(b, nn.Sequential) else b for b in branches])


class Sum(nn.ModuleList):
    """The sum of what its modules answer for the same input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = self
        total: torch.Tensor = first(x)
        for other in others:
            total = total + other(x)
        return total


class DeepLabV2(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)}; sides of 8k + 1 become k + 1.

    In training, `multi_scale` adds "scale100" of the same size, and "scale75" and "scale50", smaller by these factors.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        trunk: str,
        head: str,
        multi_scale: bool,
        align_corners: bool,
        width: int,
        freeze_norm: bool,
        weights: str | None,
    ) -> None:
        super().__init__()
        self.input_rule = MULTI_SCALE_RULES[align_corners] if multi_scale else INPUT_RULE
        self.multi_scale = multi_scale
        self.align_corners = align_corners
        self.freeze_norm = freeze_norm
        self.trunk: CaffeResNet | DilatedVGG
        if trunk in DEPTHS:
            self.trunk = CaffeResNet(name=trunk, in_channels=in_channels, width=width)
            deep = self.trunk.deep_channels
            self.head = Sum(score(deep, num_classes, kernel=3, rate=rate) for rate in RATES[head])
            pretrained.load_resnet(self.trunk, weights, name=trunk)
        else:
            self.trunk = DilatedVGG(in_channels=in_channels, width=width)
            deep, fc = self.trunk.deep_channels, 16 * width
            pairs = [fc6_fc7(deep, fc, rate=rate) for rate in RATES[head]]
            self.head = Sum(nn.Sequential(*pair, score(fc, num_classes)) for pair in pairs)
            pretrained.load_vgg16(self.trunk, weights, fc6=[fc6 for fc6, _ in pairs], fc7=[fc7 for _, fc7 in pairs])
        self.features = nn.Identity()
        self.train()

    def train(self, mode: bool = True) -> "DeepLabV2":
        super().train(mode)
        if self.freeze_norm:
            frozen_norm.freeze(self)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        full = self.head(self.features(self._deep(x)))
        if not self.multi_scale:
            return {"out": full}
        outputs = {"scale100": full}
        best = full
        for name, scale in SCALES.items():
            outputs[name] = self.head(self._deep(self._shrunk(x, *scale)))
            enlarged = F.interpolate(outputs[name], size=full.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            best = torch.maximum(best, enlarged)
        return {"out": best, **outputs} if self.training else {"out": best}

    def _deep(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.trunk(x)
        return deep[1] if isinstance(deep, tuple) else deep

    def _shrunk(self, x: torch.Tensor, part: int, whole: int) -> torch.Tensor:
        """x at s = part / whole of its size: sides of n become s * n, or s * (n - 1) + 1 if corners align, rounded down."""
        if self.align_corners:
            size = [(side - 1) * part // whole + 1 for side in x.shape[-2:]]
            return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        # Not by `size`: where the side is no multiple of `whole`, that would also change the distance between samples.
        return F.interpolate(x, scale_factor=part / whole, mode="bilinear", align_corners=False)
