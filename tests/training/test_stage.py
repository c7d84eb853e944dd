"""The stage as a process: killed without warning at a moment nobody chose, it ends with the bits of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from segpipe import components, model_io, shards
from segpipe.params import Train
from stages import train
from tests.training import tiny

ROOT = Path(__file__).parents[2]
PARAMS = {
    "seed": 0,
    "datasets": {"tiny": {"format": "scenes"}},
    "augment": {"policy": "none", "copies": 0},
    "train": {
        "epochs": 5,
        "batch_size": 4,
        "lr": 0.01,
        "augmented": False,
        "checkpoint_minutes": 0.0,
        "class_weights": "median_frequency",
        "crop": [32, 32],
        "workers": 1,
        "device": "cpu",
    },
    "experiments": {
        "net": {
            "dataset": "tiny",
            "architecture": "unet",
            "options": {"width": 4, "padding": "same", "norm": "batch"},
            "loss": "cross_entropy",
        }
    },
    "evaluate": {},
    "explain": {},
    "compare": {},
    "register": {"model_name": "tiny"},
}


def test_volumes_are_refused_with_the_line_that_cuts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace(tmp_path)
    data = folder / "data" / "converted" / "tiny"
    shards.write_info(data, replace(shards.read_info(data), dimensions=3))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train", "net"])
    with pytest.raises(SystemExit, match=r"data/converted/tiny: holds volumes.* Set datasets.tiny.slices: 0 .* in params.yaml"):
        train.main()
    assert not (folder / "models").exists()


def workspace(folder: Path) -> Path:
    tiny.write_dataset(folder / "data" / "converted" / "tiny", train=32, val=4, sizes=((40, 48),))
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return folder


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_the_papers_rates_of_layers_can_be_left_out() -> None:
    deeplab = components.load("architectures", "deeplabv1")
    model = deeplab.build(num_classes=2, **deeplab.TINY)

    def rates(own: bool) -> set[float]:
        made = train._optimizer(model, deeplab, Train(epochs=1, batch_size=1, lr=0.5, layer_rates=own))
        return {group["lr"] for group in made.param_groups}

    assert rates(False) == {0.5} and rates(True) == {0.5, 1.0, 5.0, 10.0}


@pytest.mark.slow
def test_killed_and_run_again_it_writes_the_same_model(tmp_path: Path) -> None:
    left_alone, killed = workspace(tmp_path / "a"), workspace(tmp_path / "b")
    undisturbed = start(left_alone, "net")
    process = start(killed, "net")
    checkpoints = killed / ".cache" / "checkpoints"
    while not list(checkpoints.glob("net-*/state.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    delay = random.SystemRandom().uniform(0.0, 1.0)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed: the test needs more epochs"
    assert not (killed / "models").exists()
    out = finish(start(killed, "net"))
    assert "going on after" in out, out
    expected = finish(undisturbed)
    assert "epoch 1/5  train loss" in expected and "best validation mIoU" in expected
    weights = [(folder / "models" / "net" / "model.safetensors").read_bytes() for folder in (left_alone, killed)]
    assert weights[0] == weights[1], f"killed {delay:.3f} s after the first checkpoint"
    configs = [(folder / "models" / "net" / "config.json").read_text() for folder in (left_alone, killed)]
    assert configs[0] == configs[1]
    assert not list(checkpoints.iterdir()), "checkpoints are removed when the stage ends"
    assert sorted(p.name for p in (killed / "models" / "net").iterdir()) == [
        "config.json",
        "cost.json",
        "history.csv",
        "model.safetensors",
    ]
    model, config = model_io.load_model(killed / "models" / "net")
    assert not model.training and config["precision"] in ("fp32", "bf16") and len(config["loss_options"]["weight"]) == 3
    cost = json.loads((killed / "models" / "net" / "cost.json").read_text())
    assert cost["epochs"] == 5 and cost["parameters"] == sum(p.numel() for p in model.parameters())
