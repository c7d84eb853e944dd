"""What the published networks are and popular re-implementations are not, where neither counts nor probes can see it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import deeplabv3plus, fcn, segnet, unet
from segpipe.architectures.blocks.cropping import centre_crop
from segpipe.architectures.blocks.resnet import ResNet
from segpipe.architectures.blocks.upsampling import UPSAMPLING
from segpipe.architectures.blocks.xception import Xception65
from tests.architectures import probe


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if not list(part.children())]


def rates(module: nn.Module) -> list[int]:
    """Dilations of the 3x3 convolutions, in the order of the forward pass."""
    return [m.dilation[0] for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


class TestUNet:
    @pytest.mark.parametrize("side", [188, 204, 236])
    def test_valid_sides_lose_184_pixels(self, side: int) -> None:
        out = unet.build(num_classes=2, width=2)(torch.randn(1, 3, side, 188))["out"]
        assert out.shape == (1, 2, side - 184, 4)

    @pytest.mark.parametrize("side", [172, 192, 200, 571])
    def test_other_sides_are_refused_with_the_right_one(self, side: int) -> None:
        with pytest.raises(ValueError, match=f"Pad it to {unet.VALID_RULE.padded(max(1, side - 184))}x188"):
            unet.build(num_classes=2, width=2)(torch.randn(1, 3, side, 188))

    def test_unpadded_networks_place_their_maps(self) -> None:
        torch.manual_seed(0)
        model = unet.build(num_classes=2, width=2)
        probe.assert_grid(model, layers=unet.cam_layers(model), grids=unet.cam_grid(model))

    def test_tiles_abut(self) -> None:
        """Overlapping inputs give the same answer as one big input: the reason for unpadded convolutions."""
        model = unet.build(num_classes=2, width=2).double().eval()
        x = torch.randn(1, 3, 220, 188, dtype=torch.float64)
        with torch.no_grad():
            whole = model(x)["out"]
            tiles = [model(x[..., top : top + 188, :])["out"] for top in (0, 16, 32)]
        for top, tile in zip((0, 16, 32), tiles, strict=True):
            torch.testing.assert_close(whole[..., top : top + 4, :], tile)

    @pytest.mark.parametrize("upsampling", UPSAMPLING)
    @pytest.mark.parametrize(("padding", "side"), [("valid", 188), ("same", 32)])
    def test_every_upsampling_fits(self, upsampling: str, padding: str, side: int) -> None:
        model = unet.build(num_classes=2, width=2, padding=padding, upsampling=upsampling)
        out = model(torch.randn(1, 3, side, side + 16))["out"]
        assert out.shape == (1, 2, side - 2 * model.input_rule.margin, side + 16 - 2 * model.input_rule.margin)

    @pytest.mark.parametrize(("padding", "side"), [("valid", 204), ("same", 48)])
    def test_unpooling_fills_the_maxima_of_its_own_level(self, padding: str, side: int) -> None:
        torch.manual_seed(0)
        model = unet.build(num_classes=2, width=2, padding=padding, upsampling="max_unpool").eval()
        skips, grown = [], []
        for encoder in model.encoders[:-1]:
            encoder.register_forward_hook(lambda module, inputs, out: skips.append(out))
        for upconv in model.upconvs:
            upconv.register_forward_hook(lambda module, inputs, out: grown.append(out))
            nn.init.ones_(upconv.conv.bias)  # so that what is put back is not zero after a silent ReLU
        with torch.no_grad():
            model(torch.randn(1, 3, side, side + 16))
        for skip, up in zip(reversed(skips), grown, strict=True):
            _, switches = F.max_pool2d(skip, 2, return_indices=True)
            maxima = torch.zeros_like(skip).flatten(2).scatter(2, switches.flatten(2), 1.0).unflatten(2, skip.shape[2:])
            assert torch.equal(up != 0, centre_crop(maxima, up.shape[2], up.shape[3]) != 0)

    def test_initial_weights_of_the_paper(self) -> None:
        torch.manual_seed(0)
        model = unet.build(num_classes=2)
        second = model.encoders[0][2]
        assert second.weight.shape == (64, 64, 3, 3)
        assert second.weight.std().item() == pytest.approx(0.058926, rel=0.01)
        assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))

    def test_dropout_ends_the_contracting_path_only(self) -> None:
        model = unet.build(num_classes=2, width=2, padding="same")
        assert ["Dropout" in kinds(encoder) for encoder in model.encoders] == [False, False, False, True, True]
        assert "Dropout" not in kinds(model.decoders)
        assert "Dropout" not in kinds(unet.build(num_classes=2, width=2, dropout=0.0))


class TestSegNet:
    def test_only_the_basic_decoder_has_no_relu(self) -> None:
        basic, full = (segnet.build(num_classes=2, variant=v, width=2) for v in ("basic", "full"))
        assert [kinds(stage) for stage in basic.decoders] == [["Conv2d", "BatchNorm2d"]] * 4
        assert [kinds(stage) for stage in basic.encoders] == [["Conv2d", "BatchNorm2d", "ReLU"]] * 4
        block = ["Conv2d", "BatchNorm2d", "ReLU"]
        assert [kinds(stage) for stage in full.decoders] == [block * n for n in (3, 3, 3, 2, 1)]
        assert [kinds(stage) for stage in full.encoders] == [block * n for n in (2, 2, 3, 3, 3)]

    def test_only_basic_normalises_the_image(self) -> None:
        norm = segnet.build(num_classes=2, variant="basic", width=2).norm
        assert isinstance(norm, nn.LocalResponseNorm) and (norm.size, norm.alpha, norm.beta) == (5, 1e-4, 0.75)
        assert isinstance(segnet.build(num_classes=2, width=2).norm, nn.Identity)

    @pytest.mark.parametrize("variant", ["full", "basic"])
    @pytest.mark.parametrize("size", [(1, 1), (45, 60), (33, 31)])
    def test_odd_sizes(self, variant: str, size: tuple[int, int]) -> None:
        model = segnet.build(num_classes=3, variant=variant, width=2).eval()
        assert model(torch.randn(1, 3, *size))["out"].shape == (1, 3, *size)

    def test_values_return_to_their_own_pixels(self) -> None:
        """What enters the last decoder stage is zero but for one pixel in each 2x2 window, where the encoder had its maximum."""
        model = segnet.build(num_classes=2, width=4).eval()
        seen: dict[str, torch.Tensor] = {}
        model.encoders[0].register_forward_hook(lambda module, inputs, out: seen.update(encoder=out))
        model.decoders[-1].register_forward_hook(lambda module, inputs, out: seen.update(unpooled=inputs[0]))
        model(torch.randn(1, 3, 36, 44))
        _, switches = F.max_pool2d(seen["encoder"], 2, return_indices=True)
        filled = seen["unpooled"].flatten(2) != 0
        allowed = torch.zeros_like(filled).scatter(2, switches.flatten(2), True)
        assert filled.any() and not (filled & ~allowed).any()


class TestFCN:
    def test_only_filters_and_scales_are_fixed(self) -> None:
        model = fcn.build(num_classes=3, variant="8s-at-once", width=2)
        fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert fixed == {"upscore2.weight", "upscore_pool4.weight", "upscore.weight", "scale_pool4", "scale_pool3"}
        assert (model.scale_pool4 == 0.01).all() and (model.scale_pool3 == 0.0001).all()

    def test_starts_undecided(self) -> None:
        out = fcn.build(num_classes=3, width=2)(torch.randn(1, 3, 40, 50))["out"]
        assert out.shape == (1, 3, 40, 50) and not out.any()

    def test_classes_do_not_mix_in_the_upsampling(self) -> None:
        weight = fcn.build(num_classes=3, width=2).upscore.weight
        assert torch.equal(weight[0, 0], weight[2, 2]) and not weight[0, 1].any()

    def test_dropout_drops_elements(self) -> None:
        assert kinds(fcn.build(num_classes=2, width=2)).count("Dropout") == 2
        assert "Dropout2d" not in kinds(fcn.build(num_classes=2, width=2))

    def test_batch_normalisation_is_only_on_request(self) -> None:
        assert "BatchNorm2d" not in kinds(fcn.build(num_classes=2, width=2))
        assert kinds(fcn.build(num_classes=2, width=2, norm="batch")).count("BatchNorm2d") == 15


class TestDeepLabV3Plus:
    @pytest.mark.parametrize(("stride", "size", "deep"), [(16, (129, 161), (9, 11)), (8, (129, 161), (17, 21))])
    @pytest.mark.parametrize("trunk", deeplabv3plus.TRUNKS)
    def test_strides(self, trunk: str, stride: int, size: tuple[int, int], deep: tuple[int, int]) -> None:
        with torch.device("meta"):
            model = deeplabv3plus.build(num_classes=2, trunk=trunk, output_stride=stride).eval()
            low, features = model.trunk(torch.empty(1, 3, *size))
            out = model(torch.empty(1, 3, *size))["out"]
        assert low.shape[2:] == out.shape[2:] == (33, 41)
        assert features.shape[2:] == deep
        assert (low.shape[1], features.shape[1]) == ((64, 512) if trunk == "resnet18" else (256, 2048))

    @pytest.mark.parametrize(("stride", "entry3", "middle", "exit1", "exit2"), [(16, 1, 1, 1, 2), (8, 1, 2, 2, 4)])
    def test_dilations_of_xception(self, stride: int, entry3: int, middle: int, exit1: int, exit2: int) -> None:
        with torch.device("meta"):
            trunk = Xception65(in_channels=3, output_stride=stride)
        assert rates(trunk.entry3) == [entry3] * 3
        assert rates(trunk.middle) == [middle] * 48
        assert rates(trunk.exit1) == [exit1] * 3
        assert rates(trunk.exit2) == [exit2] * 3

    def test_only_the_last_block_of_xception_has_relu_inside(self) -> None:
        with torch.device("meta"):
            trunk = Xception65(in_channels=3, output_stride=16)
        assert kinds(trunk.exit2).count("ReLU") == 6
        assert all("ReLU" not in kinds(block) for block in (trunk.entry1, trunk.entry2, trunk.entry3, trunk.middle, trunk.exit1))
        assert {m.eps for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}

    def test_a_middle_block_adds_to_its_untouched_input(self) -> None:
        trunk = Xception65(in_channels=3, output_stride=16, width=4).eval()
        block = trunk.middle[0]
        with torch.no_grad():
            block.convs[-1][-1].weight.zero_()
            x = torch.randn(1, 46, 5, 5)
            out, _ = block(x.clone())
        assert x.min() < 0 and torch.equal(out, x)

    def test_low_level_features_come_from_before_the_stride(self) -> None:
        trunk = Xception65(in_channels=3, output_stride=16, width=4).eval()
        seen: list[torch.Tensor] = []
        trunk.entry2.convs[1].register_forward_hook(lambda module, inputs, out: seen.append(out))
        low, _ = trunk(torch.randn(1, 3, 33, 49))
        assert torch.equal(low, seen[0]) and low.shape[2:] == (9, 13)

    @pytest.mark.parametrize(("stride", "third", "fourth"), [(16, 1, [2, 4, 8]), (8, 2, [4, 8, 16])])
    def test_dilations_of_resnet(self, stride: int, third: int, fourth: list[int]) -> None:
        with torch.device("meta"):
            trunk = ResNet(name="resnet50", in_channels=3, output_stride=stride)
        assert rates(trunk.layer3) == [third] * 6
        assert rates(trunk.layer4) == fourth

    @pytest.mark.parametrize("stride", [16, 8])
    def test_rates_of_the_pyramid(self, stride: int) -> None:
        model = deeplabv3plus.build(num_classes=2, trunk="resnet18", width=2, head=4, output_stride=stride)
        assert rates(model.aspp) == [96 // stride * n for n in (1, 2, 3)]

    def test_depthwise_halves_are_normalised_and_rectified(self) -> None:
        model = deeplabv3plus.build(num_classes=2, trunk="resnet18", width=2, head=4)
        assert kinds(model.decoder) == ["Conv2d", "BatchNorm2d", "ReLU"] * 4

    @pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
    def test_torchvisions_weights_fit(self, name: str) -> None:
        import torchvision

        with torch.device("meta"):
            theirs = getattr(torchvision.models, name)().state_dict()
            ours = ResNet(name=name, in_channels=3, output_stride=16).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}
