"""A training is followed live, goes on in its own run after a break, and never waits for or stumbles over MLflow."""

import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from segpipe.tracking import live, live_run, writer
from segpipe.tracking.live import LiveRun
from tests.tracking.workspace import epoch_row

TRAINING: dict[str, Any] = {
    "experiment": "scenes",
    "name": "unet",
    "fingerprint": "f1",
    "params": {"train": {"lr": 0.1}},
    "tags": {"a": "b"},
}


def test_a_broken_off_training_goes_on_in_its_own_run(uri: str, client: Any) -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), live_run(uri=uri, **TRAINING, report=said.append) as run:
        run.log_epoch(epoch_row(1, seed=0) | {"lr": np.float32(0.5), "val_loss": float("nan")})
        run.log_epoch(epoch_row(2, seed=0))
        raise KeyboardInterrupt
    experiment = client.get_experiment_by_name("scenes").experiment_id
    (found,) = client.search_runs([experiment])
    assert found.info.status == "FAILED" and found.info.run_name == "unet" and writer.DIGEST not in found.data.tags
    assert found.data.params == {"train.lr": "0.1"} and found.data.tags["a"] == "b"
    assert found.data.metrics["lr"] == 0.5 and "val_loss" not in found.data.metrics
    with live_run(uri=uri, **TRAINING, report=said.append) as run:
        run.log_epoch(epoch_row(2, seed=0))
        run.log_epoch(epoch_row(3, seed=0))
        run.finish("digest")
    (found,) = client.search_runs([experiment])
    assert found.info.status == "FINISHED" and found.data.tags[writer.DIGEST] == "digest"
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert [(p.step, p.value) for p in history] == [(1, 1 / 3), (2, 1 / 6), (3, 1 / 9)]
    assert said == []


def test_a_finished_training_that_is_repeated_adds_nothing(uri: str, client: Any) -> None:
    start = {"uri": uri, **TRAINING}
    assert writer.follow(start, [{"epoch": epoch_row(1, seed=0)}, {"finish": "digest"}]) is None
    assert "already complete" in str(writer.follow(start, [{"epoch": epoch_row(1, seed=0)}]))
    assert len(client.search_runs([client.get_experiment_by_name("scenes").experiment_id])) == 1


def test_a_dead_server_is_reported_once_and_training_goes_on() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with live_run(uri=uri, **TRAINING, report=said.append) as run:
            run.log_epoch(epoch_row(1, seed=0))
            run._process.wait()
            for epoch in range(2, 50):
                run.log_epoch(epoch_row(epoch, seed=0))
            run.finish("digest")
    assert len(said) == 1 and "does not answer" in said[0]


def test_a_wrong_address_is_reported_not_raised() -> None:
    said: list[str] = []
    with live_run(uri="file:///tmp/mlruns", **TRAINING, report=said.append) as run:
        run.finish("digest")
    assert len(said) == 1 and "sqlite:///" in said[0]


def test_a_writer_that_hangs_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FINISH_SECONDS", 0.1)
    said: list[str] = []
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    run = LiveRun(process, said.append)
    for epoch in range(2000):  # far more than a pipe holds
        run.log_epoch(epoch_row(epoch + 1, seed=0))
    run.close()
    assert process.returncode is not None
    assert len(said) == 1 and "no longer takes anything in" in said[0]
