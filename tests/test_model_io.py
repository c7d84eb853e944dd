"""A saved model comes back as it was, or says why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from segpipe import components, model_io

OPTIONS = {"padding": "same", "norm": "batch", "width": 4}


def model_and_config() -> tuple[torch.nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = components.load("architectures", "unet").build(num_classes=3, **OPTIONS)
    known: dict[str, Any] = {"architecture": "unet", "options": OPTIONS, "num_classes": 3, "in_channels": 3, "size": (64, 64)}
    return model, dict.fromkeys(model_io.KEYS) | known


def test_round_trip(tmp_path: Path) -> None:
    model, config = model_and_config()
    model = model.to(memory_format=torch.channels_last)
    written = model_io.save_model(tmp_path / "unet", model, config)
    loaded, read = model_io.load_model(tmp_path / "unet")
    assert read == json.loads(json.dumps(written)) and read["digest"] == model_io.digest(tmp_path / "unet" / model_io.WEIGHTS)
    assert not loaded.training
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same_layout = loaded.to(memory_format=torch.channels_last)
        assert torch.equal(same_layout(x)["out"], model.eval()(x)["out"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert sorted(p.name for p in (tmp_path / "unet").iterdir()) == ["config.json", "model.safetensors"]


def test_bytes_depend_on_the_values_alone(tmp_path: Path) -> None:
    model, config = model_and_config()
    first = model_io.save_model(tmp_path / "a", model, config)
    second = model_io.save_model(tmp_path / "b", model.to(memory_format=torch.channels_last), config)
    assert first["digest"] == second["digest"]


def test_wrong_folders_say_what_is_wrong(tmp_path: Path) -> None:
    model, config = model_and_config()
    with pytest.raises(ValueError, match=r"model.safetensors: missing, so .* holds no trained model"):
        model_io.load_model(tmp_path / "none")
    model_io.save_model(tmp_path, model, config | {"options": OPTIONS | {"width": 8}})
    with pytest.raises(ValueError, match="does not fit the architecture 'unet'"):
        model_io.load_model(tmp_path)
    weights = tmp_path / model_io.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match="sha256 .* but config.json says"):
        model_io.load_model(tmp_path)
    with pytest.raises(AssertionError, match="config lacks architecture"):
        model_io.save_model(tmp_path, model, {})


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), model_io.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with model_io.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]
