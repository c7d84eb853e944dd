"""Context encoding of EncNet (Zhang et al. 2018, arXiv 1803.08904), with the encoding layer of Deep TEN (arXiv 1612.02844)."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks.separable import conv_bn_relu

CODEWORDS = 32


class Encoding(nn.Module):
    """Residuals to a learnt codebook, summed over all pixels: (N, C, h, w) -> (N, K, C).

    e_k = sum_i a_ik (x_i - d_k) with a_ik = softmax over k of s_k |x_i - d_k|^2; the codewords d and the scales s, which start
    between -1 and 0, are learnt. Computed in float32 under autocast: squared distances are small differences of large numbers.
    """

    def __init__(self, channels: int, codewords: int = CODEWORDS) -> None:
        super().__init__()
        bound = (codewords * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codewords).uniform_(-1, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with _no_autocast(x):
            pixels = x.flatten(2).to(self.codewords.dtype)
            # |x|^2 - 2 x.d + |d|^2: the differences themselves would be an (N, K, C, h * w) tensor.
            squares = pixels.square().sum(1, keepdim=True) + self.codewords.square().sum(1)[:, None]
            assigned = torch.softmax(self.scale[:, None] * (squares - 2 * self.codewords @ pixels), dim=1)
            return assigned @ pixels.transpose(1, 2) - assigned.sum(2)[..., None] * self.codewords


class ContextEncoding(nn.Module):
    """(N, C, h, w) -> (features (N, C, h, w), logits (N, num_classes, 1, 1) of which classes the image shows).

    The encoding of the whole image is normalised over its codewords, rectified and averaged; a gate made of it scales the channels,
    relu(x + x * gate), and a linear layer predicts from it what is present.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(channels, channels, 1)
        self.encoding = Encoding(channels)
        # The encoding is (N, K, C): its "channels" are the codewords.
        self.norm = nn.BatchNorm1d(CODEWORDS)
        self.gate = nn.Linear(channels, channels)
        self.presence = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded = F.relu(self.norm(self.encoding(self.reduce(x)))).mean(1)
        gate = torch.sigmoid(self.gate(encoded))[..., None, None]
        return F.relu(x + x * gate), self.presence(encoded)[..., None, None]


def presence_loss(logits: torch.Tensor, target: torch.Tensor, *, ignore_index: int) -> torch.Tensor:
    """Semantic-encoding loss: binary cross-entropy of "class k is in this image", the mean over classes and labelled images.

    An image in which every pixel is ignored says nothing about its classes and does not count.

    Args:
        logits: (N, K, ...), the same in every pixel; its mean is taken.
        target: int64 (N, H, W) class indices and `ignore_index`.
        ignore_index: the label that does not count.

    Returns:
        A scalar, float32 (float64 for such logits); 0 where no image has a label.
    """
    with _no_autocast(logits):
        logits = logits.flatten(2).mean(2)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        classes = logits.shape[1]
        labels = target.masked_fill(target == ignore_index, classes).flatten(1)
        present = logits.new_zeros(len(logits), classes + 1).scatter_(1, labels, 1.0)[:, :classes]
        losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(1)
        labelled = present.amax(1)
        return (losses * labelled).sum() / labelled.sum().clamp(min=1)


def _no_autocast(x: torch.Tensor) -> AbstractContextManager:
    """Full precision on the device of x. The meta device, on which operations are counted, has no autocast to turn off."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
