"""N4 pixel by pixel and all at once: the same numbers, the paper's sizes, and no pixel beyond the window."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from segpipe.architectures import patch_cnn
from segpipe.inference import forward_at_size


def windows(image: np.ndarray, side: int) -> np.ndarray:
    """(C, H, W) -> (H, W, C, side, side): the window around every pixel, the image mirrored beyond its border."""
    margin = side // 2
    mirrored = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    return sliding_window_view(mirrored, (side, side), axis=(1, 2)).transpose(1, 2, 0, 3, 4)


def test_dense_is_window_by_window_in_the_network_of_the_paper() -> None:
    torch.manual_seed(0)
    model = patch_cnn.build(num_classes=2, in_channels=1).double().eval()
    image = np.random.default_rng(0).standard_normal((1, 120, 120))
    rows, columns = np.random.default_rng(1).integers(0, 120, (2, 12))
    rows, columns = np.r_[rows, 0, 0, 119, 119, 60], np.r_[columns, 0, 119, 0, 119, 60]
    with torch.no_grad():
        dense = forward_at_size(model, torch.from_numpy(image)[None])["out"][0]
        alone = model.classify(torch.from_numpy(windows(image, 95)[rows, columns]))
    assert dense.shape == (2, 120, 120)
    assert (dense[:, rows, columns].T - alone).abs().max() < 1e-10
    assert alone.std() > 0.01


@pytest.mark.parametrize("activation", patch_cnn.ACTIVATIONS)
@pytest.mark.parametrize("side", [63, 79])
def test_dense_is_window_by_window_at_every_pixel(side: int, activation: str) -> None:
    torch.manual_seed(0)
    model = patch_cnn.build(num_classes=3, window=side, activation=activation, width=2, fc=5).double().eval()
    image = np.random.default_rng(0).standard_normal((3, 13, 18))
    with torch.no_grad():
        dense = forward_at_size(model, torch.from_numpy(image)[None])["out"][0]
        alone = model.classify(torch.from_numpy(windows(image, side).copy()).flatten(0, 1))
    assert (dense.flatten(1).T - alone).abs().max() < 1e-10


def test_sizes_of_the_paper() -> None:
    assert patch_cnn.sides(95) == [(92, 46), (42, 21), (18, 9), (6, 3)]
    model = patch_cnn.build(num_classes=2, in_channels=1)
    assert [stage[0].weight.shape for stage in model.stages] == [(48, 1, 4, 4), (48, 48, 5, 5), (48, 48, 4, 4), (48, 48, 4, 4)]
    assert model.fc[0].weight.shape == (200, 48, 3, 3) and model.fc[0].dilation == (16, 16)
    assert [stage[2].dilation for stage in model.stages] == [1, 2, 4, 8]


@pytest.mark.parametrize("window", [1, 47, 64, 65, 94, 96])
def test_windows_that_poolings_would_cut_are_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"window: {window} must be 63 pixels or a multiple of 16 more. The nearest is"):
        patch_cnn.build(num_classes=2, window=window)


def test_nothing_outside_the_window_counts() -> None:
    torch.manual_seed(0)
    model = patch_cnn.build(num_classes=2, window=63, width=4, fc=16).double()
    x = torch.randn(100, 3, 67, 69, dtype=torch.float64, requires_grad=True)  # poolings pick other pixels in each
    model(x)["out"][..., 2, 4].sum().backward()
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 64, 4, 66)


def test_too_small_an_image_is_refused_with_the_right_size() -> None:
    with pytest.raises(ValueError, match="Pad it to 95x100"):
        patch_cnn.build(num_classes=2, width=2)(torch.randn(1, 3, 94, 100))
