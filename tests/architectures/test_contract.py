"""What every architecture file promises; a new file is tested without an edit here."""

import inspect
from types import ModuleType

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from segpipe import components
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.inference import forward_at_size
from tests.architectures import probe

NAMES = components.names("architectures")
CLASSES = 5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=NAMES)
def file(request: pytest.FixtureRequest) -> ModuleType:
    return components.load("architectures", request.param)


@pytest.fixture
def model(file: ModuleType) -> nn.Module:
    """A small build, in eval mode, in which no weight is zero (FCN's score layers start at zero and would hide the rest)."""
    network = file.build(num_classes=CLASSES, **file.TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def test_declares_what_it_is(file: ModuleType) -> None:
    assert file.__doc__ and len(file.__doc__.splitlines()) > 3
    assert {"title", "year"} <= file.SOURCE.keys()
    assert file.TASK == "semantic"
    assert file.LOSS_WEIGHTS["out"] > 0
    assert isinstance(file.INPUT_RULE, InputRule)


def test_build_takes_keywords_with_defaults_only(file: ModuleType) -> None:
    parameters = inspect.signature(file.build).parameters
    assert list(parameters)[:2] == ["num_classes", "in_channels"]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert [name for name, p in parameters.items() if p.default is inspect.Parameter.empty] == ["num_classes"]
    assert parameters["in_channels"].default == 3


def test_the_default_build_has_the_declared_rule(file: ModuleType) -> None:
    with torch.device("meta"):
        assert file.build(num_classes=2).input_rule == file.INPUT_RULE


@pytest.mark.parametrize("size", [(37, 53), (64, 48), (3, 5)])
def test_answers_at_the_image_size(model: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        out = forward_at_size(model, torch.randn(2, 3, *size))["out"]
    assert out.shape == (2, CLASSES, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("channels", [1, 4])
def test_takes_other_numbers_of_channels(file: ModuleType, channels: int) -> None:
    network = file.build(num_classes=CLASSES, in_channels=channels, **file.TINY).eval()
    with torch.no_grad():
        assert forward_at_size(network, torch.randn(1, channels, 40, 40))["out"].shape == (1, CLASSES, 40, 40)


def test_gradients_reach_every_trainable_parameter(file: ModuleType, model: nn.Module) -> None:
    model.train()
    outputs = forward_at_size(model, torch.randn(2, 3, 64, 64))
    assert outputs.keys() == file.LOSS_WEIGHTS.keys()
    sum(F.cross_entropy(out, torch.randint(CLASSES, (2, 64, 64))) for out in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_batch_mates_do_not_matter_in_eval(model: nn.Module) -> None:
    x = torch.randn(3, 3, 48, 64, dtype=torch.float64)
    model.double()
    with torch.no_grad():
        together, alone = forward_at_size(model, x)["out"][1:2], forward_at_size(model, x[1:2])["out"]
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_trains_on_a_batch_of_one(model: nn.Module) -> None:
    model.train()
    loss = forward_at_size(model, torch.randn(1, 3, 64, 64))["out"].square().mean()
    loss.backward()
    assert loss.isfinite()


def test_bfloat16_gives_a_finite_loss(model: nn.Module) -> None:
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        out = forward_at_size(model, torch.randn(2, 3, 64, 64))["out"]
    loss = F.cross_entropy(out.float(), torch.randint(CLASSES, (2, 64, 64)))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_learns(file: ModuleType) -> None:
    """From its own initial weights, a few steps bring the loss on one batch well below the best constant answer's."""
    network = file.build(num_classes=2, **file.TINY).train()
    x = torch.randn(4, 3, 32, 32) * 0.3
    target = torch.zeros(4, 32, 32, dtype=torch.long)
    target[:, 8:24, 10:30] = 1
    x[:, :, 8:24, 10:30] += 1.0
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward_at_size(network, x)["out"], target)
        loss.backward()
        optimizer.step()
    share = target.float().mean()
    constant = -(share * share.log() + (1 - share) * (1 - share).log())
    assert loss < 0.6 * constant


def test_the_state_survives_safetensors(file: ModuleType, model: nn.Module) -> None:
    state = load(save({name: value.contiguous() for name, value in model.state_dict().items()}))
    again = file.build(num_classes=CLASSES, **file.TINY).eval()
    again.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(forward_at_size(model, x)["out"], forward_at_size(again, x)["out"])


def test_cam_layers_are_feature_maps_deepest_first(file: ModuleType, model: nn.Module) -> None:
    layers = file.cam_layers(model)
    shapes: dict[str, torch.Size] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda module, inputs, output, name=name: shapes.update({name: output.shape}))
    with torch.no_grad():
        forward_at_size(model, torch.randn(2, 3, 64, 64))
    assert shapes.keys() == layers.keys()
    assert all(len(shape) == 4 and shape[0] == 2 for shape in shapes.values())
    strides = [file.cam_grid(model)[name].stride for name in layers]
    assert strides[0] == max(strides)


def test_cam_grid_says_where_the_cells_are(file: ModuleType) -> None:
    network = file.build(num_classes=CLASSES, **file.TINY)
    probe.assert_grid(network, layers=file.cam_layers(network), grids=file.cam_grid(network))


@pytest.mark.parametrize(("option", "value"), [("num_classes", 0), ("in_channels", 0), ("num_classes", True)])
def test_numbers_that_cannot_be_are_refused(file: ModuleType, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        file.build(**{"num_classes": 3, **file.TINY, option: value})


def test_a_wrong_choice_names_the_choices(file: ModuleType) -> None:
    for name, parameter in inspect.signature(file.build).parameters.items():
        if isinstance(parameter.default, str):
            with pytest.raises(ValueError, match=rf"{name}.*no-such.*{parameter.default}"):
                file.build(**{"num_classes": 3, **file.TINY, name: "no-such"})
        elif isinstance(parameter.default, int | float):
            with pytest.raises(ValueError, match=rf"{name}.*-1"):
                file.build(**{"num_classes": 3, **file.TINY, name: -1})
