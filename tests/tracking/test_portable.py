"""The registered model works where this repository is not, and beside other versions of itself."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segpipe.inference
from segpipe import components, model_io
from segpipe.tracking import connection, packaging
from tests.tracking import workspace

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 37, 50, 3), np.uint8)
CLEAN = """
import sys
sys.path.append(sys.argv[1])  # by hand, so that no .pth file makes this repository importable
try:
    import segpipe
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("segpipe is importable, so nothing is shown")
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model("models:/segmenter@champion")
numpy.save("labels.npy", model.predict(numpy.load("images.npy")))
assert not any(name.partition(".")[0] == "segpipe" for name in sys.modules)
"""


def expected(folder: Path) -> np.ndarray:
    network, config = model_io.load_model(folder)
    settings = {key: config[key] for key in ("mean", "std", "size")}
    return np.stack([segpipe.inference.predict_labels(network, image, **settings) for image in IMAGES])


@pytest.mark.parametrize("name", components.names("architectures"))
def test_the_library_that_travels_is_small_and_whole(name: str) -> None:
    files = {str(path.relative_to(packaging.PACKAGE)) for path in packaging.library_files(name)}
    assert {"model_io.py", "inference.py", "components.py", "__init__.py", "architectures/__init__.py"} <= files
    assert [file for file in files if file.startswith("architectures/") and file.count("/") == 1 and "__" not in file] == [
        f"architectures/{name}.py"
    ]
    assert not any(name.startswith(("training", "tracking", "failures", "datasets", "params")) for name in files)


@pytest.mark.parametrize("name", components.names("architectures"))
def test_the_requirements_are_pinned_and_few(name: str) -> None:
    found = dict(line.split("==") for line in packaging.requirements(packaging.library_files(name)))
    few = {"mlflow", "torch", "numpy", "safetensors", "opencv-python-headless"}
    fetches = {"requests", "filelock"}  # of networks that can begin from published weights; MLflow and torch need both anyway
    own = {"smp": {"segmentation_models_pytorch", "timm"}}.get(name, set())
    assert few <= set(found) <= few | fetches | {"torchvision"} | own
    assert all(version[0].isdigit() and "+" not in version for version in found.values())


def test_it_predicts_in_an_environment_without_this_repository(tmp_path: Path, uri: str) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    workspace.register(tmp_path, uri, "unet")
    clean = tmp_path / "clean"
    clean.mkdir()
    np.save(clean / "images.npy", IMAGES)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-c", CLEAN, sysconfig.get_paths()["purelib"], uri]
    done = subprocess.run(command, cwd=clean, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    labels = np.load(clean / "labels.npy")
    assert labels.shape == IMAGES.shape[:3] and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected(tmp_path / "models/unet"))


def test_models_of_different_versions_live_side_by_side(tmp_path: Path, uri: str, client: Any) -> None:
    pyfunc = connection.imported("mlflow.pyfunc")
    from mlflow.models import Model

    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    model = tmp_path / "models/unet"
    packaging.save_portable(tmp_path / "a", model, config=model_io.load_model(model)[1], header=Model())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with (tmp_path / "b/artifacts/library/segpipe/inference.py").open("a") as file:
        file.write("\n\ndef predict_labels(model, image, **_):\n    return np.full(image.shape[:2], 7, np.uint8)\n")
    modules = {name: module for name, module in sys.modules.items() if name.startswith("segpipe")}
    path = list(sys.path)
    first, second = pyfunc.load_model(str(tmp_path / "a")), pyfunc.load_model(str(tmp_path / "b"))
    assert (second.predict(IMAGES) == 7).all()
    np.testing.assert_array_equal(first.predict(IMAGES), expected(model))
    assert {name: module for name, module in sys.modules.items() if name.startswith("segpipe")} == modules
    assert sys.path == path
