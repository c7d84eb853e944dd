"""What this machine has, and what would fail: each check is one row; nothing is changed."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import psutil
import torch

from segpipe.params import PARAMS_FILE, ParamsError, read_params
from segpipe.tracking.connection import redacted, trouble

PACKAGES = ("dvc", "prefect", "mlflow", "torch", "torchvision", "albumentations", "numpy", "pyarrow")
LEAST_DISK_GB = 5.0
LEAST_MEMORY_GB = 4.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row: `status` is ok, warning (something will be slower or missing) or error (something will fail)."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine(workspace: Path, *, prefect_url: str, mlflow_uri: str) -> list[Check]:
    """All checks of the machine and of `workspace`; the servers are asked at the given addresses."""
    return [
        _python(),
        *_packages(),
        _device(),
        _memory(),
        _disk(workspace),
        _repository(workspace),
        _params(workspace),
        *_sources(workspace),
        _server("Prefect", f"{prefect_url}/health", "make ui starts it; `dvc repro` does not need it"),
        _mlflow(mlflow_uri),
    ]


def _python() -> Check:
    right = sys.version_info[:2] == (3, 11)
    advice = "" if right else "Python 3.11 is what the lock file is made for"
    return Check(name="Python", status="ok" if right else "error", found=platform.python_version(), advice=advice)


def _packages() -> list[Check]:
    rows = []
    for name in PACKAGES:
        try:
            rows.append(Check(name=name, status="ok", found=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append(Check(name=name, status="error", found="not installed", advice="make setup"))
    return rows


def _device() -> Check:
    cores = f"{len(os.sched_getaffinity(0))} CPU cores" if hasattr(os, "sched_getaffinity") else f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check(name="GPU", status="ok", found=f"{', '.join(names)} ({gigabytes:.0f} GiB each); {cores}")
    return Check(name="GPU", status="warning", found=f"none; {cores}", advice="full-size networks take days on a CPU: use widths")


def _memory() -> Check:
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    status = "ok" if free >= LEAST_MEMORY_GB else "warning"
    advice = "" if status == "ok" else f"under {LEAST_MEMORY_GB:.0f} GiB a training may be killed: lower batch_size"
    return Check(name="memory", status=status, found=f"{free:.1f} of {memory.total / 2**30:.1f} GiB free", advice=advice)


def _disk(workspace: Path) -> Check:
    free = shutil.disk_usage(workspace).free / 2**30
    status = "ok" if free >= LEAST_DISK_GB else "error"
    advice = "" if status == "ok" else f"under {LEAST_DISK_GB:.0f} GiB stages fail half-way: free some, or `dvc gc -w`"
    return Check(name="disk", status=status, found=f"{free:.1f} GiB free", advice=advice)


def _repository(workspace: Path) -> Check:
    if not (workspace / "dvc.yaml").exists():
        return Check(name="pipeline", status="error", found="no dvc.yaml here", advice="run it in the repository's folder")
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=workspace, capture_output=True, text=True)
    if done.returncode:
        advice = "DVC then needs `dvc config --local core.no_scm true`; models carry no revision"
        return Check(name="git", status="error", found="not a git repository", advice=advice)
    return Check(name="git", status="ok", found=f"revision {done.stdout.strip()}")


def _params(workspace: Path) -> Check:
    try:
        params = read_params(workspace / PARAMS_FILE)
    except ParamsError as error:
        return Check(name="params.yaml", status="error", found="not valid", advice=str(error))
    return Check(name="params.yaml", status="ok", found=f"{len(params.datasets)} datasets, {len(params.experiments)} experiments")


def _sources(workspace: Path) -> list[Check]:
    try:
        datasets = read_params(workspace / PARAMS_FILE).datasets.values()
    except ParamsError:
        return []  # the row of params.yaml has said it
    rows = []
    for dataset in datasets:
        local = dataset.source and "://" not in dataset.source
        if local and not (workspace / Path(str(dataset.source)).expanduser()).exists():
            advice = f"datasets.{dataset.name}.source: put the folder or archive there, or change the path"
            rows.append(
                Check(name=f"source of {dataset.name}", status="error", found=f"{dataset.source} is missing", advice=advice)
            )
    return rows


def _server(name: str, url: str, advice: str) -> Check:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return Check(name=name, status="ok", found=url)
    except (OSError, ValueError, HTTPException) as error:
        return Check(name=name, status="warning", found=f"{url} does not answer ({error})", advice=advice)


def _mlflow(uri: str) -> Check:
    try:
        reason = trouble(uri)
    except ValueError as error:
        return Check(name="MLflow", status="error", found=redacted(uri), advice=str(error))
    if reason:
        advice = "trainings go on without it; the next `dvc repro` fills it"
        return Check(name="MLflow", status="warning", found=reason, advice=advice)
    found = redacted(uri) if uri.startswith("http") else f"{redacted(uri)} (no server needed; `make ui` shows it)"
    return Check(name="MLflow", status="ok", found=found)
