"""Grad-CAM and HiResCAM against numbers worked out elsewhere, and the laws they obey."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segpipe.failures.gradcam import Target, class_activation
from segpipe.failures.grid import spread, stretched
from tests.failures.networks import Golden, golden_input

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
REGION = np.zeros((8, 8))
REGION[2:6, 3:7] = 1


def maps(model: nn.Module, x: torch.Tensor, *targets: Target, layer: str = "pool"):
    return class_activation(model, x, layers={layer: getattr(model, layer)}, targets=targets).layers[layer]


def random_regions(count: int) -> list[np.ndarray]:
    return list((np.random.default_rng(3).random((count, 8, 8)) < 0.4).astype(float))


def test_the_network_is_the_golden_one() -> None:
    np.testing.assert_allclose(Golden()(golden_input())["out"][0].detach().numpy(), GOLDEN["logits"], atol=1e-12)


@pytest.mark.parametrize("number", range(3))
def test_golden_maps(number: int) -> None:
    expected = GOLDEN["expected"][str(number)]
    # All classes at once: the others must not leak into this one's map.
    targets = [Target(class_index=c, weights=REGION) for c in range(3)]
    model = Golden()
    found = class_activation(model, golden_input(), layers={"pool": model.pool}, targets=targets)
    one = found.layers["pool"]
    assert found.given == (8, 8)
    assert one.gradcam.dtype == np.float64
    np.testing.assert_allclose(found.scores[number], expected["y"], atol=1e-9)
    np.testing.assert_allclose(one.alpha[number], expected["alpha"], atol=1e-9)
    np.testing.assert_allclose(one.gradcam[number], expected["raw_before_relu"], atol=1e-9)
    np.testing.assert_allclose(np.maximum(one.gradcam[number], 0), expected["gradcam_4x4"], atol=1e-9)
    np.testing.assert_allclose(one.hirescam[number], expected["hirescam_before_relu_4x4"], atol=1e-9)
    axis = stretched(8, cells=4)
    large = spread(np.maximum(one.gradcam[number], 0), rows=axis, columns=axis, size=(8, 8))
    np.testing.assert_allclose(large, expected["gradcam_upsampled_8x8"], atol=1e-9)


@pytest.mark.parametrize("kind", ["gradcam", "hirescam"])
def test_the_map_of_a_difference_is_the_difference_of_the_maps(kind: str) -> None:
    class Margin(nn.Module):
        def __init__(self, inner: Golden) -> None:
            super().__init__()
            self.inner, self.pool = inner, inner.pool

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            z = self.inner(x)["out"]
            return {"out": z[:, 2:3] - z[:, 0:1]}

    pair = getattr(maps(Golden(), golden_input(), *(Target(class_index=c, weights=REGION) for c in (0, 2))), kind)
    margin = getattr(maps(Margin(Golden()), golden_input(), Target(class_index=0, weights=REGION)), kind)
    np.testing.assert_allclose(pair[1] - pair[0], margin[0], atol=1e-12)
    assert np.abs(margin).max() > 0.01


@pytest.mark.parametrize("kind", ["gradcam", "hirescam"])
def test_maps_add_up_over_disjoint_regions(kind: str) -> None:
    left, right = REGION.copy(), REGION.copy()
    left[:, 5:], right[:, :5] = 0, 0
    parts = getattr(maps(Golden(), golden_input(), *(Target(class_index=1, weights=m) for m in (left, right, REGION))), kind)
    np.testing.assert_allclose(parts[0] + parts[1], parts[2], atol=1e-12)


def test_images_do_not_depend_on_their_batch_mates() -> None:
    x = torch.cat([golden_input(), golden_input().flip(-1) * 1.7, golden_input().flip(-2) - 0.3])
    regions = random_regions(5)
    targets = [Target(class_index=i % 3, weights=m, image=(0, 2, 0, 1, 2)[i]) for i, m in enumerate(regions)]
    together = maps(Golden(), x, *targets)
    for i, target in enumerate(targets):
        alone = Target(class_index=target.class_index, weights=target.weights)
        found = maps(Golden(), x[target.image : target.image + 1], alone)
        np.testing.assert_allclose(together.gradcam[i], found.gradcam[0], atol=1e-12)
        np.testing.assert_allclose(together.hirescam[i], found.hirescam[0], atol=1e-12)


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    model, shifted = Golden(), Golden()
    with torch.no_grad():
        shifted.c3.bias += 5.0
    target = Target(class_index=2, weights=REGION)
    np.testing.assert_array_equal(maps(model, golden_input(), target).gradcam, maps(shifted, golden_input(), target).gradcam)


def test_several_layers_share_one_forward_pass_and_agree_with_one_at_a_time() -> None:
    model = Golden()
    layers = {"pool": model.pool, "c1": model.c1, "c2": model.c2}
    targets = [Target(class_index=c, weights=REGION) for c in (0, 1)]
    together = class_activation(model, golden_input(), layers=layers, targets=targets)
    assert list(together.layers) == list(layers)
    for name, layer in layers.items():
        alone = class_activation(model, golden_input(), layers={name: layer}, targets=targets).layers[name]
        np.testing.assert_allclose(together.layers[name].gradcam, alone.gradcam, atol=1e-12)
    # c2 is followed by a ReLU that works in place: its map is of what the layer returned, negative values included.
    with torch.no_grad():
        returned = model.c2(model.pool(torch.relu(model.c1(golden_input()))))[0].numpy()
    raw = np.einsum("k,khw->hw", together.layers["c2"].alpha[0], returned)
    assert returned.min() < 0
    np.testing.assert_allclose(together.layers["c2"].gradcam[0], raw, atol=1e-12)


def test_the_model_is_left_as_it_was() -> None:
    model = Golden().train()
    model.pool.eval()
    model.c1.weight.requires_grad_(False)
    maps(model, golden_input(), Target(class_index=0, weights=REGION))
    assert model.training and model.c3.training and not model.pool.training
    assert not model.c1.weight.requires_grad and model.c3.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.pool._forward_hooks and not model._forward_pre_hooks


def test_no_graph_is_kept_below_the_layer() -> None:
    model = Golden()
    grads: list[bool] = []
    model.c1.register_forward_hook(lambda module, inputs, output: grads.append(output.requires_grad))
    maps(model, golden_input(), Target(class_index=0, weights=REGION))
    assert grads == [False]


def test_what_has_no_map_is_refused() -> None:
    model = Golden()
    model.unused = nn.Conv2d(3, 4, 1)
    target = Target(class_index=0, weights=REGION)
    with pytest.raises(ValueError, match="'unused' did not run"):
        maps(model, golden_input(), target, layer="unused")
    with pytest.raises(ValueError, match="at least one"):
        maps(model, golden_input())
    with pytest.raises(ValueError, match="class 3"):
        maps(model, golden_input(), Target(class_index=3, weights=REGION))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        maps(model, golden_input(), Target(class_index=0, weights=REGION[:4, :4]))

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.twice, self.side = nn.Flatten(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            self.flat(x)
            self.side(x)
            return {"out": self.twice(self.twice(x))}

    x, target = torch.rand(1, 3, 8, 8), Target(class_index=0, weights=REGION)
    for layer, words in (("flat", "returns"), ("twice", "more than once"), ("side", "depend")):
        with pytest.raises(ValueError, match=words):
            maps(Odd(), x, target, layer=layer)


class Mixed(nn.Module):
    """Strides, dilation, normalisation, transposed and grouped convolutions behind the layer, in double precision."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pool = nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.down = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.wide, self.up = nn.Conv2d(6, 6, 3, padding=2, dilation=2), nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 3, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.pool(x)
        inner = F.relu(self.down(F.relu(self.norm(x))))
        return {"out": self.head(torch.cat([x, F.relu(self.up(F.relu(self.wide(inner))))], dim=1))}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(-3, 3), st.permutations(range(3)))
def test_the_laws_of_maps(seed: int, a: float, b: float, order: list[int]) -> None:
    """Linear in a target's weights, additive over disjoint regions; batch mates, constants and names of classes play no part."""
    generator = np.random.default_rng(seed)
    model, x = Mixed(seed), torch.from_numpy(generator.normal(size=(2, 3, 12, 16)))
    first = np.zeros((12, 16))
    top, left = generator.integers(0, 9), generator.integers(0, 12)
    first[top : top + 3, left : left + 4] = 1
    second = (generator.random((12, 16)) < 0.1) * (1 - first)
    weights = [first, second, a * first + b * second, first + second]
    found = maps(model, x, *(Target(class_index=1, weights=w, image=1) for w in weights))
    alone = maps(model, x[1:], *(Target(class_index=1, weights=w) for w in weights))
    renamed = Mixed(seed)
    with torch.no_grad():
        renamed.head.weight.copy_(model.head.weight[order])
        renamed.head.bias.copy_(model.head.bias[order] + 11)
    other = maps(renamed, x, *(Target(class_index=order.index(1), weights=w, image=1) for w in weights))
    for kind in ("gradcam", "hirescam"):
        values = getattr(found, kind)
        np.testing.assert_allclose(values[2], a * values[0] + b * values[1], atol=1e-9)
        np.testing.assert_allclose(values[3], values[0] + values[1], atol=1e-9)
        np.testing.assert_allclose(getattr(alone, kind), values, atol=1e-10)
        np.testing.assert_allclose(getattr(other, kind), values, atol=1e-10)
