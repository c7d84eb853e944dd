"""The ResNets of DeepLab v2 (Chen et al. 2016, arXiv 1606.00915), and of the networks built on it, as Caffe had them.

Three things differ from `blocks/resnet.py`: the stride of a bottleneck is on its *first 1x1* convolution, the pooling of the stem
rounds *up*, and there is no multi-grid. The output stride is 8: all blocks of layer3 have dilation 2, all of layer4 dilation 4.
Names and shapes stay torchvision's, so that its ImageNet weights load; they were trained with the stride on the 3x3 convolution.
"""

from torch import nn

from segpipe.architectures.blocks.resnet import Bottleneck, ResNet


class CaffeResNet(ResNet):
    """(N, in_channels, H, W) -> (features at stride 4, deep features at stride 8), as `ResNet`."""

    def __init__(self, *, name: str, in_channels: int, width: int = 64) -> None:
        super().__init__(name=name, in_channels=in_channels, output_stride=8, width=width, multi_grid=(1,))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
