"""DeepLab v3 (Chen, Papandreou, Schroff, Adam 2017): https://arxiv.org/abs/1706.05587

A ResNet with features at stride 16 (or 8), whose last stage multiplies its dilation by a multi-grid of (1, 2, 4), and atrous
spatial pyramid pooling in its second form: a 1x1 convolution, three dilated 3x3 and a whole-image branch, 256 channels each, all
with batch normalisation and ReLU; concatenated, mixed by a 1x1 convolution, and a 1x1 convolution gives the logits. 58,040,661
parameters with ResNet-101 and 21 classes. The logits are at the features' stride; bilinear resizing that aligns corners, exact for
sides of 16k + 1 (8k + 1 at stride 8), brings them to the image's size, where the paper computes the loss.

Rates are 6, 12, 18 at stride 16 and twice those at stride 8; the last stage has dilations 2, 4, 8 and 4, 8, 16. The parameters are
the same, so that a network trained at stride 16 evaluates at stride 8.

This is not torchvision's `deeplabv3_resnet101`: that one has no multi-grid, gives the first block of a dilated stage the rate of
the stage before, is at stride 8, has one more 3x3 convolution before its logits (590,336 parameters) and dropout 0.5, not 0.1.

The authors' TensorFlow ResNet has a deep stem and its strides in the last block of a stage; ours has the paper's 7x7 stem and
torchvision's strides, and takes its weights. ResNet-18 is ours, for small machines. Batch statistics are averaged with a decay of
0.9, theirs with 0.9997 (`deeplabv3plus.py` says why). `freeze_norm` is for the second half of the paper's training, at stride 8.
"""

from collections.abc import Sequence

import torch
from torch import nn

from segpipe.architectures.blocks import frozen_norm, options, pretrained, separable
from segpipe.architectures.blocks.aspp import ASPP, RATES
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.resnet import DEPTHS, MULTI_GRID, ResNet

SOURCE = {
    "title": "Rethinking Atrous Convolution for Semantic Image Segmentation",
    "authors": "Chen, Papandreou, Schroff, Adam",
    "year": 2017,
    "venue": "arXiv",
    "arxiv": "1706.05587",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
RULES = {stride: InputRule(multiple=stride, offset=1, minimum=stride + 1, aligned=True) for stride in RATES}
INPUT_RULE = RULES[16]
TINY = {"trunk": "resnet18", "output_stride": 8, "width": 8, "head": 16}

TRUNKS = tuple(reversed(DEPTHS))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet101",
    output_stride: int = 16,
    multi_grid: Sequence[int] = MULTI_GRID,
    width: int = 64,
    head: int = 256,
    freeze_norm: bool = False,
    weights: str | None = None,
) -> "DeepLabV3":
    """DeepLab v3; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet101`, `resnet50` or `resnet18`.
        output_stride: 16 or 8, of the features that enter the pyramid.
        multi_grid: factors of the dilation in the blocks of the last stage, one after the other.
        width: of the trunk; 64 is the paper's.
        head: channels of the pyramid.
        freeze_norm: batch normalisation keeps its loaded statistics, scales and shifts.
        weights: of the trunk: None, `imagenet` or the path of a .safetensors file (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.one_of(output_stride, RATES, name="output_stride")
    if isinstance(multi_grid, str) or not isinstance(multi_grid, Sequence) or not multi_grid:
        raise ValueError(f"multi_grid: {multi_grid!r} must be a list of whole numbers, like {list(MULTI_GRID)}")
    for factor in multi_grid:
        options.positive(factor, name="multi_grid")
    options.positive(width, name="width")
    options.positive(head, name="head")
    options.flag(freeze_norm, name="freeze_norm")
    return DeepLabV3(num_classes, in_channels, trunk, output_stride, multi_grid, width, head, freeze_norm, weights)


def cam_layers(model: "DeepLabV3") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the pyramid, the trunk's last stages."""
    return {"aspp": model.aspp.project, **model.trunk.cam_layers()}


def cam_grid(model: "DeepLabV3") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(model.output_stride, 0.5 - model.output_stride / 2) for name in cam_layers(model)}


class DeepLabV3(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)}: H and W divided by the output stride, rounded up."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        trunk: str,
        output_stride: int,
        multi_grid: Sequence[int],
        width: int,
        head: int,
        freeze_norm: bool,
        weights: str | None,
    ) -> None:
        super().__init__()
        self.input_rule = RULES[output_stride]
        self.output_stride = output_stride
        self.freeze_norm = freeze_norm
        self.trunk = ResNet(name=trunk, in_channels=in_channels, output_stride=output_stride, width=width, multi_grid=multi_grid)
        self.aspp = ASPP(self.trunk.deep_channels, head, rates=RATES[output_stride], separable=False)
        self.aspp.apply(separable.initialise)
        self.classifier = nn.Conv2d(head, num_classes, 1)
        nn.init.trunc_normal_(self.classifier.weight, std=0.01, a=-0.02, b=0.02)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)
        pretrained.load_resnet(self.trunk, weights, name=trunk)
        self.train()

    def train(self, mode: bool = True) -> "DeepLabV3":
        super().train(mode)
        if self.freeze_norm:
            frozen_norm.freeze(self)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        _, deep = self.trunk(x)
        return {"out": self.classifier(self.aspp(deep))}
