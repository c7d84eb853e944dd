"""One run of MLflow and its model, compared with what the files say; only the difference is written."""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segpipe.tracking import packaging
from segpipe.tracking.lineage import Lineage
from segpipe.tracking.records import Record, sha256
from segpipe.tracking.writer import DIGEST, EXPERIMENT

CONTENTS, COUNTS, DATA, PROTOCOL = "segpipe.contents", "segpipe.confusions", "segpipe.dataset_digest", "segpipe.protocol"
REVISION, DIRTY = "segpipe.git_revision", "segpipe.git_dirty"
METRICS_PER_BATCH, PARAMS_PER_BATCH, MAX_DIGEST = 500, 90, 36  # MLflow's bounds are 1000, 100 and 36


def find_or_create(client: Any, record: Record, experiment: str, everywhere: Sequence[str]) -> Any:
    """The run that holds the model's digest, or the live run of its training (in any experiment of `everywhere`), or a new one."""
    mine = f"tags.`{EXPERIMENT}` = '{record.experiment}'"
    same = f"{mine} and tags.`{DIGEST}` = '{record.model_digest}'"
    found = client.search_runs(everywhere, same, order_by=["start_time ASC"])
    if found:
        return found[0]
    for run in client.search_runs(everywhere, mine, order_by=["start_time DESC"]):
        # A live run whose server went away before the end holds the first epochs of this very training.
        if DIGEST not in run.data.tags and _began_as(client, run, record):
            client.set_tag(run.info.run_id, DIGEST, record.model_digest)
            return client.get_run(run.info.run_id)
    tags = {EXPERIMENT: record.experiment, DIGEST: record.model_digest}
    return client.create_run(experiment, start_time=_start(record), tags=tags, run_name=record.experiment)


def _began_as(client: Any, run: Any, record: Record) -> bool:
    if "train_loss" not in run.data.metrics:
        return False
    curve = {int(row["epoch"]): row.get("train_loss") for row in record.curves}
    return all(curve.get(p.step) == p.value for p in client.get_metric_history(run.info.run_id, "train_loss"))


def _start(record: Record) -> int:
    """When the training began, in ms: its curve was written at the end."""
    seconds = sum(row.get("seconds", 0.0) for row in record.curves)
    return int(((record.model / "history.csv").stat().st_mtime - seconds) * 1000)


def complete(client: Any, run: Any, record: Record, name: str, versions: dict[str, Any], lineage: Lineage) -> bool:
    """Write what `run` and the registered model `name` still lack of `record`; `versions` gains a version if one is made.

    Returns whether the run names a git revision that really holds it (or there is no git that could).
    """
    from mlflow.entities import Metric, Param

    run_id, held = run.info.run_id, run.data
    missing = [Param(key, value) for key, value in record.params.items() if key not in held.params]
    for batch in _batches(missing, PARAMS_PER_BATCH):
        client.log_batch(run_id, params=batch)
    same_files = held.tags.get(CONTENTS) == record.contents
    if not same_files:
        for batch in _batches(_curve_points(client, run, record), METRICS_PER_BATCH):
            client.log_batch(run_id, metrics=batch)
    if not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run_id, [_dataset_input(record)])
    if record.model_digest not in versions:
        versions[record.model_digest] = _new_version(client, run, record, name)
    model_id, now = versions[record.model_digest].model_id, int(time.time() * 1000)
    changed = [
        Metric(key, value, now, 0, model_id=model_id) for key, value in record.scores.items() if held.metrics.get(key) != value
    ]
    for batch in _batches(changed, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=batch)
    if not same_files:
        for path, folder in record.artifacts:
            client.log_artifact(run_id, str(path), folder)
    tags = {DATA: record.dataset_digest, PROTOCOL: record.protocol, COUNTS: sha256(record.confusions)}
    tags |= lineage.tags(experiment=record.experiment, dataset=record.dataset)
    # The first clean revision is the answer for good; until there is one, the first dirty one stands.
    if REVISION in held.tags and (lineage.dirty or held.tags.get(DIRTY) == "false"):
        tags = {key: value for key, value in tags.items() if key not in (REVISION, DIRTY)}
    set_tags(client, run, {**tags, CONTENTS: record.contents})  # last, as it says that all files are there
    if run.info.status != "FINISHED":
        seconds = sum(row.get("seconds", 0.0) for row in record.curves)
        client.set_terminated(run_id, "FINISHED", end_time=int(run.info.start_time + seconds * 1000))
    return {**held.tags, **tags}.get(DIRTY) != "true"


def folder_digest(folder: Path) -> str:
    """One sha256 over the names and the bytes of all files below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    text = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in files)
    return hashlib.sha256(text.encode()).hexdigest()


def comparison_run(client: Any, experiment: str, folder: Path, *, contents: str) -> str:
    """The id of the run that holds the comparison report in `folder`, whose digest is `contents`; created if there is none."""
    found = client.search_runs([experiment], f"tags.`{CONTENTS}` = '{contents}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = client.create_run(experiment, run_name="comparison")
    client.log_artifacts(run.info.run_id, str(folder), "comparison")
    client.set_tag(run.info.run_id, CONTENTS, contents)
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def set_tags(client: Any, run: Any, tags: Mapping[str, str]) -> None:
    """Set those of `tags` that `run` does not have yet, in the order given."""
    from mlflow.entities import RunTag

    changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    for batch in _batches(changed, PARAMS_PER_BATCH):
        client.log_batch(run.info.run_id, tags=batch)


def _dataset_input(record: Record) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    classes = ", ".join(c["name"] for c in record.config["classes"])
    dataset = Dataset(
        name=record.dataset,
        digest=record.dataset_digest[:MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": f"data/converted/{record.dataset}"}),
        profile=json.dumps({"classes": classes}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training and test")])


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _curve_points(client: Any, run: Any, record: Record) -> list[Any]:
    from mlflow.entities import Metric

    columns = {key for row in record.curves for key in row if key != "epoch"}
    logged = {
        key: {point.step for point in client.get_metric_history(run.info.run_id, key)} for key in columns if key in run.data.metrics
    }
    points, clock = [], float(run.info.start_time)
    for row in record.curves:
        step = int(row["epoch"])
        clock += row.get("seconds", 0.0) * 1000
        points += [
            Metric(key, value, int(clock), step) for key, value in row.items() if key != "epoch" and step not in logged.get(key, ())
        ]
    return points


def _new_version(client: Any, run: Any, record: Record, name: str) -> Any:
    """Log the model of `record` with its run, unless an interrupted call already did, and register it as a version of `name`."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id, experiment = run.info.run_id, run.info.experiment_id
    outputs = client.get_run(run_id).outputs
    logged = [client.get_logged_model(o.model_id) for o in (outputs.model_outputs if outputs else [])]
    ready = [m for m in logged if m.status == "READY" and m.tags.get(DIGEST) == record.model_digest]
    if ready:
        model = ready[0]
    else:
        tags = {DIGEST: record.model_digest, EXPERIMENT: record.experiment}
        params = {key: record.params[key] for key in ("architecture", "loss", "dataset", "seed") if key in record.params}
        model = client.create_logged_model(experiment, record.experiment, run_id, tags, params, "python_function")
        with tempfile.TemporaryDirectory() as folder:
            header = Model(artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id)
            packaging.save_portable(Path(folder), record.model, config=record.config, header=header)
            client.log_model_artifacts(model.model_id, folder)
        model = client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        model_id=model.model_id,
        tags={DIGEST: record.model_digest, EXPERIMENT: record.experiment, DATA: record.dataset_digest},
        description=f"{record.experiment}, trained on {record.dataset}",
    )
