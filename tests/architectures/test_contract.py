"""What every architecture file promises; a new file is tested without an edit here."""

import inspect
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from segpipe import components
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures.gradcam import Target, class_activation
from segpipe.inference import forward_at_size
from segpipe.losses import cross_entropy
from segpipe.tasks import semantic
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
    outputs, target = forward_at_size(model, torch.randn(2, 3, 64, 64)), torch.randint(CLASSES, (2, 64, 64))
    criterion = semantic.build_criterion(nn.CrossEntropyLoss(), architecture=file, ignore_index=255)
    own = criterion.terms(outputs, target) if isinstance(criterion, semantic.NetworkCriterion) else {}
    assert outputs.keys() | own.keys() == file.LOSS_WEIGHTS.keys()
    assert all(out.shape == (2, CLASSES, 64, 64) for out in outputs.values())
    semantic.loss(outputs, target, criterion=criterion, loss_weights=file.LOSS_WEIGHTS).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("training", [True, False])
def test_ignored_pixels_have_no_part_in_the_loss(file: ModuleType, model: nn.Module, training: bool) -> None:
    pixel_loss = cross_entropy.build(num_classes=CLASSES, ignore_index=255)
    criterion = semantic.build_criterion(pixel_loss, architecture=file, ignore_index=255)
    outputs = forward_at_size(model.train(training), torch.randn(2, 3, 40, 40))
    nothing = torch.full((2, 40, 40), 255)
    assert semantic.loss(outputs, nothing, criterion=criterion, loss_weights=file.LOSS_WEIGHTS) == 0
    some = torch.where(torch.rand(2, 40, 40) < 0.5, torch.randint(CLASSES, (2, 40, 40)), nothing)
    assert semantic.loss(outputs, some, criterion=criterion, loss_weights=file.LOSS_WEIGHTS).isfinite()


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


def test_overfits_four_images(file: ModuleType) -> None:
    """From its own initial weights, in at most 80 steps, to half the loss of the best answer that is the same for all pixels."""
    network = file.build(num_classes=2, **file.TINY).train()
    target = torch.zeros(4, 32, 32, dtype=torch.long)
    for labels, (top, left) in zip(target, ((2, 2), (2, 14), (14, 2), (14, 14)), strict=True):
        labels[top : top + 16, left : left + 16] = 1
    x = torch.randn(4, 3, 32, 32) * 0.3 + target[:, None]
    share = target.float().mean()
    constant = -(share * share.log() + (1 - share) * (1 - share).log())
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward_at_size(network, x)["out"], target)
        if loss < 0.5 * constant:
            break
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * constant


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


def test_every_cam_layer_gives_a_map(file: ModuleType, model: nn.Module) -> None:
    region = np.zeros((64, 64), np.float32)
    region[20:40, 10:50] = 1 / 800
    found = class_activation(
        model,
        torch.randn(1, 3, 64, 64),
        layers=file.cam_layers(model),
        targets=[Target(class_index=1, weights=region)],
        forward=lambda network, x: forward_at_size(network, x)["out"],
    )
    assert found.layers.keys() == file.cam_layers(model).keys()
    for name, maps in found.layers.items():
        for values in (maps.gradcam, maps.hirescam):
            assert values.ndim == 3 and np.isfinite(values).all() and values.any(), name


def an_input(network: nn.Module) -> torch.Tensor:
    """Two images of a size that the network takes as it is."""
    rule = network.input_rule
    return torch.randn(2, 3, *(rule.fixed or (rule.padded(64), rule.padded(48))))


def test_exports_or_says_why_not(file: ModuleType) -> None:
    network = file.build(num_classes=CLASSES, **file.TINY).eval()
    x, reason = an_input(network), getattr(file, "EXPORT", None)
    try:
        program = torch.export.export(network, (x,))
    except Exception as error:
        assert reason, f"torch.export fails; if it has to, EXPORT says why: {error}"
        return
    assert reason is None, f"it exports, although EXPORT says: {reason}"
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x)["out"], network(x)["out"], rtol=1e-3, atol=1e-4)


def test_compiles_or_says_why_not(file: ModuleType) -> None:
    network = file.build(num_classes=CLASSES, **file.TINY).eval()
    x, reason = an_input(network), getattr(file, "COMPILE", None)
    torch.compiler.reset()
    try:
        with torch.no_grad():
            out = torch.compile(network, backend="aot_eager", fullgraph=True)(x)["out"]
    except Exception as error:
        assert reason, f"torch.compile fails; if it has to, COMPILE says why: {error}"
        return
    assert reason is None, f"it compiles, although COMPILE says: {reason}"
    with torch.no_grad():
        torch.testing.assert_close(out, network(x)["out"], rtol=1e-3, atol=1e-4)


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
