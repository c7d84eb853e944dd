"""Packs a trained model so that MLflow loads it without this repository: code, safetensors and json, nothing pickled."""

import ast
import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from segpipe import components
from segpipe.tracking.connection import imported
from segpipe.tracking.records import CONFIG, WEIGHTS

PACKAGE = Path(components.__file__).parent
ENTRIES = ("model_io.py", "inference.py")


def library_files(architecture: str) -> list[Path]:
    """The library files that a model of `architecture` needs to predict: the closure of what its code imports, sorted.

    Not the other architectures: some need libraries of their own.
    """
    todo = [PACKAGE / name for name in ENTRIES] + [PACKAGE / "architectures" / f"{architecture}.py"]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            own = [name.split(".")[1:] for name in _imports(path) if name.partition(".")[0] == PACKAGE.name]
            todo += [file for parts in own for file in _files(parts)]
    return sorted(seen)


def requirements(files: list[Path]) -> list[str]:
    """`name==version` of MLflow and of each distribution that `files` import, as installed here."""
    tops = {name.partition(".")[0] for path in files for name in _imports(path)}
    foreign = sorted(tops - set(sys.stdlib_module_names) - {PACKAGE.name})
    providers = _providers()
    names = ["mlflow", *sorted({name for top in foreign for name in providers[top]})]
    # A local version label such as +cu126 exists on no public index.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def save_portable(folder: Path, model: Path, *, config: Mapping[str, Any], header: Any) -> None:
    """Write the MLflow model of the trained model in `model` into the empty `folder`.

    `header` is the `mlflow.models.Model` that names the run and the logged model it belongs to. Needs MLflow's settings in the
    environment, see `connection.connect`.
    """
    pyfunc = imported("mlflow.pyfunc")
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    kind = np.dtype(np.uint8 if config["num_classes"] <= 254 else np.uint16)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(kind, (-1, -1, -1))]),
    )
    files = library_files(config["architecture"])
    with tempfile.TemporaryDirectory() as temporary:
        library, network = Path(temporary) / "library", Path(temporary) / "network"
        network.mkdir()
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(model / name, network / name)
        for path in files:
            target = library / PACKAGE.name / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        pyfunc.save_model(
            path=str(folder),
            python_model=str(PACKAGE / "tracking" / "portable.py"),
            artifacts={"network": str(network), "library": str(library)},
            signature=signature,
            input_example=np.zeros((1, 16, 16, 3), np.uint8),
            pip_requirements=requirements(files),
            mlflow_model=header,
        )


@cache
def _providers() -> Mapping[str, list[str]]:
    """The distributions behind each importable name; reading all of them takes a second."""
    return importlib.metadata.packages_distributions()


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(parts: list[str]) -> list[Path]:
    """The files that importing `segpipe.<parts>` runs: the module's own, and the __init__.py of each package above it."""
    found = [PACKAGE.joinpath(*parts[:depth], "__init__.py") for depth in range(len(parts) + 1)]
    if parts:
        found.append(PACKAGE.joinpath(*parts).with_suffix(".py"))
    return [path for path in found if path.exists()]
