"""The convert stage as a process, killed at several moments: nothing half-made is seen, and the next run writes the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from segpipe import download
from segpipe.convert import SMALL
from segpipe.datasets import scenes
from stages import convert
from tests.conftest import tiny_params
from tests.imports import ROOT

pytestmark = pytest.mark.slow
COUNT = 240
SCENES = {"format": "scenes", "size": [64, 64], "images": {"train": COUNT - 40, "val": 20, "test": 20}}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml and the packed source of one dataset, large enough for worker processes."""
    assert COUNT > SMALL
    folder = tmp_path_factory.mktemp("survives")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params() | {"datasets": {"scenes": SCENES}}))
    options = {key: value for key, value in SCENES.items() if key != "format"}
    download.generate(folder / "data/raw/scenes", scenes.generate, name="scenes", seed=0, options=options)
    return folder


@pytest.fixture
def started() -> Iterator[list[psutil.Process]]:
    """The processes of a test: none of them outlives it."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        if process.is_running():
            process.kill()
        if isinstance(process, psutil.Popen):
            process.wait()
            process.stdout.close()
            process.stderr.close()


@pytest.fixture
def undisturbed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Run the stage in this process, as on a machine with one core, and give what it made."""

    def run() -> dict[str, str]:
        with monkeypatch.context() as patched:
            patched.chdir(workspace)
            patched.setattr(sys, "argv", ["convert", "scenes"])
            patched.setattr(os, "sched_getaffinity", lambda _: {0})
            convert.main()
        return content(workspace)

    return run


def start(workspace: Path, started: list[psutil.Process]) -> psutil.Popen:
    command = [sys.executable, "-m", "stages.convert", "scenes"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = psutil.Popen(command, cwd=workspace, env=ENVIRONMENT, text=True, **pipes)
    started.append(process)
    return process


def reach(process: psutil.Popen, done: int, started: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until the stage says that so many samples are converted; its worker processes."""
    for line in process.stdout:
        if line == f"converted {done} of {COUNT}\n":
            workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
            started += workers
            return workers
    return pytest.fail(f"it ended before: {process.stderr.read()}")


def content(workspace: Path) -> dict[str, str]:
    """The sha256 of every file that the stage has made, by its path."""
    rooms = ("data/converted/scenes", "reports")
    made = (path for room in rooms for path in (workspace / room).rglob("*") if path.is_file())
    return {path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def left_over(workspace: Path) -> list[str]:
    """What lies beside the dataset and in the folder for unpacking."""
    return [p.name for room in ("data/converted", ".cache/raw") for p in (workspace / room).iterdir() if p.name != "scenes"]


def test_killed_at_any_moment_nothing_is_half_made(
    workspace: Path, started: list[psutil.Process], undisturbed: Callable[[], dict[str, str]]
) -> None:
    whole = undisturbed()
    assert {"data/converted/scenes/dataset.json", "reports/datasets/scenes/index.html"} < set(whole)

    process = start(workspace, started)
    reach(process, COUNT, started)  # all are converted, and the whole is being checked
    process.kill()
    process.wait()
    assert content(workspace) == whole, "the dataset that was there before is untouched"

    shutil.rmtree(workspace / "data/converted")
    shutil.rmtree(workspace / "reports")
    process = start(workspace, started)
    reach(process, COUNT // 10, started)
    process.kill()
    process.wait()
    assert content(workspace) == {}, "half a dataset is there"

    process = start(workspace, started)
    workers = reach(process, COUNT // 10, started)
    if workers:  # a machine with one core has none
        workers[-1].kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1, "a dead worker ends the stage"
        assert "scenes: a worker process was ended from outside" in said and "Traceback" not in said
        assert content(workspace) == {} and left_over(workspace) == []
        assert psutil.wait_procs(workers, timeout=20)[1] == [], "the other workers go too"
    else:
        process.kill()
    assert undisturbed() == whole
    assert left_over(workspace) == [] and not (workspace / ".cache/raw/scenes").exists()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: no worker processes")
def test_workers_end_with_the_process_that_started_them(workspace: Path, started: list[psutil.Process]) -> None:
    process = start(workspace, started)
    workers = reach(process, COUNT // 10, started)
    assert len(workers) > 1
    process.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=5)[1] == [], "they would hold memory, and the pipes of whoever reads the stage"
