"""FCN-32s, FCN-16s and FCN-8s (Long, Shelhamer, Darrell 2015): https://arxiv.org/abs/1411.4038

VGG16 with its fully connected layers as convolutions (fc6 7x7 without padding, fc7 1x1), a 1x1 score layer, and bilinear
upsampling by transposed convolutions that do not train. 16s and 8s add the scores of pool4, and of pool3, to the twice enlarged
ones. 134,489,759 parameters for 8s and 21 classes, of which 134,362,751 train.

The first convolution pads 100 pixels, so that fc6 has something to stand on, and fixed crops (5, 9, and 19, 27 or 31 at the end)
undo it: they are right only if every pooling rounds up. Any input size works and the answer has the input's size.
`8s-at-once` trains all three scores together and scales pool4 by 0.01 and pool3 by 0.0001 first; the paper trains `8s` in stages,
each from the one before. Score layers start at zero. Dropout drops elements, not channels.

The paper starts from ImageNet's VGG16, fc6 and fc7 included (`weights="imagenet"`), and sums the loss over pixels (hence its
learning rates near 1e-10). Without those weights the trunk starts with He's initialisation, and `norm="batch"`, which is ours and
not the paper's, puts batch normalisation after every convolution of the trunk and of fc6 and fc7.

This is not torchvision's `fcn_resnet50`, which is a dilated ResNet without skips.
"""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options, vgg
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.cropping import crop
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pretrained import load_vgg16
from segpipe.architectures.blocks.upsampling import FixedBilinear

SOURCE = {
    "title": "Fully Convolutional Networks for Semantic Segmentation",
    "authors": "Long, Shelhamer, Darrell",
    "year": 2015,
    "venue": "CVPR",
    "arxiv": "1411.4038",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule()
TINY = {"width": 4}

VARIANTS = ("8s", "16s", "32s", "8s-at-once")
FIRST_PADDING = 100
FC6_KERNEL = 7
CROP_POOL4, CROP_POOL3 = 5, 9
LAST_STRIDE = {"32s": 32, "16s": 16, "8s": 8, "8s-at-once": 8}
LAST_CROP = {"32s": 19, "16s": 27, "8s": 31, "8s-at-once": 31}
AT_ONCE_SCALES = {"pool4": 0.01, "pool3": 0.0001}


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    variant: str = "8s",
    width: int = 64,
    fc: int | None = None,
    norm: str = "none",
    weights: str | None = None,
) -> "FCN":
    """FCN on VGG16; the defaults are the paper's best.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        variant: `8s`, `16s`, `32s` or `8s-at-once`.
        width: channels of VGG's first stage.
        fc: channels of fc6 and fc7; None takes 64 * width, VGG16's 4096 at its own width.
        norm: `none` (the paper) or `batch`.
        weights: None, `imagenet`, or a .safetensors file for VGG16 (`blocks/pretrained.py`).

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(variant, VARIANTS, name="variant")
    options.positive(width, name="width")
    options.one_of(norm, ("none", "batch"), name="norm")
    if fc is not None:
        options.positive(fc, name="fc")
    model = FCN(num_classes, in_channels, variant, width, fc or 64 * width, norm)
    load_vgg16(model.stages, weights, fc6=model.fc6, fc7=model.fc7)
    return model


def cam_layers(model: "FCN") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): fc7, then the stages of the trunk upwards.

    The stages cover the padded image, 100 pixels beyond each border: place their maps by `cam_grid`, do not stretch them.
    """
    return {"fc7": model.fc7, "stage5": model.stages[4], "stage4": model.stages[3], "stage3": model.stages[2]}


def cam_grid(model: "FCN") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the stages start 99 pixels outside the image, and fc6 leaves out 3 cells."""
    start = 1.0 - FIRST_PADDING
    grids = {f"stage{level}": CamGrid(2 ** (level - 1), start) for level in range(1, 6)}
    grids["fc7"] = CamGrid(32, start + FC6_KERNEL // 2 * 32)
    return {name: grids[name] for name in cam_layers(model)}


class FCN(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}, for any size."""

    def __init__(self, num_classes: int, in_channels: int, variant: str, width: int, fc: int, norm: str) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.variant = variant
        channels = vgg.stage_channels(width)
        self.stages = vgg.stages(in_channels=in_channels, width=width, norm=norm, first_padding=FIRST_PADDING)
        self.fc6 = _fully_connected(channels[4], fc, kernel=FC6_KERNEL, norm=norm)
        self.fc7 = _fully_connected(fc, fc, kernel=1, norm=norm)
        self.apply(vgg.initialise)
        self.score_fr = _score(fc, num_classes)
        if variant != "32s":
            self.score_pool4 = _score(channels[3], num_classes)
            self.upscore2 = FixedBilinear(num_classes, factor=2)
        if variant.startswith("8s"):
            self.score_pool3 = _score(channels[2], num_classes)
            self.upscore_pool4 = FixedBilinear(num_classes, factor=2)
        if variant == "8s-at-once":
            self.scale_pool4 = _constant(channels[3], AT_ONCE_SCALES["pool4"])
            self.scale_pool3 = _constant(channels[2], AT_ONCE_SCALES["pool3"])
        self.upscore = FixedBilinear(num_classes, factor=LAST_STRIDE[variant])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = x.shape[-2:]
        pools = []
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2, ceil_mode=True)
            pools.append(x)
        pool3, pool4 = pools[2], pools[3]
        score = self.score_fr(self.fc7(self.fc6(x)))
        if self.variant == "8s-at-once":
            pool4, pool3 = pool4 * self.scale_pool4, pool3 * self.scale_pool3
        if self.variant != "32s":
            score = _add_cropped(self.upscore2(score), self.score_pool4(pool4), CROP_POOL4)
        if self.variant.startswith("8s"):
            score = _add_cropped(self.upscore_pool4(score), self.score_pool3(pool3), CROP_POOL3)
        margin = LAST_CROP[self.variant]
        return {"out": crop(self.upscore(score), top=margin, left=margin, height=height, width=width)}


def _fully_connected(in_channels: int, out_channels: int, *, kernel: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel)]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Dropout(0.5))


def _score(in_channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _constant(channels: int, value: float) -> nn.Parameter:
    """A factor per channel that does not train; a parameter, so that it counts as in the authors' files."""
    return nn.Parameter(torch.full((channels, 1, 1), value), requires_grad=False)


def _add_cropped(score: torch.Tensor, skip: torch.Tensor, margin: int) -> torch.Tensor:
    return score + crop(skip, top=margin, left=margin, height=score.shape[-2], width=score.shape[-1])
