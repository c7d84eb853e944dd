"""Counts, shapes and numbers of the published networks, most of them computed from the authors' own files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from segpipe import components
from segpipe.architectures.blocks.aspp import ASPP, RATES
from segpipe.architectures.blocks.resnet import ResNet
from tests.architectures import probe

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())
NARROW = {"unet": {"width": 4}, "segnet": {"width": 4}, "fcn": {"width": 4, "fc": 64}}
# One file per further network: rows of the same form, and `narrow`, the options with which the probe gives the same numbers.
for _path in sorted((HERE / "golden").glob("*.json")):
    _own = json.loads(_path.read_text())
    NARROW[_path.stem] = _own.get("narrow", {})
    for _kind in ("params", "stages", "probes"):
        GOLDEN[_kind] += _own.get(_kind, [])


def label(row: dict) -> str:
    return "-".join([row["architecture"], *(f"{key}={value}" for key, value in row["options"].items())])


def build(row: dict, **more: int) -> nn.Module:
    return components.load("architectures", row["architecture"]).build(**row["options"], **more)


def counts(model: nn.Module) -> tuple[int, int]:
    """All parameters, and those that train."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


@pytest.mark.parametrize("row", GOLDEN["params"], ids=label)
def test_parameters_to_the_unit(row: dict) -> None:
    with torch.device("meta"):
        total, trainable = counts(build(row))
    assert total == row["total"]
    if row["trainable"] is not None:
        assert trainable == row["trainable"]


@pytest.mark.parametrize("row", GOLDEN["stages"], ids=label)
def test_shapes_of_every_stage(row: dict) -> None:
    with torch.device("meta"):
        model = build(row).eval()
        seen: dict[str, list[int]] = {}
        for name in row["stages"]:
            model.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: list(output.shape)})
            )
        model(torch.empty(row["input"]))
    assert seen == row["stages"]


@pytest.mark.parametrize("row", GOLDEN["probes"], ids=lambda row: f"{label(row)}-{row['input'][-2]}x{row['input'][-1]}")
def test_numbers_of_the_probe(row: dict) -> None:
    model = probe.initialise(build(row, **NARROW.get(row["architecture"], {})))
    with torch.no_grad():
        found = probe.digest(model(probe.image(*row["input"]))["out"])
    assert_close(found, row["probe"])


@pytest.mark.parametrize("row", GOLDEN["deeplabv3_resnet101"], ids=lambda row: f"stride{row['output_stride']}")
def test_dilated_resnet_and_pyramid_give_deeplab_v3(row: dict) -> None:
    """DeepLab v3 with ResNet-101 is our trunk, our pyramid with full convolutions, and a 1x1 classifier."""

    def model(width: int, head: int) -> nn.Sequential:
        trunk = ResNet(name="resnet101", in_channels=3, output_stride=row["output_stride"], width=width)
        pyramid = ASPP(trunk.deep_channels, head, rates=RATES[row["output_stride"]], separable=False)
        return nn.Sequential(trunk, pyramid, nn.Conv2d(head, 21, 1))

    with torch.device("meta"):
        assert counts(model(64, 256))[0] == row["total"]
    trunk, *head = probe.initialise(model(4, 8))
    with torch.no_grad():
        _, deep = trunk(probe.image(*row["input"]))
        assert_close(probe.digest(nn.Sequential(*head)(deep)), row["probe"])


def test_width_changes_nothing_in_the_probe() -> None:
    """Why narrow networks may stand in for the full ones above."""
    x = probe.image(1, 3, 32, 48)
    with torch.no_grad():
        outs = [
            probe.initialise(build({"architecture": "segnet", "options": {"num_classes": 2}}, width=w))(x)["out"] for w in (4, 64)
        ]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-9, atol=0)


def assert_close(found: dict, expected: dict) -> None:
    assert found["shape"] == expected["shape"]
    assert found["points"] == pytest.approx(expected["points"], rel=1e-9)
    for key in ("mean", "std", "min", "max"):
        assert found[key] == pytest.approx(expected[key], rel=1e-9), key
