"""The Prefect flow on a real (temporary) Prefect server and the tiny pipeline."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.conftest import make_workspace, tiny_params
from tests.imports import ROOT

pytestmark = [
    pytest.mark.slow,
    # Prefect's server keeps threads and sockets open until the interpreter ends.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
    ),
]


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def task_runs(flow_run_id: UUID) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import TaskRunSort

    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])), sort=TaskRunSort.ID_DESC, limit=200
        )
    return {run.name: run.state_type.value if run.state_type else "" for run in runs}


def logs(flow_run_id: UUID) -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    with get_client(sync_client=True) as client:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
        return "\n".join(log.message for log in client.read_logs(wanted, limit=200, offset=0, sort=LogSort.TIMESTAMP_ASC))


def artifacts() -> dict[str, str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/artifacts/latest/filter", json={"limit": 200})
    return {str(artifact["key"]): str(artifact["data"]) for artifact in answer.json()}


def test_each_stage_is_a_task_of_its_name(prefect_server: None, tiny_workspace: Path) -> None:
    from flows.graph import read_graph
    from flows.pipeline import pipeline

    state = pipeline(workspace=str(tiny_workspace), training_slots=1, reports_url="http://127.0.0.1:1", return_state=True)
    assert state.is_completed(), state.message
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id
    assert task_runs(flow_run_id) == dict.fromkeys(read_graph(tiny_workspace), "COMPLETED")
    left = artifacts()
    assert "unet-seed1" in left["leaderboard"]
    assert "http://127.0.0.1:1/unet/failures/index.html" in left["reports"]
    assert "http://127.0.0.1:1/unet/evaluation/index.html" in left["reports"]
    assert "## unet-seed1" in left["findings"] and "1. **" in left["findings"]


def test_a_failing_stage_fails_the_flow_and_holds_back_what_waits_for_it(prefect_server: None, tmp_path: Path) -> None:
    from flows.pipeline import pipeline

    params = tiny_params()
    params["experiments"] = {"unet": params["experiments"]["unet"]}
    workspace = make_workspace(tmp_path / "workspace", params)
    (workspace / "stages/convert.py").write_text("print('no masks today')\nraise SystemExit(7)\n")
    state = pipeline(workspace=str(workspace), training_slots=1, return_state=True)
    assert state.is_failed()
    assert "convert@scenes" in str(state.message)
    assert state.state_details.flow_run_id
    runs = task_runs(state.state_details.flow_run_id)
    assert runs["download@scenes"] == "COMPLETED"
    assert runs["convert@scenes"] == "FAILED"
    assert runs["train@unet"] == "PENDING", "a stage whose input failed never starts"
    time.sleep(3)  # logs reach the server in batches
    assert "no masks today" in logs(state.state_details.flow_run_id)


def test_an_unknown_experiment_names_the_choices(prefect_server: None, tiny_workspace: Path) -> None:
    from flows.pipeline import train_one

    state = train_one("unett", workspace=str(tiny_workspace), return_state=True)
    assert state.is_failed()
    assert re.search(r"no 'unett'. There are: unet, unet-seed1, segnet", str(state.message))


def test_ending_the_flow_ends_the_stage_with_all_its_processes(prefect_server: None, tmp_path: Path) -> None:
    """kill -9 on the flow's process: DVC, its shell, and the stage itself are gone."""
    from prefect.settings import PREFECT_API_URL

    workspace = make_workspace(tmp_path / "workspace", tiny_params())
    note = workspace / "pid"
    (workspace / "stages/validate.py").write_text(
        f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)\n"
    )
    program = f"from flows.pipeline import pipeline; pipeline(workspace={str(workspace)!r})"
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    for _ in range(600):
        if note.exists() and note.read_text():
            break
        time.sleep(0.1)
    stage = int(note.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(200):
        if not Path(f"/proc/{stage}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{stage}").exists(), "the stage outlived its flow"


def test_the_deployments_are_made_and_run_where_the_worker_is(prefect_server: None, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_HOME": str(tmp_path)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (
        ["work-pool", "create", "segpipe", "--type", "process"],
        ["work-pool", "create", "gpu", "--type", "process"],
        ["deploy", "--all"],
    ):
        done = subprocess.run([*prefect, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        made = {name: client.read_deployment_by_name(name) for name in ("segpipe/nightly", "train-one/gpu")}
    assert all("SEGPIPE_WORKSPACE" in str(deployment.pull_steps) for deployment in made.values())
    assert not any(schedule.active for schedule in made["segpipe/nightly"].schedules)
