"""U-Net (Ronneberger, Fischer, Brox 2015): https://arxiv.org/abs/1505.04597

Five levels of two 3x3 convolutions (64, 128, 256, 512, 1024 channels); 2x2 max pooling on the way down; on the way up a 2x2
up-convolution halves the channels, the skip of the same level is concatenated and two 3x3 convolutions follow; a 1x1 convolution
gives the logits. 23 convolutions, 31,030,658 parameters for one input channel and two classes.

The paper's convolutions are unpadded: a 572x572 tile answers for its inner 388x388 (184 pixels less), a side must be 16k + 12 and
at least 188, and the *skip* is cropped to the decoder, by 4, 16, 40 and 88 pixels a side. `segpipe.inference` mirrors the border.
`padding="same"` with `norm="batch"` is what most people call U-Net: it answers at the input's size, sides must be multiples
of 16, and convolutions before batch normalisation have no bias (up-convolutions keep theirs).

`upsampling` takes another operator into the place of the up-convolution (`blocks/upsampling.py`). Those without weights, and
max-unpooling among them, come after a 1x1 convolution that halves the channels: unpooling then has one switch per channel,
from the pooling of the same level, and every variant concatenates the same numbers of channels. With unpadded convolutions the
switches are cropped to the middle, like the skip.

Dropout sits at the end of the contracting path (the two deepest levels); the paper gives no rate, 0.5 is the customary one.
The skip takes the dropped features, like the next level. Weights start as N(0, sqrt(2 / fan_in)), biases at zero.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.cropping import centre_crop
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.upsampling import UPSAMPLING, UpConv

SOURCE = {
    "title": "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    "authors": "Ronneberger, Fischer, Brox",
    "year": 2015,
    "venue": "MICCAI",
    "arxiv": "1505.04597",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
VALID_RULE = InputRule(multiple=16, offset=12, minimum=188, margin=92)
SAME_RULE = InputRule(multiple=16, minimum=16)
INPUT_RULE = VALID_RULE
TINY = {"padding": "same", "norm": "batch", "width": 4}

LEVELS = 5


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    padding: str = "valid",
    norm: str = "none",
    width: int = 64,
    upsampling: str = "transposed",
    dropout: float = 0.5,
) -> "UNet":
    """The paper's U-Net; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        padding: `valid` (the paper) or `same`.
        norm: `none` (the paper) or `batch`.
        width: channels of the first level; each level below doubles them.
        upsampling: how the decoder doubles the resolution; `transposed` is the paper's.
        dropout: rate at the end of the contracting path, in training only.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(padding, ("valid", "same"), name="padding")
    options.one_of(norm, ("none", "batch"), name="norm")
    options.positive(width, name="width")
    options.one_of(upsampling, UPSAMPLING, name="upsampling")
    options.probability(dropout, name="dropout")
    return UNet(num_classes, in_channels, padding, norm, width, upsampling, dropout)


def cam_layers(model: "UNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the bottleneck, the last encoder level, then up the decoder."""
    layers: dict[str, nn.Module] = {"bottleneck": model.encoders[-1], f"encoder{LEVELS - 1}": model.encoders[-2]}
    for level, decoder in zip(range(LEVELS - 1, 0, -1), model.decoders, strict=True):
        layers[f"decoder{level}"] = decoder
    return layers


def cam_grid(model: "UNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: two unpadded convolutions leave out 2 cells at the start, padded ones none."""
    lost = 2 if model.input_rule.margin else 0
    grids = {}
    start = 0.0
    for level in range(1, LEVELS + 1):
        start += lost * 2 ** (level - 1)
        grids["bottleneck" if level == LEVELS else f"encoder{level}"] = CamGrid(2 ** (level - 1), start)
    for level in range(LEVELS - 1, 0, -1):
        start += lost * 2 ** (level - 1)
        grids[f"decoder{level}"] = CamGrid(2 ** (level - 1), start)
    return {name: grids[name] for name in cam_layers(model)}


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by batch normalisation (if asked for) and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, padding: str, norm: str, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=int(padding == "same"), bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class UNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H - 2 * margin, W - 2 * margin)}."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        padding: str,
        norm: str,
        width: int,
        upsampling: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_rule = VALID_RULE if padding == "valid" else SAME_RULE
        self.upsampling = upsampling
        channels = [width * 2**level for level in range(LEVELS)]
        self.encoders = nn.ModuleList(
            DoubleConv(before, after, padding=padding, norm=norm, dropout=dropout if level >= LEVELS - 2 else 0.0)
            for level, (before, after) in enumerate(zip([in_channels, *channels[:-1]], channels, strict=True))
        )
        self.upconvs = nn.ModuleList(
            UpConv(below, here, how=upsampling) for here, below in reversed(list(zip(channels, channels[1:], strict=False)))
        )
        self.decoders = nn.ModuleList(DoubleConv(2 * here, here, padding=padding, norm=norm) for here in reversed(channels[:-1]))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        skips: list[torch.Tensor] = []
        switches: list[torch.Tensor] = []
        for encoder in self.encoders[:-1]:
            x = encoder(x)
            skips.append(x)
            if self.upsampling == "max_unpool":
                x, argmax = F.max_pool2d(x, 2, return_indices=True)
                switches.append(argmax)
            else:
                x = F.max_pool2d(x, 2)
        x = self.encoders[-1](x)
        for upconv, decoder in zip(self.upconvs, self.decoders, strict=True):
            skip = skips.pop()
            x = upconv(x, switches.pop() if switches else None, (skip.shape[-2], skip.shape[-1]))
            x = decoder(torch.cat([centre_crop(skip, x.shape[-2], x.shape[-1]), x], dim=1))
        return {"out": self.classifier(x)}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(module, nn.ConvTranspose2d)
        # With stride 2 a 2x2 transposed convolution gives each output one tap of every input channel.
        fan_in = module.in_channels if transposed else module.weight[0].numel()
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
