"""MLflow holds every model, run and report, and champion moves only if it earned it: `python -m stages.register`."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from segpipe import components
from segpipe.params import read_params
from segpipe.tracking import connection, gate, lineage, records, registry

RECEIPT = Path("registry.json")
METRICS = {"miou": "mean_iou", "mpa": "mean_pixel_accuracy", "pa": "pixel_accuracy", "dice": "mean_dice"}


def main() -> None:
    params = read_params()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or connection.default_uri(Path.cwd())
    rule = gate.Rule(
        name=params.register.gate.metric,
        metric=components.load("metrics", METRICS[params.register.gate.metric]).compute,
        alpha=params.register.gate.alpha,
        minimum=params.register.gate.minimum,
        resamples=params.compare.resamples,
        seed=params.seed,
    )
    order = list(params.datasets)
    experiments = sorted(params.experiments.values(), key=lambda row: order.index(row.dataset))
    receipt = registry.register(
        [records.read_record(row.name, params=asdict(row) | {"evaluate": asdict(params.evaluate)}) for row in experiments],
        uri=uri,
        model_name=params.register.model_name,
        rule=rule,
        lineage=lineage.read_lineage(Path.cwd()),
        last=json.loads(RECEIPT.read_text()) if RECEIPT.exists() else None,
    )
    RECEIPT.write_text(json.dumps(receipt, indent=1) + "\n")
    if not receipt["complete"]:
        print(f"MLflow is not complete: {receipt['pending']}. Nothing is lost: the next `dvc repro` completes it.")
        return
    print(f"MLflow holds {len(receipt['experiments'])} models: {receipt['tracking_uri']}")
    for name, champion in receipt["champions"].items():
        who = f"{champion['experiment']} (version {champion['version']})" if champion["version"] else "nobody"
        print(f"{name}: champion is {who}: {champion['reason']}")
        for experiment, reason in champion["refusals"].items():
            print(f"  {experiment}: {reason}")


if __name__ == "__main__":
    main()
