"""SegNet and SegNet-Basic (Badrinarayanan, Kendall, Cipolla 2017): https://arxiv.org/abs/1511.00561

`full`: the 13 convolutions of VGG16, each with batch normalisation and ReLU, and their mirror as decoder. Every 2x2 pooling
remembers where its maxima were, and the unpooling of the same level puts the values back there. The last convolution gives the
logits: it has neither batch normalisation nor ReLU. 29,449,355 parameters for 11 classes.

`basic` (arXiv 1505.07293): local response normalisation of the image, four 7x7 convolutions down and four up, all with `width`
channels, *no ReLU in the decoder*, and a 1x1 classifier. 1,416,587 parameters for 11 classes.

Traps: poolings round up, and unpooling is told the size before pooling; rounding down, or guessing the size, shifts every later
unpooling of an odd-sized image. The convolutions keep their bias although batch normalisation follows, as the authors' files do
(7,936 of the parameters). The paper balances the classes by median frequency, which is an option of the loss here, and starts the
encoder of `full` from ImageNet's VGG16, which has no batch normalisation: that starts fresh.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options, vgg
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pretrained import load_vgg16
from segpipe.architectures.blocks.upsampling import max_unpool

SOURCE = {
    "title": "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation",
    "authors": "Badrinarayanan, Kendall, Cipolla",
    "year": 2017,
    "venue": "IEEE TPAMI",
    "arxiv": "1511.00561",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule()
TINY = {"width": 4}

SHIFT = 0.001
BASIC_LEVELS = 4


def build(
    *, num_classes: int, in_channels: int = 3, variant: str = "full", width: int = 64, weights: str | None = None
) -> "SegNet":
    """SegNet; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        variant: `full` or `basic`.
        width: channels of the first stage (`full` goes up to 8 times that), or of every stage (`basic`).
        weights: of the encoder of `full`: None, `imagenet`, or a .safetensors file for VGG16 (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(variant, ("full", "basic"), name="variant")
    options.positive(width, name="width")
    if variant == "basic" and weights is not None:
        raise ValueError(f"weights: {weights!r}: SegNet-Basic has no VGG16 in it. Leave it out.")
    model = SegNet(num_classes, in_channels, variant, width)
    load_vgg16(model.encoders, weights)
    return model


def cam_layers(model: "SegNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the deepest encoder stage, then up the decoder to the features
    before the classifier."""
    levels = len(model.encoders)
    layers: dict[str, nn.Module] = {f"encoder{levels}": model.encoders[-1]}
    for level, decoder in zip(range(levels, 0, -1), model.decoders, strict=True):
        layers[f"decoder{level}"] = decoder
    return layers


def cam_grid(model: "SegNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: those of level n are 2**(n - 1) pixels wide, from the first pixel on."""
    return {name: CamGrid(2 ** (int(name[-1]) - 1), 0.0) for name in cam_layers(model)}


class SegNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}, for any size."""

    def __init__(self, num_classes: int, in_channels: int, variant: str, width: int) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.norm: nn.Module
        self.classifier: nn.Conv2d
        if variant == "full":
            self.norm = nn.Identity()
            self.encoders = vgg.stages(in_channels=in_channels, width=width, norm="batch")
            self.decoders = _mirror(width)
            self.classifier = nn.Conv2d(width, num_classes, 3, padding=1)
        else:
            self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
            self.encoders = nn.ModuleList(
                _basic(in_channels if level == 0 else width, width, relu=True) for level in range(BASIC_LEVELS)
            )
            self.decoders = nn.ModuleList(_basic(width, width, relu=False) for _ in range(BASIC_LEVELS))
            self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(partial(vgg.initialise, shift=SHIFT))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(x)
        levels = []
        for encoder in self.encoders:
            x = encoder(x)
            size = (x.shape[-2], x.shape[-1])
            x, switches = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            levels.append((switches, size))
        for decoder in self.decoders:
            switches, size = levels.pop()
            x = decoder(max_unpool(x, switches, size=size))
        return {"out": self.classifier(x)}


def _mirror(width: int) -> nn.ModuleList:
    """The decoder stages 5 to 1: as many convolutions as in the encoder, the last of a stage going to the next stage's channels.
    Stage 1 lacks its last convolution, which is the classifier."""
    channels = vgg.stage_channels(width)
    result = nn.ModuleList()
    for level in reversed(range(len(channels))):
        layers: list[nn.Module] = []
        for _ in range(vgg.CONVS[level] - 1):
            layers += vgg.conv_block(channels[level], channels[level], norm="batch")
        if level > 0:
            layers += vgg.conv_block(channels[level], channels[level - 1], norm="batch")
        result.append(nn.Sequential(*layers))
    return result


def _basic(in_channels: int, out_channels: int, *, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 7, padding=3), nn.BatchNorm2d(out_channels)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
