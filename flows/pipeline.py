"""The pipeline as a Prefect flow: each DVC stage is a task of the same name; order comes from DVC, places and limits from here.

`make flow` runs it here; prefect.yaml deploys it on a schedule, and `train_one` on a GPU work pool. Only downloads are retried: a
stage that failed for another reason would fail again, and what did finish is in DVC's cache.
"""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

# Nothing phones home: said here too, for a worker that starts this file in an environment of its own.
for _switch, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}.items():
    os.environ.setdefault(_switch, _value)

from prefect import flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.concurrency.sync import concurrency  # noqa: E402
from prefect.futures import PrefectFuture, wait  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from flows.graph import DVC, read_graph  # noqa: E402

TRAINING_LIMIT = "segpipe-training"
DOWNLOAD_RETRY_SECONDS = [10, 60, 300]


def run_logged(command: list[str], *, workspace: Path) -> None:
    """Run `command` in `workspace`, its output live in the task's log.

    The command's whole process group ends with this call, also when the flow is cancelled or its process is killed.

    Raises:
        RuntimeError: the command failed; the message holds its last lines.
    """
    logger = get_run_logger()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    package = Path(__file__).resolve().parent.parent
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), environment.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.supervise", *command],
        cwd=workspace,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert process.stdin and process.stdout
    tail: list[str] = []
    try:
        for line in process.stdout:
            logger.info(line.rstrip())
            tail = [*tail[-19:], line]
        code = process.wait()
    finally:
        process.stdin.close()  # tells the supervisor to end the group, should it still run
        process.wait()
        process.stdout.close()
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{''.join(tail)}")


@task(task_run_name="{stage}")
def run_stage(stage: str, workspace: str, pull: bool = False) -> None:
    """Bring one DVC stage up to date; a training first takes one of the training slots."""
    where = Path(workspace)
    command = [*DVC, "--wait-for-lock", "repro", "-s", stage]
    if pull:
        command[-2:-2] = ["--pull", "--allow-missing"]
    if stage.startswith("train@"):
        # A slot that the server forgot must not end hours of training, so a failed renewal only warns.
        with concurrency(TRAINING_LIMIT, occupy=1, strict=True, raise_on_lease_renewal_failure=False):
            run_logged(command, workspace=where)
    else:
        run_logged(command, workspace=where)


@flow(name="segpipe", task_runner=ThreadPoolTaskRunner(max_workers=256))
def pipeline(workspace: str = ".", training_slots: int | None = None, reports_url: str | None = None) -> None:
    """All stages, each as soon as what it waits for is done; independent ones in parallel.

    Args:
        workspace: the folder that holds dvc.yaml and params.yaml.
        training_slots: how many trainings run at a time; by default one per GPU, or one where there is none.
        reports_url: where the reports folder is served, for links; by default they are named by path.
    """
    where = Path(workspace).resolve()
    graph = read_graph(where)
    set_training_slots(training_slots or default_training_slots())
    futures: dict[str, PrefectFuture] = {}
    for stage, above in graph.items():
        stage_task = run_stage
        if stage.startswith("download@"):
            stage_task = run_stage.with_options(retries=len(DOWNLOAD_RETRY_SECONDS), retry_delay_seconds=DOWNLOAD_RETRY_SECONDS)
        futures[stage] = stage_task.submit(stage, str(where), wait_for=[futures[name] for name in above])
    wait(list(futures.values()))
    failed = [stage for stage, future in futures.items() if not future.state.is_completed()]
    if "compare" not in failed:
        publish(where, graph, reports_url)
    if failed:
        raise RuntimeError(f"these stages did not finish: {', '.join(failed)}; the log of the first one says why")


@flow(name="train-one")
def train_one(experiment: str, workspace: str = ".", pull: bool = False, push: bool = False) -> None:
    """One training and its evaluation, on a worker that may be another machine with a clone of its own.

    Args:
        experiment: a row of `experiments` in params.yaml.
        workspace: the clone's folder.
        pull: fetch only what the training needs from the DVC remote.
        push: send the results, with the run cache, to the DVC remote, where the controller's `dvc pull --run-cache` finds them.
    """
    where = Path(workspace).resolve()
    stages = [f"train@{experiment}", f"evaluate@{experiment}"]
    graph = read_graph(where)
    if stages[0] not in graph:
        known = ", ".join(name.partition("@")[2] for name in graph if name.startswith("train@"))
        raise ValueError(f"experiments: no {experiment!r}. There are: {known}.")
    set_training_slots(default_training_slots())
    for stage in stages:
        run_stage(stage, str(where), pull)
    if push:
        run_logged([*DVC, "push", "--run-cache", *stages], workspace=where)


def default_training_slots() -> int:
    """One training per GPU that this machine lists, or one at a time where it has none."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except FileNotFoundError:
        return 1
    return max(1, len(listed.stdout.splitlines())) if listed.returncode == 0 else 1


def set_training_slots(slots: int) -> None:
    """Create or change the global concurrency limit that every training takes a slot of."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(TRAINING_LIMIT, slots)


def publish(workspace: Path, graph: dict[str, set[str]], reports_url: str | None) -> None:
    """The leaderboard, the most important findings and the links to all reports, as artifacts of the flow run."""
    with (workspace / "reports/comparison/leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    create_table_artifact(table=rows, key="leaderboard", description="Every model on its test split (DVC: compare)")
    pages, findings = {"comparison": "comparison/index.html"}, ["# Why the models fail", ""]
    for stage in graph:
        if stage.startswith("explain@"):
            name = stage.partition("@")[2]
            pages[f"evaluation of {name}"] = f"{name}/evaluation/index.html"
            pages[f"failures of {name}"] = f"{name}/failures/index.html"
            found = json.loads((workspace / "failures" / name / "summary.json").read_text())["findings"]
            findings += [f"## {name}", "", *(f"1. **{_plain(f['claim'])}** {_plain(f['text'])}" for f in found), ""]
    if reports_url:
        create_link_artifact(f"{reports_url}/comparison/index.html", link_text="comparison", key="comparison")
    lines = [
        f"- [{title}]({reports_url}/{quote(page)})" if reports_url else f"- {title}: `reports/{page}`"
        for title, page in pages.items()
    ]
    create_markdown_artifact("\n".join(findings), key="findings", description="The three most important findings of each model")
    create_markdown_artifact("\n".join(["# Reports", "", *lines]), key="reports", description="The pages of this run")


def _plain(text: str) -> str:
    """`text` with nothing in it that Markdown or HTML would act on: class names and ids come from outside."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", lambda m: f"&#{ord(m[0])};", text)
