"""FC-DenseNet 56, 67 and 103, "the one hundred layers tiramisu" (Jegou et al. 2017): https://arxiv.org/abs/1611.09326

A U-Net of dense blocks. Each layer of a block sees the block's input and all layers before it, and adds `growth` new features:
batch normalisation, ReLU, 3x3 convolution, dropout 0.2. Down: a 3x3 convolution to 48 features, then five times a block and a
transition (the same with a 1x1 convolution, and a 2x2 max pooling). Up: a 3x3 transposed convolution with stride 2, the skip of
the same level, a block. A 1x1 convolution on the *whole* last stack gives the logits. The names count the convolutions; 103 has
blocks of 4, 5, 7, 10, 12, then 15, then 12, 10, 7, 5, 4 layers, growth 16 and 9,322,091 parameters for 11 classes.

What is special: a transposed convolution enlarges only the *new* features of the block before it; if the block's input went up too,
the stacks would grow without bound. It gives 2n + 1 cells for n, of which the first 2n, or all for an odd side, fit the skip, so
that any side of at least 32 works. Convolutions have a bias and He's uniform initialisation. Table 2 of the paper has four widths
that are 16 too small, as the authors say; it is 896, 1088, 816 and 384.

The authors' batch normalisation knows no running averages: they predict one image at a time with that image's own statistics.
`statistics="image"` does the same, also for a batch. The default is PyTorch's running averages, with which an answer does not
change with the tile or border; after a training on a few images at a time they give lower scores.
"""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.cropping import centre_crop
from segpipe.architectures.blocks.input_rule import InputRule

SOURCE = {
    "title": "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation",
    "authors": "Jegou, Drozdzal, Vazquez, Romero, Bengio",
    "year": 2017,
    "venue": "CVPR workshops",
    "arxiv": "1611.09326",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule(minimum=32)
TINY = {"layers": 56, "growth": 2, "width": 4}

DOWN = {103: (4, 5, 7, 10, 12), 67: (5, 5, 5, 5, 5), 56: (4, 4, 4, 4, 4)}
BOTTLENECK = {103: 15, 67: 5, 56: 4}
GROWTH = {103: 16, 67: 16, 56: 12}
LEVELS = 5


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    layers: int = 103,
    growth: int | None = None,
    width: int = 48,
    dropout: float = 0.2,
    statistics: str = "running",
) -> "FCDenseNet":
    """FC-DenseNet; the defaults are the paper's but for `statistics`.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        layers: 103, 67 or 56 convolutions.
        growth: new features of each layer; None takes the paper's 16, or 12 for 56 layers.
        width: channels of the first convolution.
        dropout: rate after every convolution of the blocks and on the way down, in training only.
        statistics: what batch normalisation uses in eval mode: `running` averages, or those of each `image` (the authors).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(layers, DOWN, name="layers")
    if growth is not None:
        options.positive(growth, name="growth")
    options.positive(width, name="width")
    options.probability(dropout, name="dropout")
    options.one_of(statistics, ("running", "image"), name="statistics")
    return FCDenseNet(num_classes, in_channels, layers, growth or GROWTH[layers], width, dropout, statistics)


def cam_layers(model: "FCDenseNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the bottleneck, the last block of the way down, then up."""
    layers: dict[str, nn.Module] = {"bottleneck": model.bottleneck, f"down{LEVELS}": model.down[-1]}
    for level, block in zip(range(LEVELS, 0, -1), model.up, strict=True):
        layers[f"up{level}"] = block
    return layers


def cam_grid(model: "FCDenseNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: those of level n are 2**(n - 1) pixels wide, from the first pixel on."""
    strides = {name: 2**LEVELS if name == "bottleneck" else 2 ** (int(name[-1]) - 1) for name in cam_layers(model)}
    return {name: CamGrid(stride, 0.0) for name, stride in strides.items()}


class ImageBatchNorm(PooledBatchNorm):
    """Batch normalisation that uses each image's own mean and variance in eval mode, where they exist: not for 1x1 maps."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training or input.shape[2] * input.shape[3] == 1:
            return super().forward(input)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class Dense(nn.Module):
    """A block: (N, in_channels, h, w) -> (N, in_channels + layers * growth, h, w), the input first."""

    def __init__(self, in_channels: int, layers: int, growth: int, *, dropout: float, statistics: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _layer(in_channels + i * growth, growth, kernel=3, dropout=dropout, statistics=statistics) for i in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class FCDenseNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}, for sides of at least 32."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        layers: int,
        growth: int,
        width: int,
        dropout: float,
        statistics: str,
    ) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down, self.transitions = nn.ModuleList(), nn.ModuleList()
        self.upconvs, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = width, []
        for count in DOWN[layers]:
            self.down.append(Dense(channels, count, growth, dropout=dropout, statistics=statistics))
            channels += count * growth
            skips.append(channels)
            self.transitions.append(_layer(channels, channels, kernel=1, dropout=dropout, statistics=statistics))
        self.bottleneck = Dense(channels, BOTTLENECK[layers], growth, dropout=dropout, statistics=statistics)
        # What goes up: the new features of the bottleneck, and of every block on the way up but the last.
        self.new = [count * growth for count in (BOTTLENECK[layers], *DOWN[layers][:0:-1])]
        for new, count, skip in zip(self.new, reversed(DOWN[layers]), reversed(skips), strict=True):
            self.upconvs.append(nn.ConvTranspose2d(new, new, 3, stride=2))
            self.up.append(Dense(new + skip, count, growth, dropout=dropout, statistics=statistics))
            channels = new + skip + count * growth
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        x = self.first(x)
        skips = []
        for block, transition in zip(self.down, self.transitions, strict=True):
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(transition(x), 2)
        x = self.bottleneck(x)
        for new, upconv, block in zip(self.new, self.upconvs, self.up, strict=True):
            skip = skips.pop()
            larger = centre_crop(upconv(x[:, -new:]), skip.shape[-2], skip.shape[-1])
            x = block(torch.cat([larger, skip], dim=1))
        return {"out": self.classifier(x)}


def _layer(in_channels: int, out_channels: int, *, kernel: int, dropout: float, statistics: str) -> nn.Sequential:
    norm = (ImageBatchNorm if statistics == "image" else PooledBatchNorm)(in_channels)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(norm, nn.ReLU(inplace=True), conv, nn.Dropout(dropout))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
