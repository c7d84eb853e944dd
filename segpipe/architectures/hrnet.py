"""HRNetV2 (Sun, Zhao, Jiang et al. 2019): https://arxiv.org/abs/1904.04514, and Wang et al. 2019: https://arxiv.org/abs/1908.07919

High resolution is kept, not regained: after a stem to stride 4 a branch at stride 4 runs through the whole network, and each stage
adds one at half the resolution of the last, with C, 2C, 4C and 8C channels. A module is four basic blocks on each branch and a
fusion in which every branch receives all others: coarser ones by a 1x1 convolution and bilinear upsampling, finer ones by 3x3
convolutions with stride 2. The second to fourth stage have 1, 4 and 3 modules. The head enlarges all four branches to stride 4,
mixes their 15C channels by a 1x1 convolution and classifies: the logits are *at stride 4*. With C = 48 and 19 classes the network
has 65,859,379 parameters.

Traps: the fusion resizes bilinearly (the pose network of the same authors, and timm's, take the nearest cell: the same weights,
other features) and to the size of the receiving branch, not by a factor, which is what makes odd sizes work. ReLU comes after the
sum, not before it, and the last convolution of a way down has none. The authors train Cityscapes with `align_corners=False`.

Convolutions start as N(0, 0.001), as its public implementations do; all but the last two are followed by batch normalisation.
`blocks` and `stem` are ours, for small machines.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.resnet import BasicBlock, Bottleneck

SOURCE = {
    "title": "High-Resolution Representations for Labeling Pixels and Regions",
    "authors": "Sun, Zhao, Jiang, Cheng, Xiao, Liu, Mu, Wang, Liu, Wang",
    "year": 2019,
    "venue": "arXiv",
    "arxiv": "1904.04514",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
# 33 pixels leave the coarsest branch two cells a side, so that one image can be normalised. Aligned corners fit 32k + 1 exactly.
RULES = {False: InputRule(minimum=33), True: InputRule(multiple=32, offset=1, minimum=33)}
INPUT_RULE = RULES[False]
TINY = {"width": 4, "blocks": 1, "stem": 16, "align_corners": True}

MODULES = (1, 4, 3)
BRANCHES = len(MODULES) + 1


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 48,
    align_corners: bool = False,
    blocks: int = 4,
    stem: int = 64,
) -> "HRNet":
    """HRNetV2; the defaults are the paper's W48.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        width: C, the channels of the branch at stride 4; the paper has 48, 32 and 18.
        align_corners: how coarser branches are enlarged, in the fusions and in the head.
        blocks: blocks of the first stage, and of each branch in each module.
        stem: channels of the two convolutions before the first stage, which has four times as many.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.positive(width, name="width")
    options.flag(align_corners, name="align_corners")
    options.positive(blocks, name="blocks")
    options.positive(stem, name="stem")
    return HRNet(num_classes, in_channels, width, align_corners, blocks, stem)


def cam_layers(model: "HRNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the last fusion's branches, coarsest first, and the mixed head."""
    fusions = [module for module in model.modules() if isinstance(module, Fusion)][-BRANCHES:]
    return {**{f"branch{fusion.target + 1}": fusion for fusion in reversed(fusions)}, "head": model.head}


def cam_grid(model: "HRNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: with aligned corners the middle of the first is the middle of the first pixel.

    Without, convolutions and upsampling disagree by up to half a cell, and the network has to learn where things are. What it
    learns from is the logits, whose first cell stands for the first four pixels; coarser cells are centred on every nth of these.
    """
    strides = {name: 4 if name == "head" else 2 ** (int(name[-1]) + 1) for name in cam_layers(model)}
    return {name: CamGrid(stride, (0.5 if model.align_corners else 2.0) - stride / 2) for name, stride in strides.items()}


class Fusion(nn.Module):
    """All branches (N, C_i, h_i, w_i) -> one of them anew: the ReLU of the sum of all, brought to its channels and size."""

    def __init__(self, channels: Sequence[int], *, target: int, align_corners: bool) -> None:
        super().__init__()
        self.target = target
        self.align_corners = align_corners
        self.paths = nn.ModuleList(_path(channels, source=source, target=target) for source in range(len(channels)))

    def forward(self, branches: Sequence[torch.Tensor]) -> torch.Tensor:
        arrived = [path(branch) for path, branch in zip(self.paths, branches, strict=True)]
        total, *others = _at_size(arrived, branches[self.target], align_corners=self.align_corners)
        for other in others:
            total = total + other
        return F.relu(total)


class Module(nn.Module):
    """Basic blocks on each branch, then a fusion for each branch: shapes stay."""

    def __init__(self, channels: Sequence[int], *, blocks: int, align_corners: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_blocks(BasicBlock, c, c, blocks) for c in channels)
        self.fusions = nn.ModuleList(
            Fusion(channels, target=target, align_corners=align_corners) for target in range(len(channels))
        )

    def forward(self, branches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        branches = [layer(x) for layer, x in zip(self.branches, branches, strict=True)]
        return [fusion(branches) for fusion in self.fusions]


class HRNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, h, w)} with h = (H + 3) // 4 and w = (W + 3) // 4."""

    def __init__(self, num_classes: int, in_channels: int, width: int, align_corners: bool, blocks: int, stem: int) -> None:
        super().__init__()
        self.input_rule = RULES[align_corners]
        self.align_corners = align_corners
        channels = [width * 2**branch for branch in range(BRANCHES)]
        first = stem * Bottleneck.expansion
        self.stem = nn.Sequential(_conv3x3(in_channels, stem, stride=2), _conv3x3(stem, stem, stride=2))
        self.layer1 = _blocks(Bottleneck, stem, stem, blocks)
        self.start = _conv3x3(first, width, stride=1)
        self.downs = nn.ModuleList(
            _conv3x3(before, after, stride=2) for before, after in zip([first, *channels[1:-1]], channels[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Module(channels[: stage + 2], blocks=blocks, align_corners=align_corners) for _ in range(modules)))
            for stage, modules in enumerate(MODULES)
        )
        mixed = sum(channels)
        self.head = nn.Sequential(nn.Conv2d(mixed, mixed, 1), nn.BatchNorm2d(mixed), nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(mixed, num_classes, 1)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.layer1(self.stem(x))
        branches = [self.start(x)]
        for down, stage in zip(self.downs, self.stages, strict=True):
            # The first stage has one branch of another width: both of the second stage's start from it.
            branches = stage([*branches, down(x)])
            x = branches[-1]
        features = _at_size(branches, branches[0], align_corners=self.align_corners)
        return {"out": self.classifier(self.head(torch.cat(features, dim=1)))}


def _at_size(branches: Sequence[torch.Tensor], target: torch.Tensor, *, align_corners: bool) -> list[torch.Tensor]:
    size = target.shape[-2:]
    return [
        branch if branch.shape[-2:] == size else F.interpolate(branch, size=size, mode="bilinear", align_corners=align_corners)
        for branch in branches
    ]


def _path(channels: Sequence[int], *, source: int, target: int) -> nn.Module:
    """What brings one branch to the channels of another; a finer one also to its size."""
    before, after = channels[source], channels[target]
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
    steps: list[nn.Module] = [_conv3x3(before, before, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, _conv3x3(before, after, stride=2, relu=False))


def _conv3x3(in_channels: int, out_channels: int, *, stride: int, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _blocks(block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, number: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(number):
        layers.append(block(in_channels, channels, stride=1, dilation=1))
        in_channels = channels * block.expansion
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
