"""Fetch a registered model's own files: the folder with its weights and configuration."""

from pathlib import Path

from segpipe.model_io import CONFIG
from segpipe.tracking.connection import connect, redacted, trouble

PATIENCE_SECONDS = 10


def fetch_model(uri: str, *, tracking_uri: str) -> Path:
    """The local folder with the weights and the configuration of `uri`, such as `models:/scenes-segmenter@champion`.

    Raises:
        ValueError: no MLflow answers at `tracking_uri`, there is no such model, or segpipe did not make it.
    """
    if reason := trouble(tracking_uri):
        raise ValueError(f"{uri}: {reason}. Start the server (`make ui`), or name a folder under models/.")
    connect(tracking_uri, patience=PATIENCE_SECONDS)
    import mlflow
    from mlflow.exceptions import MlflowException

    # The registry is asked through MLflow's global address; download_artifacts takes none of its own for models:/ URIs.
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except MlflowException as error:
        raise ValueError(f"{uri}: not found at {redacted(tracking_uri)}: {error.message}") from error
    found = sorted(folder.rglob(CONFIG))
    if not found:
        raise ValueError(f"{uri}: holds no {CONFIG}, so it is not a model that segpipe registered")
    return found[0].parent
