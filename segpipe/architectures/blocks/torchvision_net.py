"""What torchvision's FCN and DeepLab v3 share: its dilated ResNet at stride 8, two heads, and logits at the image's size.

The modules are torchvision's own, under its own names (`backbone.layer4.2.conv3`, `classifier.0`, `aux_classifier.4`), so that a
state dict of `torchvision.models.segmentation` fits. Where layer3 and layer4 stop striding, their first block keeps the dilation of
the stage before: 1, 2, 2, 2, 2, 2 and 2, 4, 4 with ResNet-50.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet

from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.resnet import DEPTHS

TRUNKS = ("resnet50", "resnet101")
STRIDE = 8
FULL_WIDTH = 64
RULE = InputRule(minimum=STRIDE + 1)
"""Any size; from 9 pixels on the features have more than one cell, without which one image cannot be normalised in training."""


class ScaledResNet(ResNet):
    """torchvision's ResNet for stride 8 with `width` where it has 64 channels, and for images of `in_channels`."""

    def __init__(self, *, name: str, in_channels: int, width: int) -> None:
        self.in_channels, self.width = in_channels, width
        super().__init__(Bottleneck, list(DEPTHS[name]), replace_stride_with_dilation=[False, True, True])

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if planes == FULL_WIDTH:  # the first stage: the stem before it has just been made, and nothing is initialised yet
            self.inplanes = self.width
            self.conv1 = nn.Conv2d(self.in_channels, self.width, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(self.width)
        return super()._make_layer(block, planes * self.width // FULL_WIDTH, *args, **kwargs)


class TorchvisionNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}; in training "aux" of the same shape too, where there is that head.

    `deep` and `middle`, the channels of layer4 and layer3, are what the heads get; `classifier` and `aux_classifier` are theirs.
    """

    def __init__(self, *, trunk: str, in_channels: int, width: int, aux: bool) -> None:
        super().__init__()
        self.input_rule = RULE
        layers = {"layer4": "out"} | ({"layer3": "aux"} if aux else {})
        self.backbone = IntermediateLayerGetter(ScaledResNet(name=trunk, in_channels=in_channels, width=width), layers)
        self.deep, self.middle = 32 * width, 16 * width
        self.classifier: nn.Module
        self.aux_classifier: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(x)
        coarse = {"out": self.classifier(features["out"])}
        if self.training and self.aux_classifier is not None:
            coarse["aux"] = self.aux_classifier(features["aux"])
        size = x.shape[-2:]
        return {name: F.interpolate(out, size=size, mode="bilinear", align_corners=False) for name, out in coarse.items()}

    def cam_layers(self) -> dict[str, nn.Module]:
        """The last stages of the trunk, deepest first."""
        return {"layer4": self.backbone["layer4"], "layer3": self.backbone["layer3"]}


def cam_grid(layers: dict[str, nn.Module]) -> dict[str, CamGrid]:
    """All layers are at stride 8, and the middle of the first cell is the middle of the first pixel."""
    return {name: CamGrid(STRIDE, 0.5 - STRIDE / 2) for name in layers}


def param_groups(model: TorchvisionNet) -> list[dict[str, Any]]:
    """The rates of torchvision's reference training: 10 for the auxiliary head, 1 for the rest."""
    aux = [] if model.aux_classifier is None else list(model.aux_classifier.parameters())
    fast = {id(parameter) for parameter in aux}
    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if id(p) not in fast], "lr_scale": 1.0}]
    return [*groups, {"params": aux, "lr_scale": 10.0}] if aux else groups
