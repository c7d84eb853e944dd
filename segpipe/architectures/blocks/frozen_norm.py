"""Batch normalisation that keeps the statistics it was loaded with, as in networks fine-tuned on a few images per batch."""

from torch import nn


def freeze(network: nn.Module) -> None:
    """Put every batch normalisation of `network` in eval mode and stop its scale and shift from training.

    `Module.train` undoes the first: a network that stays frozen calls this again from there.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)
