"""dvc.yaml: every library file that decides a stage's result is a dep, and a change reruns what it must and no more."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.graph import read_graph
from tests.imports import ROOT, closure

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py"))
# They carry values, check them and look names up; they, and what they check with, decide no result.
PASSED_THROUGH = {
    "segpipe/params.py",
    "segpipe/dataset_row.py",
    "segpipe/evaluate_row.py",
    "segpipe/strict.py",
    "segpipe/components.py",
    "segpipe/__init__.py",
    "stages/__init__.py",
}
NO_RESULT = {
    # A page shows the data: a new look must not convert a large dataset again.
    "convert": {"segpipe/pages/dataset.py", "segpipe/pages/dataset_figures.py", "segpipe/pages/render.py"},
    "download": {"stages/_transfer_progress.py"},
    "train": {"segpipe/tracking/live.py", "segpipe/tracking/connection.py", "stages/_progress.py"},
}


def test_stage_is_script_is_graph() -> None:
    assert STAGES == sorted(GRAPH)
    for name, stage in GRAPH.items():
        body = stage.get("do", stage)
        assert body["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
        assert f"stages/{name}.py" in body["deps"]


def deps_of(name: str) -> list[str]:
    return [re.sub(r"\$\{[^}]*\}", "*", dep) for dep in GRAPH[name].get("do", GRAPH[name])["deps"]]


def imported_by(name: str) -> set[Path]:
    """All files of this repository that a stage imports, through the plug-ins it loads by name as well."""
    starts = [ROOT / "stages" / f"{name}.py"]
    for pattern in (dep for dep in deps_of(name) if "*" in dep and dep.endswith(".py")):
        starts += [path for path in ROOT.glob(pattern) if not path.stem.startswith("_")]
    stop = () if name == "validate" else PASSED_THROUGH
    return set().union(*(closure(start, stop=stop) for start in starts))


@pytest.mark.parametrize("name", STAGES)
def test_every_file_that_decides_the_result_is_a_dep(name: str) -> None:
    deps = deps_of(name)
    for path in imported_by(name):
        file = path.relative_to(ROOT)
        if str(file) in PASSED_THROUGH | NO_RESULT.get(name, set()) or file.name == "__init__.py":
            continue
        covered = any(file.match(dep) or Path(dep) in file.parents for dep in deps)
        assert covered, f"dvc.yaml: {name} imports {file}, which is not among its deps"


@pytest.mark.parametrize("name", STAGES)
def test_every_dep_of_code_is_there_and_used(name: str) -> None:
    used = {str(path.relative_to(ROOT)) for path in imported_by(name)}
    for dep in deps_of(name):
        if dep.startswith(("segpipe/", "stages/")) and "*" not in dep:
            assert (ROOT / dep).exists(), f"dvc.yaml: {name}: {dep} does not exist"
            plug_ins = Path(dep).parent.name == "segpipe" and (ROOT / dep).is_dir()
            assert plug_ins or Path(dep).suffix == ".html" or dep in used or any(u.startswith(f"{dep}/") for u in used), (
                f"{name} does not import {dep}"
            )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A clone of what decides the graph, in which every stage is recorded as up to date."""
    for name in ("segpipe", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    for stage in dvc(tmp_path, "stage", "list", "--name-only").splitlines():
        write_outs(tmp_path, stage)
    # -f is needed as nothing has run: commit records the outs just written as the results of today's deps.
    dvc(tmp_path, "commit", "-q", "-f")
    return tmp_path


def dvc(workspace: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_outs(workspace: Path, stage: str) -> None:
    name, _, key = stage.partition("@")
    body = GRAPH[name].get("do", GRAPH[name])
    for entry in [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]:
        out = workspace / (entry if isinstance(entry, str) else next(iter(entry))).replace("${key}", key)
        if out.suffix:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text("{}")
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / "result").write_text(stage)


def would_run(workspace: Path) -> set[str]:
    """What `dvc repro --dry` would run, and all below it.

    A dry run makes nothing, so below a stage that would run it sees old outs, or none: the graph says what follows. Below
    `validate` nothing does, as its out never changes.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--dry", "--keep-going"], cwd=workspace, capture_output=True, text=True
    )
    found = set(re.findall(r"Running stage '([^']+)'", done.stdout))
    assert found, done.stdout + done.stderr
    for stage, waits in read_graph(workspace).items():
        if waits & (found - {"validate"}):
            found.add(stage)
    return found


@pytest.mark.slow
def test_adding_a_row_and_an_architecture_runs_only_what_it_must(workspace: Path) -> None:
    assert would_run(workspace) == {"register"}  # it always looks at MLflow
    shutil.copy(workspace / "segpipe/architectures/unet.py", workspace / "segpipe/architectures/mynet.py")
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["experiments"]["mine"] = {**params["experiments"]["unet"], "architecture": "mynet"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert would_run(workspace) == {"validate", "train@mine", "evaluate@mine", "explain@mine", "compare", "register"}


@pytest.mark.slow
def test_changing_one_row_leaves_the_others(workspace: Path) -> None:
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["experiments"]["fcn"]["lr"] = 0.01
    params["explain"]["regions"] = 7
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    ran = would_run(workspace)
    assert {s for s in ran if s.startswith(("train", "evaluate"))} == {"train@fcn", "evaluate@fcn"}
    assert {s for s in ran if s.startswith("explain")} == {f"explain@{name}" for name in params["experiments"]}
    assert not any(s.startswith(("download", "convert", "augment")) for s in ran)


def test_the_flow_reads_the_same_graph() -> None:
    graph = read_graph(ROOT)
    assert {name.partition("@")[0] for name in graph} == set(GRAPH)
    assert graph["evaluate@unet"] >= {"train@unet", "convert@scenes"}
    assert graph["compare"] >= {"evaluate@unet", "explain@fcn"}
    order = list(graph)
    assert all(order.index(above) < order.index(stage) for stage, waits in graph.items() for above in waits)
