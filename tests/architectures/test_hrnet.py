"""What HRNetV2 is and popular re-implementations are not, where neither counts nor probes can see it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import hrnet
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.resnet import BasicBlock, Bottleneck
from segpipe.inference import forward_at_size
from tests.architectures.test_families import kinds

SMALL = {"width": 4, "blocks": 1, "stem": 8}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_modules_branches_and_blocks_of_the_paper() -> None:
    with torch.device("meta"):
        model = hrnet.build(num_classes=2)
    assert [type(block) for block in model.layer1] == [Bottleneck] * 4
    assert [[len(module.branches) for module in stage] for stage in model.stages] == [[2], [3] * 4, [4] * 3]
    branches = [branch for stage in model.stages for module in stage for branch in module.branches]
    assert all([type(block) for block in branch] == [BasicBlock] * 4 for branch in branches)
    assert [len(module.fusions) for stage in model.stages for module in stage] == [2, 3, 3, 3, 3, 4, 4, 4]


def test_ways_between_the_branches() -> None:
    """Up: a 1x1 convolution. Down: 3x3 convolutions with stride 2, of the source's channels until the last, which has no ReLU."""
    with torch.device("meta"):
        last = hrnet.build(num_classes=2).stages[-1][-1]
    step = ["Conv2d", "BatchNorm2d", "ReLU"]
    for target, fusion in enumerate(last.fusions):
        for source, path in enumerate(fusion.paths):
            convs = [m for m in path.modules() if isinstance(m, nn.Conv2d)]
            if source == target:
                assert kinds(path) == ["Identity"]
            elif source > target:
                assert kinds(path) == ["Conv2d", "BatchNorm2d"] and convs[0].kernel_size == (1, 1)
            else:
                assert kinds(path) == step * (target - source - 1) + step[:2]
                assert all(c.kernel_size == (3, 3) and c.stride == (2, 2) for c in convs)
                assert [c.out_channels for c in convs[:-1]] == [48 * 2**source] * (len(convs) - 1)
            assert all(c.bias is None for c in convs)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_fusion_adds_bilinearly_and_then_rectifies(align_corners: bool) -> None:
    fusion = hrnet.Fusion((1, 1), target=0, align_corners=align_corners).eval()
    nn.init.ones_(fusion.paths[1][0].weight)
    fine, coarse = torch.randn(2, 1, 9, 7), torch.randn(2, 1, 5, 4)
    enlarged = F.interpolate(coarse / (1 + 1e-5) ** 0.5, size=(9, 7), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(fusion([fine, coarse]), (fine + enlarged).clamp(min=0))


def test_a_fusion_leaves_its_inputs_as_they_were() -> None:
    """The other branches still need them."""
    fusion = hrnet.Fusion((2, 4), target=1, align_corners=False).eval()
    branches = [torch.randn(1, 2, 8, 8), torch.randn(1, 4, 4, 4)]
    before = [branch.clone() for branch in branches]
    fusion(branches)
    assert all(torch.equal(a, b) for a, b in zip(branches, before, strict=True))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(33, 33), (34, 47), (45, 60), (64, 65)])
def test_odd_sizes(align_corners: bool, size: tuple[int, int]) -> None:
    model = hrnet.build(num_classes=3, align_corners=align_corners, **SMALL).eval()
    assert model(torch.randn(1, 3, *size))["out"].shape == (1, 3, (size[0] + 3) // 4, (size[1] + 3) // 4)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 5), (45, 60)])
def test_both_ways_of_resizing_answer_at_the_image_size(align_corners: bool, size: tuple[int, int]) -> None:
    """One image at a time: the smallest side that the rule allows leaves more than one cell to normalise over."""
    model = hrnet.build(num_classes=3, align_corners=align_corners, **SMALL).train()
    assert forward_at_size(model, torch.randn(1, 3, *size))["out"].shape == (1, 3, *size)


def test_aligned_corners_have_sides_that_fit() -> None:
    aligned, free = (hrnet.build(num_classes=2, align_corners=aligned, **SMALL).input_rule for aligned in (True, False))
    assert [aligned.padded(side) for side in (1, 33, 34, 512)] == [33, 33, 65, 513]
    assert [free.padded(side) for side in (1, 33, 34, 512)] == [33, 33, 34, 512]


def test_the_head_mixes_all_branches_at_once() -> None:
    model = hrnet.build(num_classes=5, **SMALL)
    assert kinds(model.head) == ["Conv2d", "BatchNorm2d", "ReLU"]
    mix, scores = model.head[0], model.classifier
    assert (mix.in_channels, mix.out_channels, mix.kernel_size) == (60, 60, (1, 1)) and mix.bias is not None
    assert (scores.in_channels, scores.out_channels, scores.kernel_size) == (60, 5, (1, 1)) and scores.bias is not None


def test_initial_weights_of_the_authors() -> None:
    model = hrnet.build(num_classes=2, width=18)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    weights = torch.cat([conv.weight.flatten() for conv in convs])
    assert weights.std().item() == pytest.approx(0.001, rel=0.01)
    assert all(conv.bias is None or not conv.bias.any() for conv in convs)


def test_maps_lie_where_the_labels_are_if_corners_are_not_aligned() -> None:
    """As found in a trained network, by which place of the cells explains best what is in them."""
    model = hrnet.build(num_classes=2, **SMALL)
    expected = {"branch4": (32, -14), "branch3": (16, -6), "branch2": (8, -2), "branch1": (4, 0), "head": (4, 0)}
    assert hrnet.cam_grid(model) == {name: CamGrid(*grid) for name, grid in expected.items()}
