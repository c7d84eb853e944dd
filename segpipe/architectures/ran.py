"""RAN, the reverse attention network (Huang, Xia, Wu, Li, Wang, Song, Kuo 2017): https://arxiv.org/abs/1707.06426

DeepLab v2 with a large field of view (ResNet-101 at stride 8, or VGG16 with fc6 and fc7), and two layers of scores where that has
one. The original ones F say what each pixel is. The reverse ones R learn what it is *not*: their sign is flipped before the
softmax, so that the same labels push R down at the true class. The prediction is S = F - A * R, for each class and pixel, where the
reverse attention A is large where F is unsure: sigmoid(-F), or with `attention="n"` sigmoid(1 / (relu(F) + 0.125) - 4).

In training there are three outputs and each has a loss: S, F and -R. Only S is the prediction. 43,274,346 parameters with
ResNet-101 and 21 classes. The logits are at stride 8.

Traps, all of sign: -R goes to the softmax, R to the subtraction; A weighs R and not F, and is made of F before any softmax;
gradients flow through A. The authors published no code. That both layers of scores are shaped like the one of DeepLab-LargeFOV (3x3
with dilation 12 on the ResNet, 1x1 on VGG16's fc7) is our reading. Other networks are called "reverse attention" that are not
this one: RAS (arXiv 1807.09940) and PraNet (arXiv 2006.11392).

The trunk is DeepLab v2's (`deeplabv2.py` says what is special there). ResNet-18 is ours, for small machines.
"""

from typing import Any

import torch
from torch import nn

from segpipe.architectures.blocks import caffe_rates, frozen_norm, options, pretrained
from segpipe.architectures.blocks.caffe_resnet import CaffeResNet
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.dilated_vgg import DilatedVGG, fc6_fc7, score
from segpipe.architectures.blocks.input_rule import InputRule

SOURCE = {
    "title": "Semantic Segmentation with Reverse Attention",
    "authors": "Huang, Xia, Wu, Li, Wang, Song, Kuo",
    "year": 2017,
    "venue": "BMVC",
    "arxiv": "1707.06426",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "original": 1.0, "reverse": 1.0}
INPUT_RULE = InputRule(multiple=8, offset=1, minimum=9)
TINY = {"trunk": "resnet18", "width": 8}

TRUNKS = ("resnet101", "vgg16", "resnet18")
ATTENTION = ("sigmoid", "n")
RATE = 12
STRIDE = 8


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet101",
    attention: str = "sigmoid",
    width: int = 64,
    freeze_norm: bool = False,
    weights: str | None = None,
) -> "RAN":
    """RAN; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet101`, `vgg16` or `resnet18`.
        attention: how the original scores become the reverse attention: `sigmoid` (the paper's RAN-s) or `n` (RAN-n).
        width: of the trunk, 64 is the paper's; VGG16's fc6 and fc7 have 16 times as many channels.
        freeze_norm: batch normalisation keeps its loaded statistics, scales and shifts, as in DeepLab v2.
        weights: of the trunk, and of fc6 and fc7: None, `imagenet` or the path of a .safetensors file (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.one_of(attention, ATTENTION, name="attention")
    options.positive(width, name="width")
    options.flag(freeze_norm, name="freeze_norm")
    return RAN(num_classes, in_channels, trunk, attention, width, freeze_norm, weights)


def cam_layers(model: "RAN") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): VGG16's fc7 and fc6, and the last stages of the trunk."""
    fully_connected = {"fc7": model.head[1], "fc6": model.head[0]} if len(model.head) else {}
    return {**fully_connected, **model.trunk.cam_layers()}


def cam_grid(model: "RAN") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(STRIDE, 0.5 - STRIDE / 2) for name in cam_layers(model)}


def param_groups(model: "RAN") -> list[dict[str, Any]]:
    """DeepLab v2's rates: 10 for the layers that give scores, twice as much for biases."""
    return caffe_rates.param_groups(model, new=[model.original, model.reverse])


def reverse_attention(original: torch.Tensor, *, kind: str) -> torch.Tensor:
    """The weight of the reverse scores, in 0..1, from the original ones: of the same shape, element by element.

    `sigmoid` is over one half exactly where the original score is negative; `n` is nearly 1 there, and falls off faster.
    """
    if kind == "sigmoid":
        return torch.sigmoid(-original)
    return torch.sigmoid(1 / (torch.relu(original) + 0.125) - 4)


class RAN(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)} at stride 8; sides of 8k + 1 become k + 1.

    In training also "original", the scores F, and "reverse", the negated reverse scores -R.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        trunk: str,
        attention: str,
        width: int,
        freeze_norm: bool,
        weights: str | None,
    ) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.attention = attention
        self.freeze_norm = freeze_norm
        self.trunk: CaffeResNet | DilatedVGG
        if trunk == "vgg16":
            self.trunk = DilatedVGG(in_channels=in_channels, width=width)
            fc6, fc7 = fc6_fc7(self.trunk.deep_channels, 16 * width, rate=RATE)
            self.head = nn.Sequential(fc6, fc7)
            channels, kernel, rate = 16 * width, 1, 1
            pretrained.load_vgg16(self.trunk, weights, fc6=fc6, fc7=fc7)
        else:
            self.trunk = CaffeResNet(name=trunk, in_channels=in_channels, width=width)
            self.head = nn.Sequential()
            channels, kernel, rate = self.trunk.deep_channels, 3, RATE
            pretrained.load_resnet(self.trunk, weights, name=trunk)
        self.original = score(channels, num_classes, kernel=kernel, rate=rate)
        self.reverse = score(channels, num_classes, kernel=kernel, rate=rate)
        self.train()

    def train(self, mode: bool = True) -> "RAN":
        super().train(mode)
        if self.freeze_norm:
            frozen_norm.freeze(self)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        deep = self.trunk(x)
        features = self.head(deep[1] if isinstance(deep, tuple) else deep)
        original, reverse = self.original(features), self.reverse(features)
        out = original - reverse_attention(original, kind=self.attention) * reverse
        return {"out": out, "original": original, "reverse": -reverse} if self.training else {"out": out}
