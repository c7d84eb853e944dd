"""Against a real MLflow server over HTTP, which then dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from segpipe.tracking import connection, glance, live_run, registry, runs
from tests.tracking import workspace
from tests.tracking.workspace import epoch_row, register

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Any, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def test_a_server_shows_all_and_its_death_costs_nothing(tmp_path: Path, uri: str) -> None:
    # Written straight into the file, as `dvc repro` does when no server is named ...
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    by_file = register(tmp_path, uri, "unet")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", str(tmp_path / ".servers/mlartifacts")]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        wait_for("mlflow server", lambda: connection.trouble(address) is None, seconds=120)
        # ... a server on that file shows it, artifacts too ...
        run_id = by_file["experiments"]["unet"]["run_id"]
        found = urllib.request.urlopen(f"{address}/get-artifact?path=failures/index.html&run_uuid={run_id}", timeout=30).read()
        assert found == (tmp_path / "reports/unet/failures/index.html").read_bytes()
        # ... and over HTTP the same files are found again, and new ones come in.
        workspace.add_experiment(tmp_path, "other", quality=0.8, seed=1, dataset="other", digest="d2", prefix="j")
        receipt = register(tmp_path, address, "unet", "other")
        assert receipt["complete"] and receipt["experiments"]["unet"]["run_id"] == run_id
        assert register(tmp_path, address, "unet", "other") == receipt
        assert glance.holds(address, receipt, contents_tag=runs.CONTENTS, alias=registry.ALIAS)
        model = connection.imported("mlflow.pyfunc").load_model("models:/segmenter-other@champion")
        assert model.metadata.signature.outputs.input_types()[0] == "uint8"
        said: list[str] = []
        row = {"experiment": "scenes", "name": "killed", "fingerprint": "f", "params": {}, "tags": {}}
        with live_run(uri=address, **row, report=said.append) as run:
            run.log_epoch(epoch_row(1, seed=2))
            wait_for("the first epoch", lambda: killed_runs(address), seconds=60)
            server.kill()
            server.wait()
            stop_group(server.pid)
            wait_for("the port to close", lambda: connection.trouble(address) is not None, seconds=30)
            run.log_epoch(epoch_row(2, seed=2))
            run.log_epoch(epoch_row(3, seed=2))
            run.finish("digest")
        assert len(said) == 1
    finally:
        server.kill()
        server.wait()
        stop_group(server.pid)
    workspace.add_experiment(tmp_path, "killed", quality=0.75, seed=2)
    assert not register(tmp_path, address, "unet", "other", "killed")["complete"]
    receipt = register(tmp_path, uri, "unet", "killed")
    assert receipt["complete"]
    client = connection.connect(uri, patience=5)
    found = client.search_runs([client.get_experiment_by_name("scenes").experiment_id], "attributes.run_name = 'killed'")
    assert len(found) == 1 and found[0].info.status == "FINISHED"
    assert [p.step for p in client.get_metric_history(found[0].info.run_id, "train_loss")] == [1, 2, 3]


def killed_runs(address: str) -> list[Any]:
    """The runs called `killed` that hold a first epoch."""
    body = json.dumps({"experiment_ids": ["1", "2"], "filter": "attributes.run_name = 'killed'"}).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[Any] = json.load(answer).get("runs", [])
    return [run for run in found if run["data"].get("metrics")]


def stop_group(group: int) -> None:
    """End what the server started: its workers are in the group that it was started with."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
