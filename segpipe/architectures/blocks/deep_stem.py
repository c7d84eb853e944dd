"""ResNets whose stem is three 3x3 convolutions in place of one 7x7: the trunks of PSPNet, EncNet and FastFCN.

The stem has `width`, `width` and 2 * `width` channels, the first convolution with stride 2, and the usual 3x3 max pooling follows;
layer1 therefore starts from 128 channels and not from 64. All else is `blocks/resnet.py`'s, with no multi-grid.

torchvision has no such networks, so its ImageNet weights do not fit. Gluon's do, by the author of EncNet; timm publishes them as
`resnet50s` and `resnet101s`, with the names used here.
"""

from typing import Any

import torch
from torch import nn

from segpipe.architectures.blocks.pretrained import load_resnet
from segpipe.architectures.blocks.resnet import BasicBlock, Bottleneck, ResNet
from segpipe.architectures.blocks.weight_files import IMAGENET, Hub, Published, opened

HUB = Hub(
    files={
        "resnet50": Published("timm/resnet50s.gluon_in1k"),
        "resnet101": Published("timm/resnet101s.gluon_in1k", "71b3a168cb34fe67abf5e19d1f80f7f893675d7ef7006b6561f2e536cb07b924"),
    }
)


class DeepStemResNet(ResNet):
    """(N, in_channels, H, W) -> (features at stride 4, features at `output_stride`), as `ResNet`.

    An `output_stride` of 32 is the undilated network. At 8 all 3x3 convolutions of layer3 have dilation 2 and all of layer4
    dilation 4, the first block's too. `channels` are those of the four stages: 256 to 2048 for the deeper ResNets at width 64.
    """

    def __init__(self, *, name: str, in_channels: int, output_stride: int, width: int = 64) -> None:
        super().__init__(name=name, in_channels=in_channels, output_stride=output_stride, width=width, multi_grid=(1,))
        stem: list[nn.Module] = []
        before = in_channels
        for index, after in enumerate((width, width, 2 * width)):
            stem += [nn.Conv2d(before, after, 3, stride=1 if index else 2, padding=1, bias=False)]
            stem += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)] if index < 2 else []
            before = after
        self.add_module("conv1", nn.Sequential(*stem))
        self.bn1 = nn.BatchNorm2d(before)
        block = BasicBlock if name == "resnet18" else Bottleneck
        self.layer1[0] = block(before, width, stride=1, dilation=1)
        self.channels = tuple(self.low_channels * 2**stage for stage in range(4))
        assert self.channels[-1] == self.deep_channels
        self.apply(_initialise)

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What comes out of layer1 to layer4."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def load(trunk: DeepStemResNet, weights: str | None, *, name: str, hub: Hub = HUB) -> None:
    """Write published weights into `trunk`, as `blocks/pretrained.py` does for the 7x7 stem.

    Args:
        trunk: changed in place; with `imagenet` of width 64.
        weights: None, `imagenet`, or the path of a .safetensors file that fits this trunk.
        name: `resnet18` (which has no ImageNet weights), `resnet50` or `resnet101`.

    Raises:
        ValueError: another value, a trunk or a file that does not fit, or nothing can be fetched.
    """
    if weights == IMAGENET:
        if name not in hub.files:
            raise ValueError(f"weights: {IMAGENET} has no {name} with a deep stem, only {', '.join(hub.files)}")
        if trunk.low_channels != 256:
            raise ValueError(f"weights: {IMAGENET} only fits the full-size trunk (width 64)")
        with opened(weights, name=name, hub=hub) as file:
            weights = str(file.path)
    load_resnet(trunk, weights, name=name)


def param_groups(model: nn.Module, *, trunk: nn.Module) -> list[dict[str, Any]]:
    """The rates of PSPNet's and FastFCN's authors: 1 for the trunk, which they take from ImageNet, 10 for all that is beside it."""
    old = list(trunk.parameters())
    known = {id(p) for p in old}
    return [
        {"params": old, "lr_scale": 1.0},
        {"params": [p for p in model.parameters() if id(p) not in known], "lr_scale": 10.0},
    ]


def _initialise(module: nn.Module) -> None:
    """He's initialisation by fan-out, as `ResNet` has it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
