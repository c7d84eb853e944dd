"""What DeepLab v1, v2 and v3 are and popular re-implementations are not, where neither counts nor probes can see it."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import deeplabv1, deeplabv2, deeplabv3
from segpipe.architectures.blocks.caffe_resnet import CaffeResNet
from segpipe.failures import gradcam
from segpipe.training import optimizer
from tests.architectures import probe
from tests.architectures.test_families import kinds, rates

# The three-scale network of kazuto1011/deeplab-pytorch with the pyramid's weights negated, so that the smallest scale wins.
NEGATED = {
    "mean": -34343237.69497953,
    "std": 11891787.092850363,
    "min": -62210255.097771354,
    "max": -12493208.130101314,
    "first": -60107808.06575306,
    "quarter": -33877755.22837472,
    "center": -19745250.0438707,
    "three_quarter": -33874395.10680981,
    "last": -60096269.61344576,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def rates_by_name(file: ModuleType, model: nn.Module) -> dict[str, float]:
    """The lr_scale that each parameter gets, after a check that the optimiser accepts the groups."""
    groups = file.param_groups(model)
    optimizer.build(model, name="sgd", lr=0.001, weight_decay=0.0, groups=groups)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    return {name: scale[id(p)] for name, p in model.named_parameters()}


class TestDeepLabV1:
    def test_holes_are_in_the_fifth_stage_and_fc6_only(self) -> None:
        model = deeplabv1.build(num_classes=2, width=2)
        assert rates(model) == [1] * 10 + [2] * 3 + [12]
        assert [pool.stride for pool in model.trunk.pools] == [2, 2, 2, 1, 1]

    @pytest.mark.parametrize("side", [9, 10, 16, 17, 24, 26, 50, 97])
    def test_poolings_round_up(self, side: int) -> None:
        out = deeplabv1.build(num_classes=2, width=2).eval()(torch.randn(1, 3, side, 17))["out"]
        assert out.shape[2:] == ((side + 14) // 8, 3)

    def test_the_average_pooling_counts_the_padding(self) -> None:
        model = deeplabv1.build(num_classes=2, width=2)
        assert torch.equal(model.pool5a(torch.full((1, 1, 2, 2), 9.0)), torch.full((1, 1, 2, 2), 4.0))

    def test_the_crf_is_a_wish_and_no_layer(self) -> None:
        plain, wishes = deeplabv1.build(num_classes=2, width=2), deeplabv1.build(num_classes=2, width=2, crf=True)
        assert not plain.crf and wishes.crf
        assert plain.state_dict().keys() == wishes.state_dict().keys()

    def test_dropout_and_normalisation(self) -> None:
        block = ["Conv2d", "ReLU", "Dropout"]
        model = deeplabv1.build(num_classes=2, width=2)
        assert kinds(model.fc6) == kinds(model.fc7) == block
        assert "BatchNorm2d" not in kinds(model)
        assert kinds(deeplabv1.build(num_classes=2, width=2, norm="batch")).count("BatchNorm2d") == 15

    def test_scores_start_small(self) -> None:
        score = deeplabv1.build(num_classes=21, width=2, fc=1024).score
        assert score.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not score.bias.any()

    def test_scores_learn_ten_times_as_fast_and_biases_twice(self) -> None:
        found = rates_by_name(deeplabv1, deeplabv1.build(num_classes=2, width=2))
        assert {found.pop("score.weight"), found.pop("score.bias") / 2} == {10}
        assert {name.rpartition(".")[2]: rate for name, rate in found.items()} == {"weight": 1, "bias": 2}


class TestDeepLabV2:
    @pytest.mark.parametrize("name", ["resnet50", "resnet101"])
    def test_strides_are_on_the_first_1x1(self, name: str) -> None:
        with torch.device("meta"):
            trunk = CaffeResNet(name=name, in_channels=3)
        striding = {n for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
        assert striding == {"conv1", "layer2.0.conv1", "layer2.0.downsample.0"}
        assert trunk.maxpool.ceil_mode

    def test_every_block_of_a_stage_is_dilated(self) -> None:
        with torch.device("meta"):
            trunk = CaffeResNet(name="resnet101", in_channels=3)
        assert [rates(layer) for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)] == [
            [1] * 3,
            [1] * 4,
            [2] * 23,
            [4] * 3,
        ]

    @pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
    def test_torchvisions_weights_fit(self, name: str) -> None:
        import torchvision

        with torch.device("meta"):
            theirs = getattr(torchvision.models, name)().state_dict()
            ours = CaffeResNet(name=name, in_channels=3).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}

    @pytest.mark.parametrize(("head", "expected"), [("aspp", [6, 12, 18, 24]), ("aspp-s", [2, 4, 8, 12]), ("largefov", [12])])
    @pytest.mark.parametrize("trunk", ["resnet18", "vgg16"])
    def test_rates_of_the_pyramid(self, trunk: str, head: str, expected: list[int]) -> None:
        model = deeplabv2.build(num_classes=2, trunk=trunk, head=head, width=2)
        assert rates(model.head) == expected
        branch = ["Conv2d"] if trunk == "resnet18" else ["Conv2d", "ReLU", "Dropout", "Conv2d", "ReLU", "Dropout", "Conv2d"]
        assert kinds(model.head) == branch * len(expected)

    def test_the_pyramid_is_a_sum(self) -> None:
        model = deeplabv2.build(num_classes=3, trunk="resnet18", width=2).eval()
        x = torch.randn(1, 3, 33, 41)
        features = model.trunk(x)[1]
        torch.testing.assert_close(model(x)["out"], torch.stack([branch(features) for branch in model.head]).sum(0))

    def test_vgg_has_no_average_pooling(self) -> None:
        assert "AvgPool2d" not in kinds(deeplabv2.build(num_classes=2, trunk="vgg16", width=2))

    def test_three_scales_of_the_reference(self) -> None:
        model = probe.initialise(deeplabv2.build(num_classes=21, width=4, multi_scale=True))
        with torch.no_grad():
            for branch in model.head:
                branch.weight.neg_()
            found = probe.digest(model(probe.image(1, 3, 97, 129))["out"])
        assert found["shape"] == [1, 21, 13, 17]
        assert {**{key: found[key] for key in ("mean", "std", "min", "max")}, **found["points"]} == pytest.approx(NEGATED, rel=1e-9)

    @pytest.mark.parametrize(("align_corners", "sides"), [(False, [97, 72, 48]), (True, [97, 73, 49])])
    def test_sizes_of_the_three_scales(self, align_corners: bool, sides: list[int]) -> None:
        model = deeplabv2.build(num_classes=2, trunk="resnet18", width=2, multi_scale=True, align_corners=align_corners)
        seen: list[torch.Size] = []
        model.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
        model(torch.randn(2, 3, 97, 97))
        assert [tuple(shape) for shape in seen] == [(2, 3, side, side) for side in sides]

    def test_aligned_corners_stay(self) -> None:
        """A ramp keeps its values at both ends and in the middle, whatever the scale."""
        model = deeplabv2.build(num_classes=2, trunk="resnet18", width=2, multi_scale=True, align_corners=True)
        ramp = torch.linspace(0, 1, 97).expand(1, 3, 97, 97)
        for scale in deeplabv2.SCALES.values():
            small = model._shrunk(ramp, *scale)[0, 0, 0]
            torch.testing.assert_close(small[[0, len(small) // 2, -1]], torch.tensor([0.0, 0.5, 1.0]))

    def test_the_largest_of_three_scales_wins(self) -> None:
        model = deeplabv2.build(num_classes=3, trunk="resnet18", width=2, multi_scale=True, freeze_norm=True)
        x = torch.randn(2, 3, 65, 97)
        outputs = model(x)
        assert outputs.keys() == deeplabv2.LOSS_WEIGHTS.keys()
        assert [tuple(out.shape[2:]) for out in outputs.values()] == [(9, 13), (9, 13), (7, 10), (5, 7)]
        every = [F.interpolate(outputs[f"scale{n}"], size=(9, 13), mode="bilinear") for n in (100, 75, 50)]
        winners = torch.stack(every).argmax(0)
        assert set(winners.flatten().tolist()) == {0, 1, 2}
        torch.testing.assert_close(outputs["out"], torch.stack(every).amax(0))
        alone = model.eval()(x)
        assert alone.keys() == {"out"}
        torch.testing.assert_close(alone["out"], outputs["out"])

    def test_three_scales_share_their_weights(self) -> None:
        one, three = (deeplabv2.build(num_classes=2, trunk="resnet18", width=2, multi_scale=m) for m in (False, True))
        assert one.state_dict().keys() == three.state_dict().keys()

    def test_maps_of_three_scales_are_those_of_the_full_one(self) -> None:
        model = deeplabv2.build(num_classes=3, trunk="resnet18", width=4, multi_scale=True).eval()
        target = gradcam.Target(image=0, class_index=1, weights=torch.ones(9, 13).numpy())
        found = gradcam.class_activation(model, torch.randn(1, 3, 65, 97), layers=deeplabv2.cam_layers(model), targets=[target])
        assert found.layers["features"].hirescam.shape == (1, 9, 13)

    @pytest.mark.parametrize("trunk", ["resnet18", "vgg16"])
    def test_scores_learn_ten_times_as_fast(self, trunk: str) -> None:
        model = deeplabv2.build(num_classes=2, trunk=trunk, width=2)
        found = rates_by_name(deeplabv2, model)
        scores = {n for n, p in model.named_parameters() if n.startswith("head.") and p.shape[0] == 2}
        assert len(scores) == 8
        assert {n for n, rate in found.items() if rate >= 10} == scores
        assert {found[n] for n in scores if n.endswith("bias")} == {20}
        biases = {found[n] for n in found.keys() - scores if n.endswith("bias")}
        assert biases == ({1} if trunk == "resnet18" else {2}), "those of batch normalisation keep the base rate"


class TestDeepLabV3:
    @pytest.mark.parametrize(
        ("stride", "grid", "third", "fourth"),
        [
            (16, (1, 2, 4), 1, [2, 4, 8]),
            (8, (1, 2, 4), 2, [4, 8, 16]),
            (16, (1, 1, 1), 1, [2, 2, 2]),
            (16, [1, 2, 1], 1, [2, 4, 2]),
        ],
    )
    def test_multi_grid(self, stride: int, grid: list[int], third: int, fourth: list[int]) -> None:
        with torch.device("meta"):
            model = deeplabv3.build(num_classes=2, output_stride=stride, multi_grid=grid)
        assert rates(model.trunk.layer3) == [third] * 23
        assert rates(model.trunk.layer4) == fourth
        assert rates(model.aspp) == [96 // stride * n for n in (1, 2, 3)]

    @pytest.mark.parametrize("grid", [[], (1, 0), "124", 2, (1, 2.0)])
    def test_a_wrong_multi_grid_is_refused(self, grid: object) -> None:
        with pytest.raises(ValueError, match="multi_grid"):
            deeplabv3.build(num_classes=2, trunk="resnet18", width=2, multi_grid=grid)

    @pytest.mark.parametrize(("trunk", "extra"), [("resnet101", 590_336), ("resnet50", 590_336)])
    def test_torchvisions_has_one_more_convolution(self, trunk: str, extra: int) -> None:
        from torchvision.models import segmentation

        with torch.device("meta"):
            ours = deeplabv3.build(num_classes=21, trunk=trunk)
            theirs = getattr(segmentation, f"deeplabv3_{trunk}")(weights=None, weights_backbone=None, num_classes=21)
        sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
        assert sizes[1] - sizes[0] == extra == 9 * 256 * 256 + 2 * 256

    def test_the_stride_may_change_after_training(self) -> None:
        sixteen, eight = (deeplabv3.build(num_classes=2, trunk="resnet18", width=2, head=4, output_stride=s) for s in (16, 8))
        eight.load_state_dict(sixteen.state_dict(), strict=True)
        x = torch.randn(1, 3, 65, 97)
        assert sixteen.eval()(x)["out"].shape[2:] == (5, 7) and eight.eval()(x)["out"].shape[2:] == (9, 13)

    def test_dropout_after_the_pyramid(self) -> None:
        model = deeplabv3.build(num_classes=2, trunk="resnet18", width=2, head=4)
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.1]
        assert kinds(model.aspp) == [
            *["Conv2d", "BatchNorm2d", "ReLU"] * 4,
            *["AdaptiveAvgPool2d", "Conv2d", "PooledBatchNorm", "ReLU"],
            *["Conv2d", "BatchNorm2d", "ReLU", "Dropout"],
        ]


@pytest.mark.parametrize("file", [deeplabv2, deeplabv3])
def test_a_trunk_takes_published_weights(file: ModuleType, tmp_path: Path) -> None:
    trained = file.build(num_classes=2, **file.TINY).trunk
    path = tmp_path / "trunk.safetensors"
    save_file(trained.state_dict(), path)
    found = file.build(num_classes=2, weights=str(path), **file.TINY).trunk.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("file", [deeplabv1, deeplabv2, deeplabv3])
def test_wrong_weights_are_refused(file: ModuleType) -> None:
    with pytest.raises(ValueError, match="weights: 'coco'"):
        file.build(num_classes=2, weights="coco", **file.TINY)


@pytest.mark.parametrize("file", [deeplabv2, deeplabv3])
def test_frozen_normalisation_stays_as_it_was(file: ModuleType) -> None:
    model = file.build(num_classes=2, freeze_norm=True, **file.TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    for mode in (True, False, True):
        model.train(mode)
        assert not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    model(torch.randn(2, 3, 65, 65))["out"].square().mean().backward()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert file.build(num_classes=2, **file.TINY).training
