"""The MLflow model, from code: this file is copied into every registered model and runs wherever MLflow loads it.

It imports nothing of this repository by itself. The model brings the few library files that it needs; they are imported under
their own names and put away again, so that models of different versions, and this repository, live in one process side by side.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

PACKAGE = "segpipe"


class Segmenter(PythonModel):
    """uint8 images (N, H, W, 3) RGB to label maps (N, H, W) of class indices, uint8 (uint16 above 254 classes)."""

    def load_context(self, context: Any) -> None:
        import torch

        with _own_library(Path(context.artifacts["library"])):
            model_io = importlib.import_module(f"{PACKAGE}.model_io")
            self._inference = importlib.import_module(f"{PACKAGE}.inference")
            network, self.config = model_io.load_model(Path(context.artifacts["network"]))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = network.to(self._device)

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        settings = {key: self.config[key] for key in ("mean", "std", "size")}
        labels = [
            self._inference.predict_labels(self._network, np.ascontiguousarray(image), device=self._device, **settings)
            for image in model_input
        ]
        return np.stack(labels) if labels else np.empty(model_input.shape[:3], np.uint8)


@contextmanager
def _own_library(folder: Path) -> Iterator[None]:
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == PACKAGE}
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(hidden)


set_model(Segmenter())
