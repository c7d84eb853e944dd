"""DeconvNet has the fully connected middle, mirrored layers and switches that its copies drop, and one input size."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import deconvnet
from segpipe.architectures.blocks import vgg
from segpipe.inference import forward_at_size


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return deconvnet.build(num_classes=3, **deconvnet.TINY).eval()


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if not list(part.children())]


def test_only_one_size_fits(model: nn.Module) -> None:
    assert deconvnet.INPUT_RULE.fixed == (224, 224)
    with pytest.raises(ValueError, match="input of 256x224: this network takes only 224x224"):
        model(torch.randn(1, 3, 256, 224))


@pytest.mark.parametrize("size", [(224, 224), (180, 240), (300, 33)])
def test_other_images_are_tiled_and_mirrored(model: nn.Module, size: tuple[int, int]) -> None:
    seen: list[torch.Size] = []
    handle = model.fc7.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    with torch.no_grad():
        out = forward_at_size(model, torch.randn(2, 3, *size))["out"]
    handle.remove()
    assert out.shape == (2, 3, *size)
    assert seen == [(2, 128, 1, 1)] * (1 if max(size) <= 224 else 2)


def test_middle_is_fully_connected() -> None:
    with torch.device("meta"):
        full = deconvnet.build(num_classes=21)
    assert full.fc6[0].weight.shape == (4096, 512, 7, 7) and full.fc6[0].padding == (0, 0)
    assert full.fc7[0].weight.shape == (4096, 4096, 1, 1)
    assert full.fc6_deconv[0].weight.shape == (4096, 512, 7, 7) and full.fc6_deconv[0].padding == (0, 0)


def test_decoder_mirrors_the_encoder(model: nn.Module) -> None:
    down, up = ["Conv2d", "BatchNorm2d", "ReLU"], ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert [kinds(stage) for stage in model.encoders] == [down * n for n in vgg.CONVS]
    assert [kinds(stage) for stage in model.decoders] == [up * n for n in reversed(vgg.CONVS)]
    assert kinds(model.fc6_deconv) == up
    assert kinds(model.fc6) == kinds(model.fc7) == ["Conv2d", "PooledBatchNorm", "ReLU"]
    assert kinds(model.classifier) == ["Conv2d"]
    deconvs = [m for m in model.decoders.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert all((m.kernel_size, m.stride, m.padding) == ((3, 3), (1, 1), (1, 1)) for m in deconvs)


def test_values_return_to_the_pixels_of_their_own_level(model: nn.Module) -> None:
    """What enters a decoder stage is zero but for one pixel in each 2x2 window, where that level of the encoder had its maximum."""
    before, unpooled = [], []
    hooks = [stage.register_forward_hook(lambda module, inputs, out: before.append(out)) for stage in model.encoders]
    hooks += [stage.register_forward_hook(lambda module, inputs, out: unpooled.append(inputs[0])) for stage in model.decoders]
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    for encoded, entered in zip(before, reversed(unpooled), strict=True):
        _, switches = F.max_pool2d(encoded, 2, return_indices=True)
        filled = entered.flatten(2) != 0
        assert entered.shape == encoded.shape
        assert filled.any() and not (filled & ~torch.zeros_like(filled).scatter(2, switches.flatten(2), True)).any()


def test_initial_weights_of_the_authors() -> None:
    torch.manual_seed(0)
    model = deconvnet.build(num_classes=3, width=8)
    assert model.decoders[0][0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert model.fc6_deconv[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 13 + 2 + 1 + 13
    assert all((m.weight == 1).all() and (m.bias == torch.tensor(0.001)).all() for m in norms)


def test_a_training_batch_compares_images_in_the_middle() -> None:
    """With one cell per image the batch's images are all that fc6 and fc7 are normalised over; one alone uses the averages."""
    torch.manual_seed(0)
    model = deconvnet.build(num_classes=2, **deconvnet.TINY).train()
    x = torch.randn(3, 3, 224, 224)
    model(x[:1])["out"].sum().backward()
    assert model.fc6[1].num_batches_tracked == 0 and model.encoders[0][1].num_batches_tracked == 1
    model(x)
    assert model.fc6[1].num_batches_tracked == 1


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="no-such"):
        deconvnet.build(num_classes=2, weights="no-such", **deconvnet.TINY)
