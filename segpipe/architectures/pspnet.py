"""PSPNet, the pyramid scene parsing network (Zhao, Shi, Qi, Wang, Jia 2017): https://arxiv.org/abs/1612.01105

A ResNet with a deep stem (three 3x3 convolutions in place of one 7x7), dilated to stride 8; pyramid pooling, which adds to the
2048 features their means over 1, 2, 3 and 6 bins a side, each reduced to 512 channels; a 3x3 convolution to 512 channels, dropout
0.1 and a 1x1 classifier; bilinear upsampling by 8. 65,708,501 parameters with ResNet-101 and 21 classes.

In training an auxiliary head on layer3 weighs 0.4 in the loss (2,365,205 parameters more). All resizing aligns corners, which is
exact for sides of 8k + 1 (473, 713). *All* 3x3 convolutions of layer3 have dilation 2 and all of layer4 dilation 4; torchvision
gives each stage's first block the rate of the stage before. The stride of a bottleneck is on its 3x3 convolution. Dropout drops
elements, as in the authors' Caffe files (their later PyTorch code drops channels).

ResNet-18 is ours, for small machines. `width` scales the trunk, and with it the heads, whose channels are quarters of the trunk's.
This is not segmentation_models_pytorch's `PSPNet`, which reads 512 features of an undilated net and pools them to 128.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import deep_stem, options, separable
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.deep_stem import DeepStemResNet
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pyramid_pooling import PyramidPooling, auxiliary_head
from segpipe.architectures.blocks.separable import conv_bn_relu

SOURCE = {
    "title": "Pyramid Scene Parsing Network",
    "authors": "Zhao, Shi, Qi, Wang, Jia",
    "year": 2017,
    "venue": "CVPR",
    "arxiv": "1612.01105",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "aux": 0.4}
INPUT_RULE = InputRule(multiple=8, offset=1, minimum=9)
TINY = {"trunk": "resnet18", "width": 8}

TRUNKS = ("resnet101", "resnet50", "resnet18")
STRIDE = 8
DROPOUT = 0.1


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet101",
    aux: bool = True,
    width: int = 64,
    weights: str | None = None,
) -> "PSPNet":
    """PSPNet; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet101`, `resnet50` or `resnet18`.
        aux: whether there is an auxiliary head, which answers in training only.
        width: of the trunk; 64 is the paper's.
        weights: of the trunk: None, `imagenet` (not for ResNet-18), or a .safetensors file for it (`blocks/deep_stem.py`).

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.flag(aux, name="aux")
    options.positive(width, name="width")
    model = PSPNet(num_classes, in_channels, trunk, aux, width)
    deep_stem.load(model.trunk, weights, name=trunk)
    return model


def cam_layers(model: "PSPNet") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the features before the classifier, the trunk's last stages."""
    return {"head": model.head, **model.trunk.cam_layers()}


def cam_grid(model: "PSPNet") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return {name: CamGrid(STRIDE, 0.5 - STRIDE / 2) for name in cam_layers(model)}


def param_groups(model: "PSPNet") -> list[dict[str, Any]]:
    """The authors' rates: 1 for the trunk, 10 for all that is beside it."""
    return deep_stem.param_groups(model, trunk=model.trunk)


class PSPNet(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}, in training also "aux" of the same size."""

    def __init__(self, num_classes: int, in_channels: int, trunk: str, aux: bool, width: int) -> None:
        super().__init__()
        self.input_rule = INPUT_RULE
        self.trunk = DeepStemResNet(name=trunk, in_channels=in_channels, output_stride=STRIDE, width=width)
        deep, inner = self.trunk.deep_channels, self.trunk.channels[2]
        self.ppm = PyramidPooling(deep)
        self.head = conv_bn_relu(self.ppm.channels, deep // 4, 3)
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Conv2d(deep // 4, num_classes, 1))
        self.aux = auxiliary_head(inner, num_classes, dropout=nn.Dropout(DROPOUT)) if aux else None
        for module in (self.ppm, self.head, self.classifier, self.aux):
            if module is not None:
                module.apply(separable.initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        size = x.shape[-2:]
        *_, inner, deep = self.trunk.stages(x)
        outputs = {"out": self.classifier(self.head(self.ppm(deep)))}
        if self.training and self.aux is not None:
            outputs["aux"] = self.aux(inner)
        return {name: F.interpolate(out, size=size, mode="bilinear", align_corners=True) for name, out in outputs.items()}
