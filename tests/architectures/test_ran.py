"""The reverse attention network: its numbers, its three losses, and above all its signs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import deeplabv2, ran
from segpipe.losses import cross_entropy
from segpipe.tasks import semantic
from segpipe.training import optimizer
from tests.architectures import probe
from tests.architectures.test_families import kinds, rates
from tests.architectures.test_golden import assert_close

GOLDEN = json.loads((Path(__file__).parent / "golden" / "ran.json").read_text())
CLASSES = 5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def tiny(**options: object) -> ran.RAN:
    """A small network in training, whose scores are large enough to tell signs apart."""
    model = ran.build(num_classes=CLASSES, **{**ran.TINY, **options}).train()
    for layer in (model.original, model.reverse):
        nn.init.normal_(layer.weight, std=0.1)
        nn.init.normal_(layer.bias)
    return model


def scores(model: ran.RAN, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """The outputs for x, and the scores F and R as the two layers gave them, with their gradients kept."""
    seen: dict[str, torch.Tensor] = {}
    for name in ("original", "reverse"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    outputs = model(x)
    for score in seen.values():
        score.retain_grad()
    return outputs, seen["original"], seen["reverse"]


@pytest.mark.parametrize("kind", ran.ATTENTION)
def test_attention_of_the_paper(kind: str) -> None:
    given = torch.tensor(GOLDEN["attention"]["original"], dtype=torch.float64)
    expected = torch.tensor(GOLDEN["attention"][kind], dtype=torch.float64)
    torch.testing.assert_close(ran.reverse_attention(given, kind=kind), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ran.ATTENTION)
def test_numbers_of_the_three_branches(kind: str) -> None:
    """The probe's scores are huge and would leave no attention: here they are scaled to where the sigmoid bends."""
    golden = GOLDEN["branches"]
    model = probe.initialise(ran.build(num_classes=21, width=4, attention=kind))
    with torch.no_grad():
        model.original.weight *= 1e-8
        model.reverse.weight *= 0.5e-8
        model.reverse.bias.fill_(-0.02)
        seen: dict[str, torch.Tensor] = {}
        model.original.register_forward_hook(lambda module, inputs, output: seen.update(original=output))
        model.reverse.register_forward_hook(lambda module, inputs, output: seen.update(reverse=-output))
        seen[kind] = model(probe.image(*golden["input"]))["out"]
    for name, output in seen.items():
        assert_close(probe.digest(output), golden[name])


@pytest.mark.parametrize("kind", ran.ATTENTION)
def test_the_prediction_is_the_original_minus_the_weighed_reverse(kind: str) -> None:
    outputs, original, reverse = scores(tiny(attention=kind), torch.randn(2, 3, 33, 41))
    assert original.min() < -1 and original.max() > 1 and reverse.min() < -1 and reverse.max() > 1
    weight = torch.sigmoid(-original) if kind == "sigmoid" else torch.sigmoid(1 / (original.clamp(min=0) + 0.125) - 4)
    assert 0 < weight.min() and weight.max() < 1
    torch.testing.assert_close(outputs["out"], original - weight * reverse)
    assert torch.equal(outputs["original"], original) and torch.equal(outputs["reverse"], -reverse)


@pytest.mark.parametrize("kind", ran.ATTENTION)
def test_the_prediction_falls_with_the_reverse_scores(kind: str) -> None:
    outputs, original, reverse = scores(tiny(attention=kind), torch.randn(2, 3, 33, 41))
    outputs["out"].sum().backward()
    assert reverse.grad is not None and (reverse.grad < 0).all()
    torch.testing.assert_close(reverse.grad, -ran.reverse_attention(original, kind=kind))


def test_attention_looks_where_the_original_is_unsure() -> None:
    original = torch.arange(-40, 41) / 10
    weight = ran.reverse_attention(original, kind="sigmoid")
    assert torch.equal(weight > 0.5, original < 0)
    for kind in ran.ATTENTION:
        assert (ran.reverse_attention(original, kind=kind).diff() <= 0).all()
    assert (ran.reverse_attention(original[original <= 0], kind="n") > 0.98).all()


def test_the_reverse_branch_learns_what_a_pixel_is_not() -> None:
    """Its loss wants the reverse score of the true class lower and those of all others higher."""
    outputs, _, reverse = scores(tiny(), torch.randn(2, 3, 33, 41))
    target = torch.randint(CLASSES, (2, 5, 6))
    F.cross_entropy(outputs["reverse"], target).backward()
    true = F.one_hot(target, CLASSES).permute(0, 3, 1, 2).bool()
    assert reverse.grad is not None
    descent = -reverse.grad
    assert (descent[true] < 0).all() and (descent[~true] > 0).all()


def test_the_attention_passes_gradients_to_the_original() -> None:
    """dS/dF = 1 + A (1 - A) R for the sigmoid; with the attention detached it would be 1."""
    outputs, original, reverse = scores(tiny(), torch.randn(2, 3, 33, 41))
    outputs["out"].sum().backward()
    weight = torch.sigmoid(-original)
    torch.testing.assert_close(original.grad, 1 + weight * (1 - weight) * reverse)


def test_three_losses_with_the_same_labels() -> None:
    model = tiny()
    outputs, original, reverse = scores(model, torch.randn(2, 3, 33, 41))
    target = torch.randint(CLASSES, (2, 5, 6))
    criterion = cross_entropy.build(num_classes=CLASSES)
    found = semantic.loss(outputs, target, criterion=criterion, loss_weights=ran.LOSS_WEIGHTS)
    combined = original - torch.sigmoid(-original) * reverse
    torch.testing.assert_close(found, sum(F.cross_entropy(x, target) for x in (combined, original, -reverse)))
    assert model.eval()(torch.randn(1, 3, 33, 33)).keys() == {"out"}


@pytest.mark.parametrize("trunk", ["resnet18", "vgg16"])
def test_without_the_reverse_branch_it_is_deeplab_largefov(trunk: str) -> None:
    model = tiny(trunk=trunk).eval()
    deeplab = deeplabv2.build(num_classes=CLASSES, trunk=trunk, head="largefov", width=ran.TINY["width"]).eval()
    nn.init.zeros_(model.reverse.weight)
    nn.init.zeros_(model.reverse.bias)
    deeplab.trunk.load_state_dict(model.trunk.state_dict())
    (branch,) = deeplab.head
    if trunk == "vgg16":
        *fully_connected, branch = branch
        for theirs, ours in zip(fully_connected, model.head, strict=True):
            theirs.load_state_dict(ours.state_dict())
    branch.load_state_dict(model.original.state_dict())
    x = torch.randn(1, 3, 41, 49)
    torch.testing.assert_close(model(x)["out"], deeplab(x)["out"])


@pytest.mark.parametrize(("trunk", "kernel", "rate"), [("resnet101", 3, 12), ("vgg16", 1, 1)])
def test_scores_are_shaped_like_those_of_largefov(trunk: str, kernel: int, rate: int) -> None:
    with torch.device("meta"):
        model = ran.build(num_classes=21, trunk=trunk)
    for layer in (model.original, model.reverse):
        assert layer.kernel_size == (kernel, kernel) and layer.dilation == (rate, rate) and layer.bias is not None
    if trunk == "vgg16":
        assert rates(model) == [1] * 10 + [2] * 3 + [12]
        assert kinds(model.head) == ["Conv2d", "ReLU", "Dropout"] * 2
        # DeepLab v1's, and one more layer of scores.
        assert sum(p.numel() for p in model.parameters()) == 20_505_429 + 21 * (1024 + 1)


def test_scores_start_small() -> None:
    model = ran.build(num_classes=21, **{**ran.TINY, "width": 16})
    for layer in (model.original, model.reverse):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05) and not layer.bias.any()
    assert not torch.equal(model.original.weight, model.reverse.weight)


@pytest.mark.parametrize("trunk", ["resnet18", "vgg16"])
def test_scores_learn_ten_times_as_fast(trunk: str) -> None:
    model = tiny(trunk=trunk)
    groups = ran.param_groups(model)
    optimizer.build(model, name="sgd", lr=0.001, weight_decay=0.0, groups=groups)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    found = {name: scale[id(p)] for name, p in model.named_parameters()}
    assert {name: rate for name, rate in found.items() if rate >= 10} == {
        "original.weight": 10,
        "original.bias": 20,
        "reverse.weight": 10,
        "reverse.bias": 20,
    }


def test_vgg_has_maps_of_its_fully_connected_layers() -> None:
    model = tiny(trunk="vgg16")
    assert list(ran.cam_layers(model)) == ["fc7", "fc6", "stage5", "stage4"]
    probe.assert_grid(model, layers=ran.cam_layers(model), grids=ran.cam_grid(model))


def test_frozen_normalisation_stays_as_it_was() -> None:
    model = tiny(freeze_norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval().train()
    model(torch.randn(2, 3, 65, 65))["out"].square().mean().backward()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training or m.weight.requires_grad for m in norms)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_trunk_takes_published_weights(tmp_path: Path) -> None:
    trained = tiny().trunk
    path = tmp_path / "trunk.safetensors"
    save_file(trained.state_dict(), path)
    found = tiny(weights=str(path)).trunk.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in trained.state_dict().items())
    with pytest.raises(ValueError, match="weights: 'coco'"):
        tiny(weights="coco")
