"""DeepLab v3+ (Chen, Zhu, Papandreou, Schroff, Adam 2018): https://arxiv.org/abs/1802.02611

A dilated trunk with features at stride 16 (or 8); atrous spatial pyramid pooling with a whole-image branch, 256 channels;
a decoder that enlarges this to stride 4, adds the trunk's low-level features, reduced to 48 channels, and refines both by two 3x3
separable convolutions; a 1x1 convolution gives the logits *at stride 4*. 41,055,413 parameters with Xception-65 and 21 classes.

This follows the authors' TensorFlow code: batch normalisation and ReLU after *both* halves of each separable convolution of the
heads, two decoder convolutions, rates 6, 12, 18 at stride 16 and twice those at stride 8 (popular re-implementations differ in each
of the three), dropout 0.1 after the pyramid. All resizing aligns corners, which is exact for sides of 16k + 1 (8k + 1 at stride 8).

With a ResNet trunk the paper's last stage has the multi-grid (1, 2, 4) of DeepLab v3. ResNet-18 is ours, for small machines.
`width` scales the trunk and `head` the pyramid and the decoder. The authors average batch statistics over thousands of steps
(decay 0.9997), right for a trunk from ImageNet and useless for short training from scratch; here the decay is 0.9.
"""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options, separable
from segpipe.architectures.blocks.aspp import ASPP, RATES
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pretrained import load_resnet, load_xception65
from segpipe.architectures.blocks.resnet import DEPTHS, ResNet
from segpipe.architectures.blocks.separable import SeparableConv, conv_bn_relu
from segpipe.architectures.blocks.xception import Xception65

SOURCE = {
    "title": "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
    "authors": "Chen, Zhu, Papandreou, Schroff, Adam",
    "year": 2018,
    "venue": "ECCV",
    "arxiv": "1802.02611",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
RULES = {stride: InputRule(multiple=stride, offset=1, minimum=stride + 1, aligned=True) for stride in RATES}
INPUT_RULE = RULES[16]
TINY = {"trunk": "resnet18", "width": 8, "head": 16}

TRUNKS = ("xception65", *reversed(DEPTHS))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "xception65",
    output_stride: int = 16,
    width: int = 64,
    head: int = 256,
    weights: str | None = None,
) -> "DeepLabV3Plus":
    """DeepLab v3+; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `xception65`, `resnet101`, `resnet50` or `resnet18`.
        output_stride: 16 or 8, of the features that enter the pyramid.
        width: of the trunk; 64 is the paper's.
        head: channels of the pyramid and the decoder; the reduced low-level features have 48/256 of it.
        weights: of the trunk: None, `imagenet` (ResNets), or a .safetensors file for it (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.one_of(output_stride, RATES, name="output_stride")
    options.positive(width, name="width")
    options.positive(head, name="head")
    model = DeepLabV3Plus(num_classes, in_channels, trunk, output_stride, width, head)
    if trunk == "xception65":
        load_xception65(model.trunk, weights)
    else:
        load_resnet(model.trunk, weights, name=trunk)
    return model


def cam_layers(model: "DeepLabV3Plus") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the pyramid, the trunk's last stages, the decoder."""
    return {"aspp": model.aspp.project, **model.trunk.cam_layers(), "decoder": model.decoder}


def cam_grid(model: "DeepLabV3Plus") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    strides = {name: 4 if name == "decoder" else model.output_stride for name in cam_layers(model)}
    return {name: CamGrid(stride, 0.5 - stride / 2) for name, stride in strides.items()}


class DeepLabV3Plus(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)} with h = (H + 3) // 4 and w = (W + 3) // 4."""

    def __init__(self, num_classes: int, in_channels: int, trunk: str, output_stride: int, width: int, head: int) -> None:
        super().__init__()
        self.input_rule = RULES[output_stride]
        self.output_stride = output_stride
        self.trunk: Xception65 | ResNet
        if trunk == "xception65":
            self.trunk = Xception65(in_channels=in_channels, output_stride=output_stride, width=width)
        else:
            self.trunk = ResNet(name=trunk, in_channels=in_channels, output_stride=output_stride, width=width)
        reduced = max(1, round(head * 48 / 256))
        self.aspp = ASPP(self.trunk.deep_channels, head, rates=RATES[output_stride], separable=True)
        self.reduce = conv_bn_relu(self.trunk.low_channels, reduced, 1)
        self.decoder = nn.Sequential(SeparableConv(head + reduced, head, relu=True), SeparableConv(head, head, relu=True))
        self.classifier = nn.Conv2d(head, num_classes, 1)
        for module in (self.aspp, self.reduce, self.decoder):
            module.apply(separable.initialise)
        nn.init.trunc_normal_(self.classifier.weight, std=0.01, a=-0.02, b=0.02)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        low, deep = self.trunk(x)
        low = self.reduce(low)
        deep = F.interpolate(self.aspp(deep), size=low.shape[-2:], mode="bilinear", align_corners=True)
        return {"out": self.classifier(self.decoder(torch.cat([deep, low], dim=1)))}
