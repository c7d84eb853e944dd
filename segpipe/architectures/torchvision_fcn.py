"""torchvision's "FCN" (2019): https://docs.pytorch.org/vision/stable/models/fcn.html

Not the network of Long, Shelhamer and Darrell (that is `fcn.py`): a ResNet-50 or -101 that keeps stride 8 by dilation, a 3x3
convolution to 512 channels, batch normalisation, ReLU, dropout 0.1 and a 1x1 classifier; bilinear upsampling by 8. It has no VGG16,
no skips and no learned or fixed transposed convolutions. It became a usual baseline under the old name, hence this adapter.
35,322,218 parameters with ResNet-50, 21 classes and the auxiliary head, which is such a head on layer3 and weighs 0.5 in training.

The modules are torchvision's (`blocks/torchvision_net.py`); its checkpoints are pickles and are not loaded here. ImageNet weights
of the trunk come as safetensors (`blocks/pretrained.py`). `width` is ours, for small machines.
"""

from typing import Any

from torch import nn
from torchvision.models.segmentation.fcn import FCNHead

from segpipe.architectures.blocks import options, torchvision_net
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.pretrained import load_resnet
from segpipe.architectures.blocks.torchvision_net import FULL_WIDTH, TRUNKS, TorchvisionNet

SOURCE = {
    "title": "torchvision.models.segmentation.fcn_resnet50 and fcn_resnet101",
    "authors": "PyTorch contributors",
    "year": 2019,
    "venue": "torchvision",
    "url": "https://docs.pytorch.org/vision/stable/models/fcn.html",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0, "aux": 0.5}
INPUT_RULE = torchvision_net.RULE
TINY = {"width": 4}


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    trunk: str = "resnet50",
    aux: bool = True,
    width: int = FULL_WIDTH,
    weights: str | None = None,
) -> TorchvisionNet:
    """torchvision's fcn_resnet50; the defaults are those of its reference training.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        trunk: `resnet50` or `resnet101`.
        aux: whether there is an auxiliary head, which answers in training only.
        width: of the trunk, and with it of the heads; 64 is torchvision's.
        weights: of the trunk: None, `imagenet`, or a .safetensors file for it.

    Raises:
        ValueError: an option has a value that it cannot have, or the weights do not fit or cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(trunk, TRUNKS, name="trunk")
    options.flag(aux, name="aux")
    options.positive(width, name="width")
    model = TorchvisionNet(trunk=trunk, in_channels=in_channels, width=width, aux=aux)
    model.classifier = FCNHead(model.deep, num_classes)
    if aux:
        model.aux_classifier = FCNHead(model.middle, num_classes)
    load_resnet(model.backbone, weights, name=trunk)
    return model


def cam_layers(model: TorchvisionNet) -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the features before the classifier, the trunk's last stages."""
    return {"head": model.classifier.get_submodule("2"), **model.cam_layers()}


def cam_grid(model: TorchvisionNet) -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is the middle of the first pixel."""
    return torchvision_net.cam_grid(cam_layers(model))


def param_groups(model: TorchvisionNet) -> list[dict[str, Any]]:
    """The rates of torchvision's reference training: 10 for the auxiliary head."""
    return torchvision_net.param_groups(model)
