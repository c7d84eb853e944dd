"""Sliding-window pixel classifier, net N4 (Ciresan, Giusti, Gambardella, Schmidhuber 2012): https://papers.nips.cc/paper/4741

A small network that answers for one pixel: it sees the 95x95 window around it. Four unpadded convolutions of 48 maps (4x4, 5x5,
4x4, 4x4), each followed by a 2x2 max pooling, leave 3x3 cells; a fully connected layer of 200 units and the class scores
follow. 219,290 parameters for one input channel and two classes. The authors ran it once for every pixel of an image.

`classify` does just that for given windows. `forward` gives the same numbers for all windows of an image at once: poolings move
one pixel at a time instead of two, and what comes after the n-th pooling gets dilation 2**n, so that the fully connected layer is
a 3x3 convolution with dilation 16. Neighbouring windows share almost everything, and nothing is computed twice.

An image loses 47 pixels on each side; `segpipe.inference` mirrors the border, as the authors did, and answers for every pixel.
Training takes the dense form too: every pixel of the batch is a window. The authors drew windows, as many of one class as of the
other, and calibrated the scores afterwards; here class weights of the loss do that. `activation` is `tanh` or `relu`; the
former is what the authors used in other networks of that year, and for this one our guess.
"""

from itertools import accumulate

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks import options
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule

SOURCE = {
    "title": "Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy Images",
    "authors": "Ciresan, Giusti, Gambardella, Schmidhuber",
    "year": 2012,
    "venue": "NIPS",
    "arxiv": None,
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule(minimum=95, margin=47)
TINY = {"window": 63, "width": 4, "fc": 16}

KERNELS = (4, 5, 4, 4)
RATES = tuple(2**level for level in range(len(KERNELS) + 1))
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    window: int = 95,
    activation: str = "tanh",
    width: int = 48,
    fc: int = 200,
) -> "PatchCNN":
    """The paper's N4; the defaults are the paper's.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        window: side of the square around a pixel that decides its class, 16k + 47 pixels: 63, 79, 95, 111 ...
        activation: `tanh` or `relu`, after every layer but the last.
        width: maps of each convolution.
        fc: units of the fully connected layer.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.positive(window, name="window")
    options.one_of(activation, ACTIVATIONS, name="activation")
    options.positive(width, name="width")
    options.positive(fc, name="fc")
    sides(window)
    return PatchCNN(num_classes, in_channels, window, activation, width, fc)


def sides(window: int) -> list[tuple[int, int]]:
    """Sides of the maps after each convolution and after the pooling that follows; for 95: 92 46, 42 21, 18 9, 6 3.

    Raises:
        ValueError: a pooling would meet an odd side, so that it drops pixels and the window is not what its name says.
    """
    result = []
    side = window
    for kernel in KERNELS:
        convolved = side - kernel + 1
        if convolved < 2 or convolved % 2:
            step, base = RATES[-1], _field(1)
            nearest = base + max(0, round((window - base) / step)) * step
            raise ValueError(f"window: {window!r} must be {base} pixels or a multiple of {step} more. The nearest is {nearest}.")
        side = convolved // 2
        result.append((convolved, side))
    return result


def cam_layers(model: "PatchCNN") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the fully connected layer, then the stages upwards."""
    return {"fc": model.fc, **{f"stage{n}": model.stages[n - 1] for n in range(len(KERNELS), 0, -1)}}


def cam_grid(model: "PatchCNN") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: one for each pixel, in the middle of what it sees."""
    fields = list(accumulate((kernel * rate for kernel, rate in zip(KERNELS, RATES, strict=False)), initial=1))
    starts = {f"stage{n}": (fields[n] - 1) / 2 for n in range(1, len(KERNELS) + 1)}
    starts["fc"] = float(model.input_rule.margin)
    return {name: CamGrid(1, starts[name]) for name in cam_layers(model)}


class PatchCNN(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H - window + 1, W - window + 1)}: the classes of the windows' centres."""

    def __init__(self, num_classes: int, in_channels: int, window: int, activation: str, width: int, fc: int) -> None:
        super().__init__()
        self.window = window
        self.activation = ACTIVATIONS[activation]()
        self.input_rule = InputRule(minimum=window, margin=window // 2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if level else in_channels, width, kernel, dilation=RATES[level]),
                self.activation,
                nn.MaxPool2d(2, stride=1, dilation=RATES[level]),
            )
            for level, kernel in enumerate(KERNELS)
        )
        last = sides(window)[-1][1]
        self.fc = nn.Sequential(nn.Conv2d(width, fc, last, dilation=RATES[-1]), self.activation)
        self.classifier = nn.Conv2d(fc, num_classes, 1)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        for stage in self.stages:
            x = stage(x)
        return {"out": self.classifier(self.fc(x))}

    def classify(self, windows: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, window, window) -> (N, num_classes): the scores of each window's centre, as the paper computes them."""
        assert windows.shape[-2:] == (self.window, self.window), tuple(windows.shape)
        *convs, fc, classifier = (module for module in self.modules() if isinstance(module, nn.Conv2d))
        x = windows
        for conv in convs:
            x = F.max_pool2d(self.activation(F.conv2d(x, conv.weight, conv.bias)), 2)
        x = self.activation(F.linear(x.flatten(1), fc.weight.flatten(1), fc.bias))
        return F.linear(x, classifier.weight.flatten(1), classifier.bias)


def _field(cells: int) -> int:
    """Side of the window that leaves `cells` after the last pooling."""
    for kernel in reversed(KERNELS):
        cells = 2 * cells + kernel - 1
    return cells


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
