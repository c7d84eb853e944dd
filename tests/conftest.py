"""Shared fixtures: a tiny pipeline that has really run, a browser, a Prefect server. Slow tests run after all fast ones."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing phones home, and a test never talks to a server that happens to run on this machine.
os.environ |= {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
for _name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "SEGPIPE_REPORTS_URL"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402
import yaml  # noqa: E402

from tests.imports import ROOT  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SAMPLES = Path(os.environ.get("SEGPIPE_SAMPLE_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what starts servers, browsers or whole pipelines goes last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """MLflow writes its address into the environment, where the next test's pipeline would find it: each test starts without."""
    _restore_mlflow()
    yield
    _restore_mlflow()


def _restore_mlflow() -> None:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_"))]:
        del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real datasets in their original layouts; tests that need it are skipped where it is not."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no sample data at {SAMPLES} (SEGPIPE_SAMPLE_DATA)")
    return SAMPLES


def tiny_params() -> dict[str, Any]:
    """params.yaml cut down so that the whole pipeline takes seconds: the same stages, small images, two epochs, two families."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"] = {"scenes": {"format": "scenes", "size": [64, 80], "images": {"train": 16, "val": 4, "test": 6}}}
    params["train"] |= {"epochs": 2, "batch_size": 8, "workers": 0}
    unet = {"architecture": "unet", "options": {"padding": "same", "norm": "batch", "width": 4}}
    row = {"dataset": "scenes", "loss": "cross_entropy"}
    params["experiments"] = {
        "unet": row | unet,
        "unet-seed1": row | unet | {"seed": 1},
        "segnet": row | {"architecture": "segnet", "options": {"width": 4}, "class_weights": "median_frequency"},
    }
    params["explain"]["regions"] = 6
    params["compare"]["resamples"] = 200
    return params


def make_workspace(folder: Path, params: dict[str, Any]) -> Path:
    """A git and DVC repository in `folder` with this project's code and the given parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("segpipe", "stages", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "add", "-A"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", "start"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def run(workspace: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in `workspace` with this interpreter's programs first in PATH; its output is in the assertion's message."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `dvc repro` has run the whole tiny pipeline once. Tests must not change it."""
    _restore_mlflow()  # this fixture is made before the first test that uses it is cleaned
    workspace = make_workspace(tmp_path_factory.mktemp("tiny") / "workspace", tiny_params())
    run(workspace, "dvc", "repro")
    return workspace


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium driven by Playwright; without one on this machine the tests that need it are skipped and say so."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()
