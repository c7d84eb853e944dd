"""What FastFCN is where neither counts nor probes can see it: JPU, context encoding and its loss."""

from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import fastfcn, pspnet
from segpipe.architectures.blocks.encoding import CODEWORDS, ContextEncoding, Encoding, presence_loss
from segpipe.inference import forward_at_size
from segpipe.tasks import semantic
from segpipe.training import optimizer
from tests.architectures.test_families import kinds, rates

HEADS = ("encnet", "psp", "deeplabv3")


def small(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    return fastfcn.build(**{"num_classes": 3, "trunk": "resnet18", "width": 4, **changes})


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("head", "num_classes", "expected"),
    [
        ("psp", 21, (19_735_552, 23_084_565, 2_365_205)),
        ("deeplabv3", 21, (19_735_552, 16_130_837, 2_365_205)),
        ("encnet", 21, (19_735_552, 1_613_450, 2_365_205)),
        ("encnet", 59, (19_735_552, 1_652_438, 2_374_971)),
    ],
)
def test_parameters_of_the_parts(head: str, num_classes: int, expected: tuple[int, ...]) -> None:
    """Of JPU, head and auxiliary head, from the authors' code."""
    with torch.device("meta"):
        model = fastfcn.build(num_classes=num_classes, head=head)
    assert (parameters(model.jpu), parameters(model.head), parameters(model.aux)) == expected


def test_the_larger_trunk_has_17_blocks_more() -> None:
    with torch.device("meta"):
        ours = [parameters(fastfcn.build(num_classes=21, trunk=trunk)) for trunk in ("resnet101", "resnet50")]
        pspnets = [parameters(pspnet.build(num_classes=21, trunk=trunk)) for trunk in ("resnet101", "resnet50")]
    assert ours[0] - ours[1] == pspnets[0] - pspnets[1] == 18_992_128


@pytest.mark.parametrize("head", HEADS)
def test_outputs(head: str) -> None:
    model, x = small(head=head), torch.randn(2, 3, 65, 97)
    expected = {"out": (2, 3, 65, 97), "aux": (2, 3, 65, 97)} | ({"se": (2, 3, 1, 1)} if head == "encnet" else {})
    assert {name: out.shape for name, out in model(x).items()} == expected
    assert model.eval()(x).keys() == {"out"}


def test_auxiliary_logits_come_from_stride_16() -> None:
    with torch.device("meta"):
        model = fastfcn.build(num_classes=21)
        seen: list[torch.Size] = []
        model.aux.register_forward_hook(lambda module, inputs, out: seen.extend([inputs[0].shape, out.shape]))
        model(torch.empty(1, 3, 224, 224))
    assert seen == [(1, 1024, 14, 14), (1, 21, 14, 14)]


@pytest.mark.parametrize(("file", "name"), [(fastfcn, "aux"), (fastfcn, "se"), (pspnet, "aux")])
def test_every_auxiliary_loss_trains_the_trunk(file: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    model = file.build(num_classes=3, trunk="resnet18", width=4)
    model(torch.randn(2, 3, 65, 65))[name].square().sum().backward()
    assert model.trunk.conv1[0].weight.grad.any()


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_on_one_image(head: str) -> None:
    outputs = small(head=head).train()(torch.randn(1, 3, 33, 33))
    sum(out.square().mean() for out in outputs.values()).backward()
    assert all(out.isfinite().all() for out in outputs.values())


def test_the_trunk_is_not_dilated() -> None:
    assert set(rates(small().trunk)) == {1}


def test_dropouts_drop_channels() -> None:
    """As the authors' code has them: 0.1 before each classifier, and 0.5 after DeepLab's pyramid."""
    for head in HEADS:
        found = [m.p for m in small(head=head).modules() if isinstance(m, nn.Dropout2d)]
        assert sorted(found) == ([0.1, 0.1, 0.5] if head == "deeplabv3" else [0.1, 0.1])
        assert "Dropout" not in kinds(small(head=head))


def test_everything_beside_the_trunk_learns_ten_times_faster() -> None:
    model = small()
    made = optimizer.build(model, name="sgd", lr=0.001, weight_decay=1e-4, groups=fastfcn.param_groups(model))
    slow = {id(p) for group in made.param_groups if group["lr"] == pytest.approx(0.001) for p in group["params"]}
    assert slow == {id(p) for p in model.trunk.parameters()}
    assert {group["lr"] for group in made.param_groups} == {0.001, 0.01}


class TestJPU:
    def test_branches(self) -> None:
        jpu = small().jpu
        assert [branch[0][0].dilation[0] for branch in jpu.branches] == [1, 2, 4, 8]
        for branch in jpu.branches:
            assert kinds(branch) == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU"]
            assert branch[0][0].groups == branch[0][0].in_channels and branch[0][2].kernel_size == (1, 1)
        assert [kinds(conv) for conv in jpu.convs] == [["Conv2d", "BatchNorm2d", "ReLU"]] * 3

    def test_joins_the_deepest_first_with_aligned_corners(self) -> None:
        jpu = fastfcn.JPU([4, 8, 16]).eval()
        features = [torch.randn(1, 4, 9, 13), torch.randn(1, 8, 5, 7), torch.randn(1, 16, 3, 4)]
        joined: list[torch.Tensor] = []
        jpu.branches[0].register_forward_hook(lambda module, inputs, out: joined.append(inputs[0]))
        with torch.no_grad():
            assert jpu(features).shape == (1, 16, 9, 13)
            alone = [conv(x) for conv, x in zip(jpu.convs, reversed(features), strict=True)]
        deep, middle, fine = joined[0].split(4, dim=1)
        assert torch.equal(fine, alone[2])
        torch.testing.assert_close(middle[..., ::2, ::2], alone[1])
        torch.testing.assert_close(deep[..., ::4, ::4], alone[0])


class TestEncoding:
    def test_sums_residuals_by_soft_assignment(self) -> None:
        """Against the definition, pixel by pixel and codeword by codeword."""
        torch.manual_seed(0)
        layer = Encoding(6, 4).double()
        x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
        expected = torch.zeros(2, 4, 6, dtype=torch.float64)
        for n in range(2):
            for pixel in x[n].flatten(1).T:
                residuals = pixel - layer.codewords
                share = torch.softmax(layer.scale * residuals.square().sum(1), dim=0)
                expected[n] += share[:, None] * residuals
        torch.testing.assert_close(layer(x), expected)

    def test_initial_codebook(self) -> None:
        torch.manual_seed(0)
        layer = Encoding(512)
        assert layer.codewords.shape == (32, 512) and layer.codewords.abs().max() <= 1 / 128
        assert layer.scale.min() >= -1 and layer.scale.max() <= 0

    def test_full_precision_under_autocast(self) -> None:
        torch.manual_seed(0)
        layer, x = Encoding(16, 4), 10 * torch.rand(1, 16, 8, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), layer(x.clone())) and layer(x).dtype == torch.float32
        torch.testing.assert_close(layer(x).double(), layer.double()(x.double()), rtol=1e-4, atol=1e-3)

    def test_the_gate_scales_channels_and_never_removes_features(self) -> None:
        torch.manual_seed(0)
        module = ContextEncoding(8, 3).eval()
        encoded: list[torch.Tensor] = []
        module.presence.register_forward_hook(lambda module, inputs, out: encoded.append(inputs[0]))
        x = torch.rand(2, 8, 4, 6)
        out, presence = module(x)
        ratio = (out / x).flatten(2)
        assert torch.equal(encoded[0], encoded[0].relu()) and encoded[0].any(), "codewords are rectified before their mean"
        assert presence.shape == (2, 3, 1, 1)
        assert ratio.min() >= 1 and ratio.max() <= 2
        torch.testing.assert_close(ratio.amin(2), ratio.amax(2))

    def test_normalised_over_codewords(self) -> None:
        module = ContextEncoding(8, 3)
        assert isinstance(module.norm, nn.BatchNorm1d) and module.norm.num_features == CODEWORDS == 32
        assert kinds(module)[:4] == ["Conv2d", "BatchNorm2d", "ReLU", "Encoding"]


class TestPresenceLoss:
    TARGET = torch.tensor([[[0, 2], [2, 255]], [[1, 1], [1, 1]]])

    def test_is_the_cross_entropy_of_what_the_image_shows(self) -> None:
        logits = torch.randn(2, 3, 1, 1)
        present = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        expected = F.binary_cross_entropy(torch.sigmoid(logits[..., 0, 0]), present)
        torch.testing.assert_close(presence_loss(logits, self.TARGET, ignore_index=255), expected)
        torch.testing.assert_close(presence_loss(logits.expand(2, 3, 4, 5), self.TARGET, ignore_index=255), expected)

    def test_images_without_labels_do_not_count(self) -> None:
        logits = torch.randn(2, 3, 1, 1, requires_grad=True)
        target = self.TARGET.clone()
        target[1] = 255
        found = presence_loss(logits, target, ignore_index=255)
        torch.testing.assert_close(found, presence_loss(logits[:1], target[:1], ignore_index=255))
        found.backward()
        assert logits.grad is not None and logits.grad[0].all() and not logits.grad[1].any()
        assert presence_loss(logits, torch.full_like(target, 255), ignore_index=255) == 0

    def test_an_ignored_class_index_is_not_present(self) -> None:
        logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
        presence_loss(logits, torch.tensor([[[0, 2]]]), ignore_index=2).backward()
        assert logits.grad is not None
        assert logits.grad.flatten().sign().tolist() == [-1, 1, 1]

    def test_trains_the_presence_layer_and_the_pixel_loss_does_not(self) -> None:
        model, x = small(), torch.randn(2, 3, 40, 50)
        target = torch.randint(3, (2, 40, 50))
        criterion = semantic.build_criterion(nn.CrossEntropyLoss(), architecture=fastfcn, ignore_index=255)
        outputs = forward_at_size(model, x)
        assert outputs["se"].shape == (2, 3, 40, 50)
        found = semantic.loss(outputs, target, criterion=criterion, loss_weights=fastfcn.LOSS_WEIGHTS)
        cross_entropy = F.cross_entropy
        expected = cross_entropy(outputs["out"], target) + 0.2 * cross_entropy(outputs["aux"], target)
        expected = expected + 0.2 * F.binary_cross_entropy_with_logits(outputs["se"][..., 0, 0], torch.ones(2, 3))
        torch.testing.assert_close(found, expected)
        cross_entropy(outputs["out"], target).backward(retain_graph=True)
        assert model.head.encoding.presence.weight.grad is None
        found.backward()
        assert model.head.encoding.presence.weight.grad.any()

    @pytest.mark.parametrize("head", ["psp", "deeplabv3"])
    def test_other_heads_have_no_such_term(self, head: str) -> None:
        outputs = small(head=head)(torch.randn(2, 3, 33, 33))
        assert fastfcn.loss_terms(outputs, torch.zeros(2, 33, 33), criterion=F.cross_entropy, ignore_index=255) == {}
