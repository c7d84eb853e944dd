"""What semantic FPN is and popular re-implementations are not, where neither counts nor probes can see it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segpipe.architectures import fpn
from tests.architectures.test_families import kinds, rates

NARROW = {"trunk": "resnet18", "width": 4, "pyramid": 8, "head": 8}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_heads_part_of_the_parameters() -> None:
    with torch.device("meta"):
        model = fpn.build(num_classes=21)
    assert parameters(model.scales) + parameters(model.classifier) == 1_626_517
    # segmentation_models_pytorch has the lateral convolutions and the head's, and lacks the output convolutions.
    assert parameters(model.laterals) + parameters(model.scales) == 2_607_872
    assert parameters(model.outputs) == 4 * (9 * 256 * 256 + 256)


def test_resnet101_differs_in_the_trunk_only() -> None:
    with torch.device("meta"):
        fifty, hundred = (parameters(fpn.build(num_classes=21, trunk=trunk)) for trunk in ("resnet50", "resnet101"))
    assert hundred - fifty == 44_549_160 - 25_557_032


def test_shapes_of_the_pyramid() -> None:
    with torch.device("meta"):
        model = fpn.build(num_classes=21).eval()
        seen: list[list[int]] = []
        for layer in (*model.outputs, *model.scales):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(list(output.shape)))
        out = model(torch.empty(1, 3, 128, 192))["out"]
    assert out.shape == (1, 21, 128, 192)
    levels = [[1, 256, 128 // stride, 192 // stride] for stride in (32, 16, 8, 4)]
    assert seen[::2] == levels and seen[1::2] == [[1, 128, 32, 48]] * 4


def test_every_level_has_its_steps() -> None:
    with torch.device("meta"):
        model = fpn.build(num_classes=2)
    block = ["Conv2d", "GroupNorm", "ReLU"]
    assert [kinds(scale) for scale in model.scales] == [block, *([*block, "Upsample"] * steps for steps in (1, 2, 3))]
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_groups, m.num_channels) for m in norms} == {(32, 128)}
    assert all(m.bias is None for m in model.scales.modules() if isinstance(m, nn.Conv2d))
    assert [m.kernel_size for m in model.outputs] == [(3, 3)] * 4 and [m.kernel_size for m in model.laterals] == [(1, 1)] * 4
    assert not {"Dropout", "Dropout2d"} & set(kinds(model))


def test_the_trunk_is_not_dilated() -> None:
    with torch.device("meta"):
        trunk = fpn.build(num_classes=2).trunk
    assert set(rates(trunk)) == {1}
    assert [layer[0].conv2.stride[0] for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)] == [1, 2, 2, 2]


def test_finer_levels_receive_the_sum_before_the_output_convolution() -> None:
    model = fpn.build(num_classes=2, **NARROW).eval()
    seen: dict[int, torch.Tensor] = {}
    for level, layer in enumerate(model.outputs):
        layer.register_forward_pre_hook(lambda module, inputs, level=level: seen.update({level: inputs[0]}))
    lateral: dict[int, torch.Tensor] = {}
    for level, layer in enumerate(model.laterals):
        layer.register_forward_hook(lambda module, inputs, output, level=level: lateral.update({level: output}))
    model(torch.randn(1, 3, 64, 96))
    assert torch.equal(seen[3], lateral[3])
    for level in (2, 1, 0):
        nearest = seen[level + 1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        torch.testing.assert_close(seen[level], lateral[level] + nearest)


def test_levels_are_summed() -> None:
    model = fpn.build(num_classes=2, **NARROW).eval()
    seen: list[torch.Tensor] = []
    for scale in model.scales:
        scale.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.randn(1, 3, 64, 64))
    *levels, total = seen
    torch.testing.assert_close(total, torch.stack(levels).sum(0))


@pytest.mark.parametrize(("size", "right"), [((65, 64), "96x64"), ((32, 64), "64x64"), ((100, 40), "128x64")])
def test_other_sides_are_refused_with_the_right_one(size: tuple[int, int], right: str) -> None:
    with pytest.raises(ValueError, match=f"Pad it to {right}"):
        fpn.build(num_classes=2, **NARROW)(torch.randn(1, 3, *size))


def test_a_head_that_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(ValueError, match="head: 6 must be a multiple of 4"):
        fpn.build(num_classes=2, head=6)


def test_initial_weights_of_the_authors() -> None:
    model = fpn.build(num_classes=2, trunk="resnet18", width=4)
    bound = (3 / (9 * 256)) ** 0.5
    weight = model.outputs[0].weight
    assert bound * 0.99 < weight.abs().max().item() <= bound
    assert model.scales[1][0].weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    assert not any(m.bias.any() for m in (*model.laterals, *model.outputs, model.classifier))


def test_the_trunk_takes_published_weights(tmp_path: Path) -> None:
    trained = fpn.build(num_classes=2, **fpn.TINY).trunk
    path = tmp_path / "trunk.safetensors"
    save_file(trained.state_dict(), path)
    found = fpn.build(num_classes=2, weights=str(path), **fpn.TINY).trunk.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in trained.state_dict().items())
    with pytest.raises(ValueError, match="weights: 'coco'"):
        fpn.build(num_classes=2, weights="coco", **fpn.TINY)


def test_only_the_trunk_has_a_normalisation_to_freeze() -> None:
    model = fpn.build(num_classes=2, freeze_norm=True, **NARROW).eval().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))["out"].square().mean().backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 40 and all(name.startswith("trunk.") for name in frozen)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
