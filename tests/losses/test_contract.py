"""Every file in segpipe/losses keeps the contract of segpipe/losses/__init__.py."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segpipe import components

K, IGNORE = 4, 255


@pytest.fixture(params=components.names("losses"))
def module(request: pytest.FixtureRequest) -> Any:
    return components.load("losses", request.param)


@pytest.fixture
def loss(module: Any) -> nn.Module:
    built: nn.Module = module.build(num_classes=K, ignore_index=IGNORE)
    return built


def batch(*, ignored: bool = True, seed: int = 0) -> tuple[Tensor, Tensor]:
    """float64 logits (2, K, 3, 5) that need a gradient, and a target in which class K-1 is absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, K, 3, 5, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.randint(0, K - 1, (2, 3, 5), generator=generator)
    if ignored:
        target[0, 0, :2] = target[1, 2, 4] = IGNORE
    return logits, target


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


def test_build_takes_keywords_with_defaults(module: Any) -> None:
    parameters = inspect.signature(module.build).parameters
    assert list(parameters)[:2] == ["num_classes", "ignore_index"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert parameters["ignore_index"].default == 255
    assert all(p.default is not p.empty for name, p in parameters.items() if name != "num_classes")


def test_scalar_and_finite_with_an_absent_class(loss: nn.Module) -> None:
    logits, target = batch()
    value = loss(logits, target)
    assert value.shape == () and value > 0 and value.isfinite()
    assert gradient(value, logits).isfinite().all()


@pytest.mark.parametrize("label", [0, K - 1])
def test_finite_when_only_one_class_is_present(loss: nn.Module, label: int) -> None:
    logits, target = batch()
    value = loss(logits, torch.full_like(target, label))
    assert value.isfinite() and gradient(value, logits).isfinite().all()


def test_all_ignored_is_zero(loss: nn.Module) -> None:
    logits, target = batch()
    value = loss(logits, torch.full_like(target, IGNORE))
    assert value == 0 and (gradient(value, logits) == 0).all()


def test_ignored_pixels_have_no_gradient_and_no_influence(loss: nn.Module) -> None:
    logits, target = batch()
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    value = loss(logits, target)
    slope = gradient(value, logits)
    assert (slope[ignored] == 0).all() and (slope[~ignored] != 0).all()
    assert loss(torch.where(ignored, logits + 3, logits), target) == value


@pytest.mark.parametrize("ignore_index", [0, 65535])
def test_another_ignore_index(module: Any, ignore_index: int) -> None:
    logits, target = batch(ignored=False)
    slope = gradient(module.build(num_classes=K, ignore_index=ignore_index)(logits, target), logits)
    assert torch.equal((slope == 0).all(1), target == ignore_index)


def test_gradcheck(loss: nn.Module) -> None:
    logits, target = batch()
    small, labels = logits[:, :, :2, :2].detach().requires_grad_(), target[:, :2, :2]
    assert (labels == IGNORE).any() and (labels != IGNORE).any()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), small)


def test_pixel_order_does_not_matter(loss: nn.Module) -> None:
    logits, target = batch()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    shuffled = logits.flatten(2)[..., order].unflatten(2, (3, 5)), target.flatten(1)[..., order].unflatten(1, (3, 5))
    torch.testing.assert_close(loss(*shuffled), loss(logits, target), rtol=0, atol=1e-12)


def test_perfect_prediction_costs_nothing_and_the_opposite_costs_more(loss: nn.Module) -> None:
    _, target = batch()
    truth = nn.functional.one_hot(target.where(target != IGNORE, 0), K).permute(0, 3, 1, 2).double()
    assert 0 <= loss(50 * truth, target) < 1e-9
    assert loss(-50 * truth, target) > loss(0 * truth, target) > loss(truth, target)


def test_descent_on_the_logits_reaches_the_truth(loss: nn.Module) -> None:
    logits, target = batch()
    x = torch.zeros_like(logits)
    for _ in range(30):
        x.requires_grad_()
        x = x.detach() - 5.0 * gradient(loss(x, target), x)
    valid = target != IGNORE
    assert torch.equal(x.argmax(1)[valid], target[valid])


def test_float32_under_autocast(loss: nn.Module) -> None:
    logits, target = batch()
    logits = (20 * logits.detach()).bfloat16().requires_grad_()
    plain = loss(logits.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, target)
    assert value.dtype == torch.float32 and torch.equal(value, plain)
    assert gradient(value, logits).isfinite().all()


@pytest.mark.parametrize("size", [80.0, 3e4])
def test_extreme_logits_stay_finite(loss: nn.Module, size: float) -> None:
    logits, target = batch()
    x = (size * logits.detach().sign()).half().requires_grad_()
    value = loss(x, target)
    assert value.isfinite() and gradient(value, x).isfinite().all()


def test_pixel_weight_zero_is_ignored_and_a_constant_changes_nothing(loss: nn.Module) -> None:
    logits, target = batch(ignored=False)
    _, masked = batch(ignored=True)
    weight = (masked != IGNORE).double()
    torch.testing.assert_close(loss(logits, target, weight), loss(logits, masked))
    torch.testing.assert_close(loss(logits, masked, torch.full_like(weight, 3.0)), loss(logits, masked))
    uneven = torch.linspace(0.1, 2.0, 30, dtype=torch.float64).view(2, 3, 5)
    assert not torch.isclose(loss(logits, masked, uneven), loss(logits, masked))


def test_integer_pixel_weight_is_a_repeated_pixel(loss: nn.Module) -> None:
    logits, target = batch()
    weight = torch.ones(2, 3, 5, dtype=torch.float64)
    weight[..., -1] = 2
    longer = torch.cat([logits, logits[..., -1:]], -1), torch.cat([target, target[..., -1:]], -1)
    torch.testing.assert_close(loss(logits, target, weight), loss(*longer))


def test_a_label_that_is_no_class_raises(loss: nn.Module) -> None:
    logits, target = batch()
    target[0, 0, 0] = K
    with pytest.raises((RuntimeError, IndexError), match="out of (bounds|range)"):
        loss(logits, target)


def test_wrong_shapes_are_not_broadcast(loss: nn.Module) -> None:
    logits, target = batch()
    for x, t in ((logits[:, :-1], target), (logits, target[:, :2]), (logits[:1], target)):
        with pytest.raises(AssertionError):
            loss(x, t)


def test_class_weights_move_with_the_module_and_are_no_parameters(module: Any) -> None:
    if "weight" not in inspect.signature(module.build).parameters:
        pytest.skip("takes no class weights")
    logits, target = batch()
    plain = module.build(num_classes=K)
    even, uneven = (module.build(num_classes=K, weight=w) for w in ([3.0] * K, [1.0, 2.0, 5.0, 9.0]))
    torch.testing.assert_close(even(logits, target), plain(logits, target))
    assert not torch.isclose(uneven(logits, target), plain(logits, target))
    assert not list(uneven.parameters()) and not uneven.state_dict()
    assert any(b.device.type == "meta" for b in uneven.to("meta").buffers())


@pytest.mark.parametrize("weight", [[1.0] * (K + 1), [1.0, -1.0, 1.0, 1.0], [0.0] * K, [1.0, float("nan"), 1.0, 1.0]])
def test_wrong_class_weights_raise(module: Any, weight: list[float]) -> None:
    if "weight" not in inspect.signature(module.build).parameters:
        pytest.skip("takes no class weights")
    with pytest.raises(ValueError, match="weight: "):
        module.build(num_classes=K, weight=weight)
