"""The process that follows one training in MLflow: JSON lines come in, at most one line goes out, which says why it stopped.

Started by `live.py` as `python -m segpipe.tracking.writer`. First line: where and what. Then {"epoch": row} per epoch and
{"finish": digest}; when the lines end without that, the run is marked as failed, and the resumed training goes on in it.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from segpipe.tracking import connection
from segpipe.tracking.records import flatten

FINGERPRINT, EXPERIMENT, DIGEST = "segpipe.fingerprint", "segpipe.experiment", "segpipe.model_digest"


def main() -> None:
    # Ctrl-C reaches the whole process group: the training decides what happens, and its end closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    lines = (json.loads(line) for line in sys.stdin)
    start = next(lines, None)
    if start is None:
        return
    try:
        reason = connection.trouble(start["uri"]) or follow(start, lines)
    except Exception as error:  # whatever it is, it goes to the training's terminal, and the training goes on
        reason = f"{type(error).__name__}: {error}"
    if reason:
        sys.stdout.write(" ".join(reason.split()) + "\n")


def follow(start: dict[str, Any], messages: Iterable[dict[str, Any]]) -> str | None:
    """Bring one run up to date with `messages` as they come; returns why there is nothing to follow, or None."""
    client = connection.connect(start["uri"], patience=5)
    from mlflow.entities import Metric, Param

    experiment = connection.experiment_id(client, start["experiment"])
    tags = {**start["tags"], FINGERPRINT: start["fingerprint"], EXPERIMENT: start["name"]}
    found = client.search_runs([experiment], f"tags.`{FINGERPRINT}` = '{start['fingerprint']}'", order_by=["start_time ASC"])
    if any(run.info.status == "FINISHED" for run in found):
        return f"the run {start['name']} of this very training is already complete"
    logged: set[int] = set()
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        keys = found[0].data.metrics
        logged = {point.step for key in keys for point in client.get_metric_history(run_id, key)}
    else:
        run_id = client.create_run(experiment, tags=tags, run_name=start["name"]).info.run_id
        client.log_batch(run_id, params=[Param(key, value) for key, value in flatten(start["params"]).items()])
    status = "FAILED"
    for message in messages:
        if "finish" in message:
            client.set_tag(run_id, DIGEST, message["finish"])
            status = "FINISHED"
        elif message["epoch"]["epoch"] not in logged:
            step, now = int(message["epoch"]["epoch"]), int(time.time() * 1000)
            values = {k: v for k, v in message["epoch"].items() if k != "epoch" and isinstance(v, int | float)}
            metrics = [Metric(key, float(value), now, step) for key, value in values.items() if math.isfinite(value)]
            client.log_batch(run_id, metrics=metrics)
    client.set_terminated(run_id, status)
    return None


if __name__ == "__main__":
    main()
