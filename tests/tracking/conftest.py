"""A fresh MLflow on SQLite for each test, copied from one that was made once: creating its tables takes seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe.tracking import connection


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connection.connect(f"{connection.SQLITE}{path}", patience=5)
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    (tmp_path / ".servers").mkdir()
    shutil.copy(empty_database, tmp_path / ".servers/mlflow.db")
    return connection.default_uri(tmp_path)


@pytest.fixture
def client(uri: str) -> Any:
    return connection.connect(uri, patience=5)


@pytest.fixture
def state(client: Any) -> Callable[[], dict[str, Any]]:
    """All that MLflow holds, as plain values, to compare before and after."""

    def read() -> dict[str, Any]:
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments)
        history = {
            (run.info.run_id, key): [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for run in runs
            for key in run.data.metrics
        }
        return {
            "runs": {run.info.run_id: (run.info.status, run.data.params, run.data.tags) for run in runs},
            "history": history,
            "models": sorted(m.model_id for m in client.search_logged_models(experiments)),
            "versions": {(v.name, str(v.version)): v.tags for v in client.search_model_versions()},
            "aliases": {m.name: m.aliases for m in client.search_registered_models()},
        }

    return read
