"""How to reach MLflow: is anybody there, within seconds, before the slow import; and a client with short patience."""

import importlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from filelock import FileLock

CONNECT_SECONDS, ANSWER_SECONDS = 0.7, 1.0
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With MLflow's own 7 retries a dead server would hold its callers for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}
SQLITE = "sqlite:///"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages then open on trainings, not on chat traces


def default_uri(workspace: Path) -> str:
    """Where MLflow keeps its records when nobody said otherwise: a SQLite file in the workspace, whatever the current folder."""
    return f"{SQLITE}{workspace.resolve() / '.servers' / 'mlflow.db'}"


def redacted(uri: str) -> str:
    """`uri` without user name and password, for receipts and messages."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def trouble(uri: str) -> str | None:
    """Why nobody answers at `uri`, or None. Takes at most about 2 s; addresses other than http are taken to work.

    Raises:
        ValueError: MLflow cannot use this kind of address.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise ValueError(
            f"MLFLOW_TRACKING_URI={uri}: MLflow no longer stores runs in plain folders."
            f" Use a SQLite file ({SQLITE}/absolute/path/mlflow.db) or the address of a server (http://127.0.0.1:5000)."
        )
    if scheme not in ("http", "https"):
        return None
    try:
        with requests.get(f"{uri.rstrip('/')}/health", timeout=(CONNECT_SECONDS, ANSWER_SECONDS), stream=True) as answer:
            status = answer.status_code
    except requests.Timeout:
        return f"{redacted(uri)} does not answer"
    except requests.RequestException as error:
        return f"{redacted(uri)} cannot be reached ({type(error).__name__})"
    return f"{redacted(uri)} answers with status {status}" if status >= 500 else None


def connect(uri: str, *, patience: int) -> Any:
    """A client of MLflow at `uri`, without telemetry; one request waits at most `patience` seconds, twice.

    Importing MLflow takes seconds, so ask `trouble` first. It takes these settings from the environment only, some of them while
    it is imported; those already set there win.
    """
    for name, value in {**SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": str(patience)}.items():
        os.environ.setdefault(name, value)
    mlflow = imported("mlflow")
    # Parts of MLflow ask its global address, whatever client they are called through.
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not uri.startswith(SQLITE):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    database = Path(uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create the tables at once would break each other.
    with FileLock(f"{database}.lock"):
        imported("mlflow.store.tracking.sqlalchemy_store")
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def imported(module: str) -> Any:
    """A module of MLflow, without the warnings that its modules cause in each other while they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def experiment_id(client: Any, name: str) -> str:
    """The id of the MLflow experiment `name`, created if missing. On SQLite its artifacts lie beside the database.

    Raises:
        ValueError: the experiment was deleted, or keeps its artifacts behind a server that `client` does not speak to.
    """
    from mlflow.exceptions import MlflowException

    uri = client.tracking_uri
    location = None
    if uri.startswith(SQLITE):
        # An absolute path also works for a server on this machine that opens the same database.
        location = (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts" / name).as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise ValueError(f"MLflow experiment {name!r}: deleted. Restore it: `mlflow experiments restore -x {found.experiment_id}`.")
    if location and found.artifact_location.startswith("mlflow-artifacts:"):
        raise ValueError(
            f"MLflow experiment {name!r} in {uri}: it was created through a server, which alone can reach its artifacts."
            " Set MLFLOW_TRACKING_URI to that server's address (`make ui` prints it)."
        )
    return str(found.experiment_id)
