"""Makes MLflow complete from the files of the pipeline: runs, curves, scores, reports, model versions, and who is champion.

Everything is compared with what MLflow already holds and only the difference is written, so that calling it again changes
nothing, and what an earlier call could not finish is finished by the next.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.tracking import connection, gate, glance, runs
from segpipe.tracking.lineage import Lineage
from segpipe.tracking.records import LEADERBOARD, Record, sha256
from segpipe.tracking.writer import DIGEST, EXPERIMENT

ALIAS, GATE, GATE_INPUTS, DECISION = "champion", "segpipe.gate", "segpipe.gate_inputs", "segpipe.gate_decision"


def model_names(model_name: str, datasets: Iterable[str]) -> dict[str, str]:
    """The registered name of each dataset's models: a name is for one dataset, so that its versions can be compared.

    The first dataset has `model_name` itself, any other `<model_name>-<dataset>`.
    """
    return {name: f"{model_name}-{name}" if index else model_name for index, name in enumerate(datasets)}


def register(
    records: Sequence[Record],
    *,
    uri: str,
    model_name: str,
    rule: gate.Rule,
    lineage: Lineage,
    root: Path = Path("."),
    last: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Bring the MLflow at `uri` up to date with `records` and let the gate decide on each dataset's champion.

    Args:
        records: all experiments, those of the first dataset first.
        model_name: see `model_names`.
        rule: what a challenger must show.
        lineage: of the workspace `root`, whose reports/comparison becomes a run of its own.
        last: the receipt of the last call. If nothing has changed since and MLflow still holds what it says, it is returned
            as it is, without importing MLflow.

    Returns:
        The receipt: `model_name`, `tracking_uri`, `complete`, `pending` (why not, else None), `experiments` {row: `model_name`,
        `version`, `run_id`, `model_digest`, `contents`}, `champion` {`model_name`, `version`, `experiment`, `decision`, `reason`,
        `refusals` {row: reason}} of the first dataset, `champions` {model name: the same} of all, `comparison` {`run_id`,
        `contents`}, `inputs` (a digest of what all this follows from), and `clean` (whether each run names the revision that
        holds it). A server that cannot be reached, at the start or on the way, is no error: the receipt is then not complete,
        and the next call goes on from there.

    Raises:
        ValueError: MLflow cannot be used as `uri` asks.
    """
    receipt: dict[str, Any] = {"model_name": model_name, "tracking_uri": connection.redacted(uri), "complete": False}
    receipt |= {"pending": connection.trouble(uri), "experiments": {}, "champion": None, "champions": {}}
    if receipt["pending"]:
        return receipt
    comparison = (root / LEADERBOARD).parent
    receipt["comparison"] = {"contents": runs.folder_digest(comparison)}
    receipt["inputs"] = _inputs(records, receipt, rule, lineage)
    if last and last.get("complete") and last.get("inputs") == receipt["inputs"]:
        waits_for_commit = lineage.revision and not lineage.dirty and not last["clean"]
        if not waits_for_commit and glance.holds(uri, last, contents_tag=runs.CONTENTS, alias=ALIAS):
            return {**last, "pending": None}
    client = connection.connect(uri, patience=60)
    try:
        _register(client, records, receipt, rule=rule, lineage=lineage, comparison=comparison)
    except Exception:
        receipt["pending"] = connection.trouble(uri)
        if receipt["pending"] is None:
            raise
        return receipt
    return {**receipt, "complete": True}


def _register(
    client: Any, records: Sequence[Record], receipt: dict[str, Any], *, rule: gate.Rule, lineage: Lineage, comparison: Path
) -> None:
    # One MLflow experiment per dataset, so that its compare page compares what can be compared.
    names = model_names(receipt["model_name"], dict.fromkeys(record.dataset for record in records))
    homes = {dataset: connection.experiment_id(client, dataset) for dataset in names}
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    receipt["clean"] = True
    for dataset, name in names.items():
        here = [record for record in records if record.dataset == dataset]
        versions = _versions(client, name)
        for record in here:
            run = runs.find_or_create(client, record, homes[dataset], everywhere)
            receipt["clean"] &= runs.complete(client, run, record, name, versions, lineage)
            receipt["experiments"][record.experiment] = {
                "model_name": name,
                "version": str(versions[record.model_digest].version),
                "run_id": run.info.run_id,
                "model_digest": record.model_digest,
                "contents": record.contents,
            }
        champion = _champion(client, name, here, versions, rule)
        receipt["champions"][name] = champion
        receipt["champion"] = receipt["champion"] or champion
    contents = receipt["comparison"]["contents"]
    run_id = runs.comparison_run(client, homes[records[0].dataset], comparison, contents=contents)
    receipt["comparison"]["run_id"] = run_id


def _inputs(records: Sequence[Record], receipt: Mapping[str, Any], rule: gate.Rule, lineage: Lineage) -> str:
    rows = [[r.experiment, r.model_digest, r.contents, dict(r.params), dict(r.scores), r.protocol] for r in records]
    text = json.dumps(
        [rows, receipt["model_name"], receipt["tracking_uri"], receipt["comparison"], rule.settings, dict(lineage.outs)]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _versions(client: Any, name: str) -> dict[str, Any]:
    """The versions registered as `name`, by model digest; the name is created if missing."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="Image-segmentation models; one version per trained model.")
    versions: list[Any] = []
    token = None
    while token != "":
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        versions, token = [*versions, *page], page.token or ""
    return {v.tags[DIGEST]: v for v in sorted(versions, key=lambda v: -int(v.version)) if DIGEST in v.tags}


def _champion(client: Any, name: str, records: Sequence[Record], versions: Mapping[str, Any], rule: gate.Rule) -> dict[str, Any]:
    """Let the gate decide, unless nothing that it looks at has changed since it last did, and write down what it said."""
    holder = client.get_registered_model(name).aliases.get(ALIAS)
    holder = None if holder is None else str(holder)
    known = {str(v.version): v for v in versions.values()}
    by_version = {str(versions[record.model_digest].version): record for record in records}
    if holder is not None and holder not in known:
        reason = f"version {holder} was made champion by hand and holds no evaluation to compare with"
        decision = gate.Decision(version=holder, decision="kept", reason=reason, refusals=dict.fromkeys(by_version, reason))
        return _said(decision, name, known)
    said = {version: known[version].tags for version in by_version}
    stamp = _stamp(client, holder, known, by_version, rule)
    if holder and all(tags.get(GATE_INPUTS) == stamp for tags in said.values()):
        refusals = {version: tags[GATE] for version, tags in said.items() if version != holder}
        tags = known[holder].tags
        decision = gate.Decision(version=holder, decision=tags[DECISION], reason=tags[GATE], refusals=refusals)
        return _said(decision, name, known)
    challengers = [_candidate(record, version) for version, record in by_version.items()]
    present = next((c for c in challengers if c.version == holder), None)
    if holder and present is None:
        present = _stored_candidate(client, known[holder])
    decision = gate.decide(present, challengers, rule=rule)
    if decision.decision in ("first", "moved"):
        client.set_registered_model_alias(name, ALIAS, decision.version)
    if decision.version:
        client.set_model_version_tag(name, decision.version, GATE, decision.reason)
        client.set_model_version_tag(name, decision.version, DECISION, decision.decision)
    for version, reason in decision.refusals.items():
        client.set_model_version_tag(name, version, GATE, reason)
    stamp = _stamp(client, decision.version, known, by_version, rule)
    for version in by_version:
        client.set_model_version_tag(name, version, GATE_INPUTS, stamp)
    return _said(decision, name, known)


def _stamp(client: Any, holder: str | None, known: Mapping[str, Any], records: Mapping[str, Record], rule: gate.Rule) -> str:
    """A digest of all that the gate looks at."""
    rows = [f"{version} {sha256(record.confusions)} {record.protocol}" for version, record in records.items()]
    if holder and holder not in records:
        rows.append(f"{holder} {client.get_run(known[holder].run_id).data.tags[runs.COUNTS]}")
    return hashlib.sha256(json.dumps([holder, sorted(rows), rule.settings]).encode()).hexdigest()


def _said(decision: gate.Decision, name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    def experiment(version: str | None) -> str | None:
        return known[version].tags[EXPERIMENT] if version is not None and version in known else None

    return {
        "model_name": name,
        "version": decision.version,
        "experiment": experiment(decision.version),
        "decision": decision.decision,
        "reason": decision.reason,
        "refusals": {experiment(version): reason for version, reason in decision.refusals.items()},
    }


def _candidate(record: Record, version: str) -> gate.Candidate:
    counts, ids, groups = _confusions(record.confusions)
    return gate.Candidate(
        version=version,
        experiment=record.experiment,
        dataset_digest=record.dataset_digest,
        protocol=record.protocol,
        counts=counts,
        ids=ids,
        groups=groups,
    )


def _stored_candidate(client: Any, version: Any) -> gate.Candidate:
    """A champion that is no experiment of this workspace (any more), from what its run holds."""
    tags = client.get_run(version.run_id).data.tags
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(version.run_id, "evaluation/confusions.npz", folder)
        counts, ids, groups = _confusions(Path(path))
    return gate.Candidate(
        version=str(version.version),
        experiment=version.tags[EXPERIMENT],
        dataset_digest=tags[runs.DATA],
        protocol=tags[runs.PROTOCOL],
        counts=counts,
        ids=ids,
        groups=groups,
    )


def _confusions(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["counts"], arrays["ids"].tolist(), arrays["groups"].tolist()
