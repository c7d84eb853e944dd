"""Upsampling operators, crops and input sizes: small numbers that can be checked by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.cropping import centre_crop, centre_offset
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.upsampling import (
    UPSAMPLING,
    FixedBilinear,
    UpConv,
    bed_of_nails,
    bilinear_kernel,
    crop_switches,
    max_unpool,
)

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())["upsampling"]


def plane(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def identity(how: str) -> UpConv:
    """An UpConv on one channel whose own convolution changes nothing."""
    operator = UpConv(1, 1, how=how)
    with torch.no_grad():
        operator.conv.weight.zero_()
        size = operator.conv.weight.shape[-1]
        operator.conv.weight[..., size // 2, size // 2] = 1
        operator.conv.bias.zero_()
    return operator


def test_max_unpooling_of_the_lecture() -> None:
    example = GOLDEN["max_unpool"]
    pooled, switches = F.max_pool2d(plane(example["x"]), 2, return_indices=True)
    assert torch.equal(pooled, plane(example["pooled"]))
    assert torch.equal(max_unpool(plane(example["input"]), switches, size=(4, 4)), plane(example["out"]))


@pytest.mark.parametrize("how", ["nearest", "bed_of_nails", "bilinear", "resize_conv"])
def test_upsampling_of_the_lecture(how: str) -> None:
    expected = {"bilinear": "bilinear_align_false", "resize_conv": "nearest"}.get(how, how)
    found = identity(how)(plane(GOLDEN["upsample"]["input"]))
    torch.testing.assert_close(found, plane(GOLDEN["upsample"][expected]))


def test_transposed_convolution_of_the_lecture() -> None:
    example = GOLDEN["conv_transpose_2x2"]
    found = F.conv_transpose2d(plane(example["input"]), plane(example["kernel"]))
    assert torch.equal(found, plane(example["out"]))


def test_transposed_upconv_lays_kernels_side_by_side() -> None:
    operator = UpConv(1, 1, how="transposed")
    with torch.no_grad():
        operator.conv.weight.copy_(plane([[0, 1], [2, 3]]))
        operator.conv.bias.zero_()
    assert torch.equal(operator(plane([[1, 10]])), plane([[0, 1, 0, 10], [2, 3, 20, 30]]))


def test_resize_convolution_smooths_the_enlarged_map() -> None:
    operator = UpConv(1, 1, how="resize_conv")
    with torch.no_grad():
        operator.conv.weight.copy_(plane([[0, 0, 0], [1, 2, 0], [0, 0, 4]]))
        operator.conv.bias.fill_(0.5)
    found = operator(plane([[1, 10]]))
    assert torch.equal(found, plane([[6.5, 43.5, 61.5, 30.5], [2.5, 3.5, 21.5, 30.5]]))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nearest", [[7, 7, 1, 1], [7, 7, 1, 1]]),
        ("bed_of_nails", [[7, 0, 1, 0], [0, 0, 0, 0]]),
        ("max_unpool", [[0, 7, 0, 0], [0, 0, 1, 0]]),
    ],
)
def test_channels_change_before_the_map_grows(how: str, expected: list[list[float]]) -> None:
    """Two channels become one, 2a + b; its switches come from a pooled map of one channel. The bias is not in the zeros."""
    operator = UpConv(2, 1, how=how)
    with torch.no_grad():
        operator.conv.weight.copy_(torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))
        operator.conv.bias.fill_(-1)
    x = torch.tensor([[2.0, 1.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    _, switches = F.max_pool2d(plane([[0, 9, 0, 1], [3, 0, 5, 0]]), 2, return_indices=True)
    assert torch.equal(operator(x, switches, (2, 4)), plane(expected))


def test_bed_of_nails_by_other_factors() -> None:
    assert torch.equal(bed_of_nails(plane([[5]]), factor=3), plane([[5, 0, 0], [0, 0, 0], [0, 0, 0]]))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1), (2, 9)])
def test_unpooling_puts_maxima_back_at_any_size(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    pooled, switches = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    back = max_unpool(pooled, switches, size=size)
    assert back.shape == x.shape
    kept = back != 0
    assert torch.equal(back[kept], x[kept])
    assert kept.sum() == pooled.numel()
    assert torch.equal(back, F.max_unpool2d(pooled, switches, 2, output_size=size) if min(size) > 1 else x)


def test_unpooling_is_deterministic_by_torchs_own_rule() -> None:
    pooled, switches = F.max_pool2d(torch.rand(1, 2, 8, 8, requires_grad=True), 2, return_indices=True)
    torch.use_deterministic_algorithms(True)
    try:
        max_unpool(pooled, switches, size=(8, 8)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_cropped_switches_point_at_the_same_pixels() -> None:
    x = torch.rand(1, 2, 16, 12)
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    inner, size = crop_switches(switches, plane=(16, 12), height=4, width=2)
    assert size == (8, 4)
    whole = max_unpool(pooled, switches, size=(16, 12))
    assert torch.equal(max_unpool(centre_crop(pooled, 4, 2), inner, size=size), centre_crop(whole, 8, 4))


@pytest.mark.parametrize("how", UPSAMPLING)
def test_every_operator_doubles_and_has_gradients(how: str) -> None:
    _, switches = F.max_pool2d(torch.rand(2, 3, 10, 14), 2, return_indices=True)
    x = torch.randn(2, 6, 5, 7, requires_grad=True)
    out = UpConv(6, 3, how=how)(x, switches, (10, 14))
    assert out.shape == (2, 3, 10, 14)
    out.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_bilinear_filter() -> None:
    assert bilinear_kernel(2)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    for factor in (2, 8, 16, 32):
        assert bilinear_kernel(factor).sum().item() == pytest.approx(factor**2)


@pytest.mark.parametrize("factor", [2, 8, 16])
def test_fixed_bilinear_is_interpolation_inside(factor: int) -> None:
    x = torch.rand(1, 3, 5, 6)
    margin = factor + factor // 2
    found = FixedBilinear(3, factor=factor)(x)[..., margin:-margin, margin:-margin]
    wanted = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted[..., factor:-factor, factor:-factor])


def test_centre_crop_of_the_paper() -> None:
    assert [centre_offset(*sizes) for sizes in ((64, 56), (136, 104), (280, 200), (568, 392))] == [4, 16, 40, 88]
    x = torch.arange(5.0)[None, None, :, None]
    assert centre_crop(x, 2, 1).flatten().tolist() == [1, 2]


def test_pooled_batch_norm_needs_no_second_image() -> None:
    norm = PooledBatchNorm(2).train()
    assert norm(torch.randn(1, 2, 1, 1)).isfinite().all()
    assert norm.num_batches_tracked == 0
    x = torch.randn(3, 2, 1, 1)
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm2d(2)(x))


class TestInputRule:
    def test_padded_covers_the_side(self) -> None:
        for rule in (InputRule(), InputRule(multiple=16, minimum=16), InputRule(multiple=16, offset=12, minimum=188, margin=92)):
            for side in range(1, 60):
                found = rule.padded(side)
                assert rule.allows(found, found) and found - 2 * rule.margin >= side
                smaller = found - rule.multiple
                assert smaller < rule.minimum or smaller - 2 * rule.margin < side

    def test_known_sides(self) -> None:
        unet = InputRule(multiple=16, offset=12, minimum=188, margin=92)
        assert [unet.padded(side) for side in (1, 4, 5, 388, 389)] == [188, 188, 204, 572, 588]
        assert [InputRule(multiple=16, offset=1, minimum=17).padded(side) for side in (1, 17, 18, 513)] == [17, 17, 33, 513]

    def test_check_says_what_to_pad_to(self) -> None:
        with pytest.raises(ValueError, match="Pad it to 48x32"):
            InputRule(multiple=16, minimum=16).check(33, 32)
        InputRule(multiple=16).check(32, 48)

    def test_fixed_size(self) -> None:
        rule = InputRule(fixed=(224, 200))
        assert rule.allows(224, 200) and not rule.allows(200, 224)
        with pytest.raises(ValueError, match="only 224x200"):
            rule.check(200, 224)
