"""torchvision's "DeepLab v3" (2019): https://docs.pytorch.org/vision/stable/models/deeplabv3.html

Close to the network of Chen et al. (`deeplabv3.py`) and not it: stride 8 with rates 12, 24 and 36 always, no multi-grid, dilated
stages whose first block keeps the rate of the stage before, a further 3x3 convolution before the classifier (590,336 parameters),
dropout 0.5 in the pyramid and not 0.1, and an auxiliary head on layer3, which weighs 0.5 in training. Resizing does not align
corners. 42,004,074 parameters with ResNet-50, 21 classes and the auxiliary head.

The modules are torchvision's (`blocks/torchvision_net.py`), with one exception that holds no parameters: where one image has a
single value per channel, in the whole-image branch, batch normalisation uses its running statistics and does not fail. Checkpoints
of torchvision are pickles and are not loaded here; ImageNet weights of the trunk come as safetensors (`blocks/pretrained.py`).
`width` and `head` are ours, for small machines.
"""

from typing import Any

from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.segmentation.fcn import FCNHead

from segpipe.architectures.blocks import options, torchvision_net
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.pretrained import load_resnet
from segpipe.architectures.blocks.torchvision_net import FULL_WIDTH, TRUNKS, TorchvisionNet

SOURCE = {
    "title": "torchvision.models.segmentation.deeplabv3_resnet50 and deeplabv3_resnet101",
    "authors": "PyTorch contributors",
    "year": 2019,
    "venue": "torchvision",
    "url": "https://docs.pytorch.org/vision/stable/models/deeplabv3.html",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "aux": 0.5}
INPUT_RULE = torchvision_net.RULE
TINY = {"width": 4, "head": 16}

RATES = (12, 24, 36)


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet50",
    aux: bool = True,
    width: int = FULL_WIDTH,
    head: int = 256,
    weights: str | None = None,
) -> TorchvisionNet:
    """torchvision's deeplabv3_resnet50; the defaults are those of its reference training.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet50` or `resnet101`.
        aux: whether there is an auxiliary head, which answers in training only.
        width: of the trunk, and with it of the auxiliary head; 64 is torchvision's.
        head: channels of the pyramid.
        weights: of the trunk: None, `imagenet`, or a .safetensors file for it.

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.flag(aux, name="aux")
    options.positive(width, name="width")
    options.positive(head, name="head")
    model = TorchvisionNet(trunk=trunk, in_channels=in_channels, width=width, aux=aux)
    model.classifier = _head(model.deep, head, num_classes)
    if aux:
        model.aux_classifier = FCNHead(model.middle, num_classes)
    load_resnet(model.backbone, weights, name=trunk)
    return model


def cam_layers(model: TorchvisionNet) -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the features before the classifier, the pyramid, the trunk's stages."""
    return {"head": model.classifier.get_submodule("3"), "aspp": model.classifier.get_submodule("0"), **model.cam_layers()}


def cam_grid(model: TorchvisionNet) -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return torchvision_net.cam_grid(cam_layers(model))


def param_groups(model: TorchvisionNet) -> list[dict[str, Any]]:
    """The rates of torchvision's reference training: 10 for the auxiliary head."""
    return torchvision_net.param_groups(model)


def _head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """torchvision's DeepLabHead, which has no option for its 256 channels."""
    aspp = ASPP(in_channels, RATES, channels)
    aspp.convs[-1][2] = PooledBatchNorm(channels)
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(aspp, conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, num_classes, 1))
