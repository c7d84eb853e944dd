"""A network's numeric fingerprint: constant weights and a sine-wave image, in float64.

Weights are 1 / fan-in and biases 0.01, so that the answer depends on no parameter's name or order and not on the width, but on
padding, strides, dilations, crops, resizing, pooling, normalisation and where tensors are added. It cannot see a missing ReLU.
"""

from collections.abc import Mapping

import torch
from torch import nn

from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.encoding import Encoding


def initialise(model: nn.Module) -> nn.Module:
    """Eval mode, float64, and the probe's constants in all parameters that train; fixed ones keep their values."""
    model.eval().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                if module.weight.requires_grad:
                    transposed = isinstance(module, nn.ConvTranspose2d)
                    fan_in = module.in_channels // module.groups if transposed else module.weight[0].numel()
                    module.weight.fill_(1 / fan_in)
                if module.bias is not None:
                    module.bias.fill_(0.01)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.fill_(1.0)
                module.bias.fill_(0.05)
            elif isinstance(module, Encoding):
                module.codewords.copy_(0.01 * torch.arange(len(module.codewords), dtype=torch.float64)[:, None])
                module.scale.fill_(-1.0)
    return model


def image(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """x[n, c, i, j] = sin(0.13 i + 0.07 j + c), float64."""
    i = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1)
    j = torch.arange(width, dtype=torch.float64).view(1, 1, 1, -1)
    c = torch.arange(channels, dtype=torch.float64).view(1, -1, 1, 1)
    return torch.sin(0.13 * i + 0.07 * j + c).expand(batch, -1, -1, -1)


def digest(out: torch.Tensor) -> dict:
    """Shape, mean, population standard deviation, extremes, and five points of out (N, C, H, W) along its diagonal."""
    height, width = out.shape[-2:]
    at = {
        "first": (0, 0),
        "quarter": (height // 4, width // 4),
        "center": (height // 2, width // 2),
        "three_quarter": (3 * height // 4, 3 * width // 4),
        "last": (height - 1, width - 1),
    }
    return {
        "shape": list(out.shape),
        "mean": out.mean().item(),
        "std": out.std(correction=0).item(),
        "min": out.min().item(),
        "max": out.max().item(),
        "points": {name: out[0, 0, row, column].item() for name, (row, column) in at.items()},
    }


def assert_grid(model: nn.Module, *, layers: Mapping[str, nn.Module], grids: Mapping[str, CamGrid]) -> None:
    """The gradient of a layer's middle cell with respect to the image is centred where `grids` says that the cell is.

    With the probe's weights a receptive field is a smooth hill. Max pooling picks pixels of the random image, hence the tolerance.
    """
    assert grids.keys() == layers.keys()
    initialise(model)
    side = model.input_rule.padded(218 - 2 * model.input_rule.margin)
    x = torch.rand(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    seen: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    model(x)
    centres = torch.arange(side, dtype=torch.float64) + 0.5
    for name, maps in seen.items():
        stride, start = grids[name]
        middle = round((side / 2 - start) / stride - 0.5)
        (gradient,) = torch.autograd.grad(maps[:, :, middle, middle].sum(), x, retain_graph=True)
        weight = gradient.sum(dim=(0, 1, 2))
        found, expected = ((weight * centres).sum() / weight.sum()).item(), start + (middle + 0.5) * stride
        assert abs(found - expected) < max(4, stride / 4), (name, found, expected)
