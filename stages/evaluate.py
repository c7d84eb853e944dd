"""One model is scored on its dataset's test split, image by image: `python -m stages.evaluate <experiment>`."""

import sys
from pathlib import Path

import torch

from segpipe import components, results
from segpipe.evaluation import evaluate, write_evaluation
from segpipe.model_io import load_model
from segpipe.params import read_params
from segpipe.shards import Split, read_info


def main() -> None:
    params = read_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.experiments:
        raise SystemExit(f"usage: python -m stages.evaluate <experiment>, one of: {', '.join(params.experiments)}")
    name = sys.argv[1]
    data, models, out = (
        Path("data/converted") / params.experiments[name].dataset,
        Path("models") / name,
        Path("evaluations") / name,
    )
    model, config = load_model(models)
    info = read_info(data)
    if config["dataset_digest"] != info.digest:
        raise ValueError(
            f"{models}/config.json: the model was trained on {config['dataset']} with digest {config['dataset_digest']}, but"
            f" {data} has {info.digest}: the data has changed since. Run `dvc repro` so that train runs again."
        )
    with results.PredictionWriter(out) as writer:
        evaluation = evaluate(
            model,
            Split(data, "test"),
            class_names=info.class_names,
            ignore_index=info.ignore_index,
            mean=config["mean"],
            std=config["std"],
            size=config["size"],
            tta=params.evaluate.tta,
            tile=params.evaluate.tile,
            crf=params.evaluate.crf,
            device="cuda" if torch.cuda.is_available() else "cpu",
            metrics={metric: components.load("metrics", metric) for metric in components.names("metrics")},
            on_labels=writer.write,
            on_image=report,
        )
    scores = write_evaluation(out, evaluation)
    shown = {"mIoU": "miou", "MPA": "mpa", "PA": "pa", "Dice": "mdice"}
    headline = ", ".join(f"{label} {100 * scores[key]:.2f} %" for label, key in shown.items())
    if params.evaluate.crf is not None:
        headline += f", CRF {100 * scores['crf_gain']:+.2f} points of mIoU (without it {100 * scores['miou_without_crf']:.2f} %)"
    print(f"{name}: {headline} on {scores['n_images']} test images ({1000 * scores['seconds_per_image']:.0f} ms each); {out}")


def report(done: int, total: int) -> None:
    """Print a line at every tenth of the work."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"evaluated {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
