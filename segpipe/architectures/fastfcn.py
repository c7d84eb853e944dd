"""FastFCN (Wu, Zhang, Huang, Liang, Yu 2019): https://arxiv.org/abs/1903.11816

A ResNet with a deep stem and *no* dilation, so that its last features have stride 32; joint pyramid upsampling (JPU) makes of
layer2, layer3 and layer4 what a dilated trunk would give at stride 8, for less work; one of three heads reads it:

`encnet` (arXiv 1803.08904): context encoding with 32 codewords gates the channels and predicts which classes the image shows; that
    prediction has its own loss, "se". 47,346,015 parameters with ResNet-50 and 21 classes.
`psp`: PSPNet's pyramid pooling. `deeplabv3`: atrous spatial pyramid pooling at rates 12, 24, 36, and a further 3x3 convolution.

JPU: a 3x3 convolution to 512 channels for each of the three, enlargement to layer2's size, concatenation (deepest first), and four
separable convolutions with dilations 1, 2, 4, 8, batch normalised between their halves but rectified only at the end. In training
an auxiliary head reads layer3. Weights of the losses are the authors' options': 0.2 for "aux" and for "se".

All resizing aligns corners, which is exact for sides of 32k + 1; the authors train at 480 and accept maps that are up to 24 pixels
apart at the far border. ResNet-18 is ours, for small machines; `width` scales the trunk and with it JPU and heads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import deep_stem, options, separable
from segpipe.architectures.blocks.aspp import ASPP, RATES
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.deep_stem import DeepStemResNet
from segpipe.architectures.blocks.encoding import ContextEncoding, presence_loss
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pyramid_pooling import PyramidPooling, auxiliary_head
from segpipe.architectures.blocks.separable import SeparableConv, conv_bn_relu

SOURCE = {
    "title": "FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation",
    "authors": "Wu, Zhang, Huang, Liang, Yu",
    "year": 2019,
    "venue": "arXiv",
    "arxiv": "1903.11816",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "aux": 0.2, "se": 0.2}
INPUT_RULE = InputRule(multiple=32, offset=1, minimum=33)
TINY = {"trunk": "resnet18", "width": 8}

HEADS = ("encnet", "psp", "deeplabv3")
TRUNKS = ("resnet50", "resnet101", "resnet18")
DILATIONS = (1, 2, 4, 8)
DROPOUT = 0.1
PYRAMID_DROPOUT = 0.5


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    head: str = "encnet",
    trunk: str = "resnet50",
    width: int = 64,
    weights: str | None = None,
) -> "FastFCN":
    """FastFCN; the defaults are the paper's smaller network with its best head.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        head: `encnet`, `psp` or `deeplabv3`.
        trunk: `resnet50`, `resnet101` or `resnet18`.
        width: of the trunk; 64 is the paper's.
        weights: of the trunk: None, `imagenet` (not for ResNet-18), or a .safetensors file for it (`blocks/deep_stem.py`).

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(head, HEADS, name="head")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.positive(width, name="width")
    model = FastFCN(num_classes, in_channels, head, trunk, width)
    deep_stem.load(model.trunk, weights, name=trunk)
    return model


def loss_terms(
    outputs: Mapping[str, torch.Tensor], target: torch.Tensor, *, criterion: Callable[..., torch.Tensor], ignore_index: int
) -> dict[str, torch.Tensor]:
    """The semantic-encoding loss of "se", which is about whole images and takes the place of the pixel loss."""
    return {"se": presence_loss(outputs["se"], target, ignore_index=ignore_index)} if "se" in outputs else {}


def cam_layers(model: "FastFCN") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the trunk's last stages, JPU, the features before the classifier."""
    return {**model.trunk.cam_layers(), "jpu": model.jpu, "head": model.head.features}


def cam_grid(model: "FastFCN") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    strides = {"layer4": 32, "layer3": 16, "jpu": 8, "head": 8}
    return {name: CamGrid(strides[name], 0.5 - strides[name] / 2) for name in cam_layers(model)}


def param_groups(model: "FastFCN") -> list[dict[str, Any]]:
    """The authors' rates: 1 for the trunk, 10 for all that is beside it."""
    return deep_stem.param_groups(model, trunk=model.trunk)


class FastFCN(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}.

    In training also "aux" of the same size and, with the head `encnet`, "se" (N, num_classes, 1, 1): logits of which classes the
    image shows.
    """

    def __init__(self, num_classes: int, in_channels: int, head: str, trunk: str, width: int) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.trunk = DeepStemResNet(name=trunk, in_channels=in_channels, output_stride=32, width=width)
        _, *channels = self.trunk.channels
        self.jpu = JPU(channels)
        self.head = Head(head, self.jpu.channels, num_classes)
        self.aux = auxiliary_head(channels[1], num_classes, dropout=nn.Dropout2d(DROPOUT))
        for module in (self.jpu, self.head, self.aux):
            module.apply(separable.initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        size = x.shape[-2:]
        _, *features = self.trunk.stages(x)
        out, presence = self.head(self.jpu(features))
        outputs = {"out": _enlarge(out, size)}
        if self.training:
            outputs["aux"] = _enlarge(self.aux(features[1]), size)
            if presence is not None:
                outputs["se"] = presence
        return outputs


class JPU(nn.Module):
    """Features of strides 8, 16 and 32 -> (N, C, h, w) at stride 8, with C the channels of the deepest."""

    def __init__(self, in_channels: list[int]) -> None:
        super().__init__()
        inside = in_channels[-1] // len(DILATIONS)
        self.convs = nn.ModuleList(conv_bn_relu(channels, inside, 3) for channels in reversed(in_channels))
        self.branches = nn.ModuleList(
            nn.Sequential(SeparableConv(3 * inside, inside, relu=False, dilation=dilation), nn.ReLU(inplace=True))
            for dilation in DILATIONS
        )
        self.channels = len(DILATIONS) * inside

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        size = features[0].shape[-2:]
        maps = [_enlarge(conv(x), size) for conv, x in zip(self.convs, reversed(features), strict=True)]
        joined = torch.cat(maps, dim=1)
        return torch.cat([branch(joined) for branch in self.branches], dim=1)


class Head(nn.Module):
    """(N, C, h, w) -> (logits (N, num_classes, h, w), for `encnet` logits (N, num_classes, 1, 1) of presence, otherwise None)."""

    def __init__(self, name: str, channels: int, num_classes: int) -> None:
        super().__init__()
        self.features: nn.Sequential
        self.encoding: ContextEncoding | None = None
        inside = channels // 8 if name == "deeplabv3" else channels // 4
        if name == "encnet":
            self.features = conv_bn_relu(channels, inside, 1)
            self.encoding = ContextEncoding(inside, num_classes)
        elif name == "psp":
            pooling = PyramidPooling(channels)
            self.features = nn.Sequential(pooling, conv_bn_relu(pooling.channels, inside, 3))
        else:
            pyramid = ASPP(channels, inside, rates=RATES[8], separable=False)
            pyramid.add_module("dropout", nn.Dropout2d(PYRAMID_DROPOUT))
            self.features = nn.Sequential(pyramid, conv_bn_relu(inside, inside, 3))
        self.classifier = nn.Sequential(nn.Dropout2d(DROPOUT), nn.Conv2d(inside, num_classes, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, presence = self.features(x), None
        if self.encoding is not None:
            x, presence = self.encoding(x)
        return self.classifier(x), presence


def _enlarge(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
