"""Gradients on a box are the gradients; on a network of small reach they cost less."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segpipe.architectures import unet
from segpipe.failures.gradcam import Target, class_activation
from segpipe.failures.local_backward import LocalBackward, nonzero_box


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    groups = draw(st.sampled_from([1, 2]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.integers(1, 3))
    padding = draw(st.tuples(*(st.integers(0, (k - 1) * dilation) for k in kernel)))
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if draw(st.booleans()):
        extra = draw(st.integers(0, max(*stride, dilation) - 1)) if min(stride) == max(stride) else 0
        return nn.ConvTranspose2d(2, 4, output_padding=extra, **options).double()
    return nn.Conv2d(2, 4, **options).double()


@settings(deadline=None, max_examples=80)
@given(convolutions(), st.integers(0, 10**6))
def test_the_gradient_is_the_same(convolution: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2, 17, 14, generator=generator, dtype=torch.float64).requires_grad_()
    convolution.requires_grad_(False)
    plain = convolution(x)
    with LocalBackward():
        y = convolution(x)
    torch.testing.assert_close(y, plain, rtol=0, atol=0)
    start = torch.zeros_like(y)
    height, width = (int(torch.randint(1, side + 1, (), generator=generator)) for side in y.shape[-2:])
    top = int(torch.randint(0, y.shape[-2] - height + 1, (), generator=generator))
    left = int(torch.randint(0, y.shape[-1] - width + 1, (), generator=generator))
    box = (slice(top, top + height), slice(left, left + width))
    start[:, :, *box] = torch.randn(start[:, :, *box].shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain, x, start)
    (found,) = torch.autograd.grad(y, x, start)
    assert nonzero_box(start) == ((top, top + height), (left, left + width))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_no_gradient_at_all() -> None:
    x = torch.zeros(1, 2, 8, 8).requires_grad_()
    convolution = nn.Conv2d(2, 3, 3).requires_grad_(False)
    with LocalBackward():
        y = convolution(x)
    (found,) = torch.autograd.grad(y, x, torch.zeros_like(y))
    assert found.shape == x.shape and not found.any()


def test_weights_that_want_gradients_get_them() -> None:
    x, convolution = torch.randn(1, 2, 8, 8).requires_grad_(), nn.Conv2d(2, 3, 3)
    start = torch.zeros(1, 3, 6, 6)
    start[..., 0, 0] = 1
    expected = torch.autograd.grad(convolution(x), [x, convolution.weight], start)
    with LocalBackward():
        found = torch.autograd.grad(convolution(x), [x, convolution.weight], start)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_map_of_a_small_region_multiplies_less() -> None:
    torch.manual_seed(0)
    model = unet.build(num_classes=3, padding="same", norm="batch", width=2).eval().requires_grad_(False)
    x = torch.rand(1, 3, 192, 192)
    region = torch.zeros(192, 192)
    region[90:100, 90:100] = 1
    work = {}
    for name, weights in (("small", region), ("whole", torch.ones(192, 192))):
        with FlopCounterMode(display=False) as counter:
            class_activation(model, x, layers=unet.cam_layers(model), targets=[Target(class_index=1, weights=weights.numpy())])
        work[name] = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "backward" in str(op))
    assert 0 < work["small"] < 0.4 * work["whole"]
