"""The layers, stacks and ways up of the three FC-DenseNets, and their batch normalisation."""

import math

import pytest
import torch
from torch import nn

from segpipe.architectures import fc_densenet

NARROW = {"layers": 56, "growth": 2, "width": 4}


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if not list(part.children())]


def meta(layers: int) -> nn.Module:
    with torch.device("meta"):
        return fc_densenet.build(num_classes=11, layers=layers)


@pytest.mark.parametrize("layers", [103, 67, 56])
def test_the_name_counts_the_convolutions(layers: int) -> None:
    convs = [m for m in meta(layers).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convs) == layers
    assert all(conv.bias is not None for conv in convs)


def test_stacks_of_103_without_the_errata_of_the_paper() -> None:
    model = meta(103)
    blocks = (*model.down, model.bottleneck, *model.up)
    stacks = [block.layers[0][0].num_features + sum(layer[2].out_channels for layer in block.layers) for block in blocks]
    assert stacks == [112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256]
    assert model.classifier.in_channels == 256


@pytest.mark.parametrize(("layers", "new"), [(103, [240, 192, 160, 112, 80]), (67, [80] * 5), (56, [48] * 5)])
def test_only_new_features_go_up(layers: int, new: list[int]) -> None:
    assert [(conv.in_channels, conv.out_channels) for conv in meta(layers).upconvs] == [(n, n) for n in new]


def test_new_features_are_those_of_the_block_before() -> None:
    torch.manual_seed(0)
    model = fc_densenet.build(num_classes=2, **NARROW).eval()
    blocks: list[tuple[torch.Tensor, torch.Tensor]] = []
    given: list[torch.Tensor] = []
    for block in (model.bottleneck, *model.up):
        block.register_forward_hook(lambda module, inputs, out: blocks.append((inputs[0], out)))
    for conv in model.upconvs:
        conv.register_forward_hook(lambda module, inputs, out: given.append(inputs[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 40, 64))
    for (entered, left), features in zip(blocks, given, strict=False):
        assert torch.equal(left, torch.cat([entered, features], dim=1))


def test_layers_normalise_before_they_convolve() -> None:
    layer = ["PooledBatchNorm", "ReLU", "Conv2d", "Dropout"]
    model = fc_densenet.build(num_classes=2, **NARROW)
    assert kinds(model.down[0]) == layer * 4
    assert kinds(model.transitions) == layer * 5
    assert {conv.kernel_size for t in model.transitions for conv in t if isinstance(conv, nn.Conv2d)} == {(1, 1)}
    assert kinds(model.first) == kinds(model.classifier) == ["Conv2d"]
    assert kinds(model.upconvs) == ["ConvTranspose2d"] * 5
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}


@pytest.mark.parametrize("size", [(32, 32), (33, 63), (45, 60), (90, 47)])
def test_any_side_of_32_or_more(size: tuple[int, int]) -> None:
    model = fc_densenet.build(num_classes=3, **NARROW)
    assert model(torch.randn(2, 3, *size))["out"].shape == (2, 3, *size)
    with pytest.raises(ValueError, match="Pad it to 32x40"):
        model(torch.randn(2, 3, 31, 40))


def test_initial_weights_are_uniform_by_he() -> None:
    torch.manual_seed(0)
    model = fc_densenet.build(num_classes=2, layers=56)
    for conv, fan_in in ((model.first, 27), (model.down[0].layers[0][2], 48 * 9), (model.upconvs[0], 48 * 9)):
        bound = math.sqrt(6 / fan_in)
        assert 0.98 * bound < conv.weight.abs().max().item() <= bound
        assert not conv.bias.any()


class TestStatistics:
    def pair(self) -> tuple[nn.Module, nn.Module]:
        """The same weights, once with running averages and once with each image's own statistics."""
        torch.manual_seed(0)
        running, image = (fc_densenet.build(num_classes=2, dropout=0.0, statistics=s, **NARROW) for s in ("running", "image"))
        image.load_state_dict(running.state_dict())
        return running, image

    def test_an_image_is_answered_as_if_it_were_trained_on_alone(self) -> None:
        running, image = self.pair()
        x = torch.randn(3, 3, 64, 96)
        with torch.no_grad():
            trained = torch.cat([running.train()(one[None])["out"] for one in x])
            torch.testing.assert_close(image.eval()(x)["out"], trained, rtol=1e-4, atol=1e-4)
            assert (running.eval()(x)["out"] - trained).abs().max() > 0.01

    def test_both_train_in_the_same_way(self) -> None:
        x = torch.randn(2, 3, 64, 64)
        outs = [model.train()(x)["out"] for model in self.pair()]
        torch.testing.assert_close(*outs)

    @pytest.mark.parametrize("training", [True, False])
    def test_one_cell_has_no_statistics(self, training: bool) -> None:
        for model in self.pair():
            assert model.train(training)(torch.randn(1, 3, 32, 32))["out"].isfinite().all()
