"""Semantic FPN (Kirillov, Girshick, He, Dollar 2019): https://arxiv.org/abs/1901.02446, on Lin et al. 2016: arXiv 1612.03144

A ResNet and its feature pyramid: 1x1 convolutions bring the four stages (strides 4 to 32) to 256 channels, each level receives the
coarser one, enlarged by taking the nearest cell, and a 3x3 convolution follows, p2 to p5. The head brings every level to stride 4:
p5 by three, p4 by two and p3 by one step of 3x3 convolution to 128 channels, group normalisation, ReLU and bilinear upsampling by
2, p2 by one such convolution alone. The four are *summed*, a 1x1 convolution gives the logits, and these are enlarged by 4.
28,478,933 parameters with ResNet-50 and 21 classes.

This follows the authors' detectron2. Traps: what goes on to the finer level is the sum *before* the 3x3 output convolution;
segmentation_models_pytorch's `FPN` has no output convolutions at all, and drops out; there are 32 groups and no bias before them;
there is no sixth level, which only detection needs. Sides must be multiples of 32.

Strides of bottlenecks are on the 3x3 convolution, as in torchvision, whose weights the trunk takes. The authors freeze its batch
normalisation: `freeze_norm`, for a trunk that was trained before. ResNet-18 is ours, for small machines; `pyramid` and `head`
narrow the rest.
"""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import frozen_norm, options, pretrained
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.resnet import ResNet

SOURCE = {
    "title": "Panoptic Feature Pyramid Networks",
    "authors": "Kirillov, Girshick, He, Dollar",
    "year": 2019,
    "venue": "CVPR",
    "arxiv": "1901.02446",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
# 64, so that the coarsest level has more than one cell to normalise over.
INPUT_RULE = InputRule(multiple=32, minimum=64)
TINY = {"trunk": "resnet18", "width": 8, "pyramid": 16, "head": 16}

TRUNKS = ("resnet50", "resnet101", "resnet18")
LEVELS = (2, 3, 4, 5)
GROUP = 4
"""Channels that group normalisation takes together: 32 groups at 128 channels."""


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet50",
    width: int = 64,
    pyramid: int = 256,
    head: int = 128,
    freeze_norm: bool = False,
    weights: str | None = None,
) -> "FPN":
    """Semantic FPN; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet50`, `resnet101` or `resnet18`.
        width: of the trunk; 64 is the paper's.
        pyramid: channels of the levels p2 to p5.
        head: channels of the head, a multiple of 4.
        freeze_norm: the trunk's batch normalisation keeps its loaded statistics, scales and shifts.
        weights: of the trunk: None, `imagenet` or the path of a .safetensors file (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.positive(width, name="width")
    options.positive(pyramid, name="pyramid")
    options.positive(head, name="head")
    options.flag(freeze_norm, name="freeze_norm")
    if head % GROUP:
        raise ValueError(f"head: {head} must be a multiple of {GROUP}, the channels that are normalised together")
    return FPN(num_classes, in_channels, trunk, width, pyramid, head, freeze_norm, weights)


def cam_layers(model: "FPN") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the trunk's last stage, which all levels see, p5, and the stage before.

    Finer levels are sums of maps that are not centred on the same pixels, and have no grid of their own.
    """
    layer4, layer3 = model.trunk.layer4, model.trunk.layer3
    return {"layer4": layer4, "p5": model.outputs[-1], "layer3": layer3}


def cam_grid(model: "FPN") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(stride, 0.5 - stride / 2) for name, stride in (("layer4", 32), ("p5", 32), ("layer3", 16))}


class FPN(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        trunk: str,
        width: int,
        pyramid: int,
        head: int,
        freeze_norm: bool,
        weights: str | None,
    ) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.freeze_norm = freeze_norm
        self.trunk = ResNet(name=trunk, in_channels=in_channels, output_stride=32, width=width)
        pretrained.load_resnet(self.trunk, weights, name=trunk)
        stages = [self.trunk.low_channels * 2**index for index in range(len(LEVELS))]
        self.laterals = nn.ModuleList(nn.Conv2d(channels, pyramid, 1) for channels in stages)
        self.outputs = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in LEVELS)
        self.scales = nn.ModuleList(_to_stride_4(pyramid, head, level=level) for level in LEVELS)
        self.classifier = nn.Conv2d(head, num_classes, 1)
        self.laterals.apply(_initialise_pyramid)
        self.outputs.apply(_initialise_pyramid)
        self.scales.apply(_initialise_head)
        self.classifier.apply(_initialise_head)
        self.train()

    def train(self, mode: bool = True) -> "FPN":
        super().train(mode)
        if self.freeze_norm:
            frozen_norm.freeze(self)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        trunk = self.trunk
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        laterals = []
        for stage, lateral in zip((trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4), self.laterals, strict=True):
            x = stage(x)
            laterals.append(lateral(x))
        total, coarser = None, None
        for lateral, output, scale in reversed(list(zip(laterals, self.outputs, self.scales, strict=True))):
            if coarser is not None:
                lateral = lateral + F.interpolate(coarser, scale_factor=2.0, mode="nearest")
            at_stride_4 = scale(output(lateral))
            total = at_stride_4 if total is None else total + at_stride_4
            coarser = lateral
        logits = self.classifier(total)
        return {"out": F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)}


def _to_stride_4(in_channels: int, channels: int, *, level: int) -> nn.Sequential:
    """One convolution for p2, and for each level above it one more step that doubles the resolution."""
    layers: list[nn.Module] = []
    for step in range(max(1, level - LEVELS[0])):
        layers += [
            nn.Conv2d(channels if step else in_channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // GROUP, channels),
            nn.ReLU(inplace=True),
        ]
        if level > LEVELS[0]:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _initialise_pyramid(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=1)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _initialise_head(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
