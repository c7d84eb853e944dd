"""DeconvNet (Noh, Hong, Han 2015): https://arxiv.org/abs/1505.04366

VGG16 down to one cell, and its mirror back up. The 13 convolutions and five 2x2 poolings turn 224x224 pixels into 7x7 cells; fc6,
a 7x7 convolution without padding, and fc7 see them as one vector of 4096. A 7x7 transposed convolution lays that out on 7x7
cells again; then, five times, an unpooling puts values back where the maxima of the same level were, and 3x3 transposed
convolutions follow. Everything but the 1x1 classifier has batch normalisation and ReLU; there is no dropout. 251,805,653
parameters for 21 classes, 206 million of them in fc6 and the 7x7 transposed convolution: copies without those are SegNets.

The network takes 224x224 pixels and nothing else, as its fully connected layer does. `segpipe.inference` cuts larger images into
overlapping tiles of that size and mirrors the border of smaller ones, also in training. Training on whole images works, but runs
tile after tile, each normalised as a batch of its own: set `crop: [224, 224]`, as the authors did, and a batch is one pass.
They predict in another way: proposals of objects, each resized to 224x224, and pixel by pixel the maximum of their scores.

Traps: fc6 and fc7 have one cell per image, so that their batch normalisation compares images with each other; batches are to be
large (the authors': 64), and a batch of one takes the running statistics. The authors compute these once more over the
training set before they predict, their layer keeps none. A 3x3 transposed convolution is a convolution with flipped kernel: weights
must not be carried over as they are. Those of the decoder start as N(0, 0.01), the encoder from ImageNet's VGG16.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options, vgg
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pretrained import load_vgg16
from segpipe.architectures.blocks.upsampling import max_unpool

SOURCE = {
    "title": "Learning Deconvolution Network for Semantic Segmentation",
    "authors": "Noh, Hong, Han",
    "year": 2015,
    "venue": "ICCV",
    "arxiv": "1505.04366",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
SIDE = 224
INPUT_RULE = InputRule(multiple=SIDE, minimum=SIDE, fixed=(SIDE, SIDE))
TINY = {"width": 2}

FC6_KERNEL = 7
SHIFT = 0.001


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    fc: int | None = None,
    weights: str | None = None,
) -> "DeconvNet":
    """DeconvNet; the defaults are the paper's but for the weights.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        width: channels of VGG's first stage.
        fc: channels of fc6 and fc7; None takes 64 * width, VGG16's 4096 at its own width.
        weights: None, `imagenet` or a .safetensors file, for the encoder, fc6 and fc7 (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.positive(width, name="width")
    if fc is not None:
        options.positive(fc, name="fc")
    return DeconvNet(num_classes, in_channels, width, fc or 64 * width, weights)


def cam_layers(model: "DeconvNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): what the vector is laid out to, the last stages of the encoder, and the
    features before the classifier.

    fc6 and fc7 have one cell, of which no map can be made.
    """
    stages = {f"encoder{level}": model.encoders[level - 1] for level in (5, 4, 3)}
    return {"fc6_deconv": model.fc6_deconv, **stages, "decoder1": model.decoders[-1]}


def cam_grid(model: "DeconvNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: those of level n are 2**(n - 1) pixels wide, from the first pixel on."""
    grids = {name: CamGrid(2 ** (int(name[-1]) - 1), 0.0) for name in ("encoder5", "encoder4", "encoder3", "decoder1")}
    grids["fc6_deconv"] = CamGrid(SIDE // FC6_KERNEL, 0.0)
    return {name: grids[name] for name in cam_layers(model)}


class DeconvNet(nn.Module):
    """(N, in_channels, 224, 224) -> {"out": (N, num_classes, 224, 224)}."""

    def __init__(self, num_classes: int, in_channels: int, width: int, fc: int, weights: str | None) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        deep = vgg.stage_channels(width)[-1]
        self.encoders = vgg.stages(in_channels=in_channels, width=width, norm="batch")
        self.fc6 = _fully_connected(nn.Conv2d(deep, fc, FC6_KERNEL))
        self.fc7 = _fully_connected(nn.Conv2d(fc, fc, 1))
        self.fc6_deconv = _deconv(fc, deep, kernel=FC6_KERNEL, padding=0)
        self.decoders = _mirror(width)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(partial(vgg.initialise, shift=SHIFT))
        for part in (self.fc6_deconv, self.decoders, self.classifier):
            part.apply(_initialise_decoder)
        load_vgg16(self.encoders, weights, fc6=self.fc6[0], fc7=self.fc7[0])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        levels = []
        for encoder in self.encoders:
            x = encoder(x)
            size = (x.shape[-2], x.shape[-1])
            x, switches = F.max_pool2d(x, 2, return_indices=True)
            levels.append((switches, size))
        x = self.fc6_deconv(self.fc7(self.fc6(x)))
        for decoder in self.decoders:
            switches, size = levels.pop()
            x = decoder(max_unpool(x, switches, size=size))
        return {"out": self.classifier(x)}


def _fully_connected(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, PooledBatchNorm(conv.out_channels), nn.ReLU(inplace=True))


def _deconv(in_channels: int, out_channels: int, *, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, kernel, padding=padding),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _mirror(width: int) -> nn.ModuleList:
    """The decoder stages 5 to 1: as many layers as in the encoder, the last of a stage going to the next stage's channels."""
    channels = vgg.stage_channels(width)
    result = nn.ModuleList()
    for level in reversed(range(len(channels))):
        layers: list[nn.Module] = []
        for i in range(vgg.CONVS[level]):
            last = i == vgg.CONVS[level] - 1
            layers += _deconv(channels[level], channels[max(level - 1, 0)] if last else channels[level])
        result.append(nn.Sequential(*layers))
    return result


def _initialise_decoder(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
