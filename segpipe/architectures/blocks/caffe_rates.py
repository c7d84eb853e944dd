"""Learning rates of Caffe's fine-tuning, as in FCN, DeepLab v1 and v2: new layers learn 10 times as fast, biases twice as fast."""

from collections.abc import Iterable
from typing import Any

from torch import nn

NEW, BIAS = 10.0, 2.0


def param_groups(network: nn.Module, *, new: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """All parameters of `network` in groups for the optimiser.

    Rates are 1 for weights and for batch normalisation, 2 for biases of convolutions, and 10 times that in the `new` layers.
    """
    fresh = {id(parameter) for layer in new for parameter in layer.parameters()}
    biases = {id(module.bias) for module in network.modules() if isinstance(module, nn.Conv2d) and module.bias is not None}
    rows: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        rate = (NEW if id(parameter) in fresh else 1.0) * (BIAS if id(parameter) in biases else 1.0)
        rows.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr_scale": rate} for rate, parameters in sorted(rows.items())]
