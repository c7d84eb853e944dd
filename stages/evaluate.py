"""One model is scored on its dataset's test split, image by image: `python -m stages.evaluate <experiment>`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segpipe import components, results
from segpipe.evaluation import Evaluation, evaluate
from segpipe.evaluation_files import write_evaluation
from segpipe.model_io import load_model
from segpipe.pages.evaluation import evaluation_page
from segpipe.pages.evaluation_pictures import show_images
from segpipe.params import read_params
from segpipe.shards import DatasetInfo, Split, read_info


def main() -> None:
    params = read_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.experiments:
        raise SystemExit(f"usage: python -m stages.evaluate <experiment>, one of: {', '.join(params.experiments)}")
    name = sys.argv[1]
    data, models, out, page = (
        Path("data/converted") / params.experiments[name].dataset,
        Path("models") / name,
        Path("evaluations") / name,
        Path("reports") / name / "evaluation" / "index.html",
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
            classes=info.classes,
            ignore_index=info.ignore_index,
            mean=config["mean"],
            std=config["std"],
            size=config["size"],
            tta=params.evaluate.tta,
            tile=params.evaluate.tile,
            crf=params.evaluate.crf,
            modes=params.evaluate.modes,
            damages=params.evaluate.corruptions,
            val=Split(data, "val"),
            device="cuda" if torch.cuda.is_available() else "cpu",
            metrics={metric: components.load("metrics", metric) for metric in components.names("metrics")},
            seed=params.seed,
            on_answer=writer.write,
            on_image=report,
        )
    scores = write_evaluation(out, evaluation)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(page_of(name, info, Split(data, "test"), evaluation, scores, out))
    print(
        f"{name}: {headline(scores)} on {scores['n_images']} test images ({1000 * scores['seconds_per_image']:.0f} ms each); {page}"
    )


def page_of(name: str, info: DatasetInfo, split: Split, evaluation: Evaluation, scores: Mapping[str, Any], folder: Path) -> str:
    """The HTML text of the evaluation's page, its pictures from the predictions in `folder`."""
    predictions = results.read_predictions(folder)
    counts, names = evaluation.counts, evaluation.class_names
    return evaluation_page(
        name=name,
        dataset=info.name,
        classes=info.classes,
        scores=scores,
        counts=counts,
        ids=evaluation.ids,
        cards=show_images(counts, names, split.arrays, predictions.mask, info.palette(), ignore_index=info.ignore_index),
        calibration=results.read_calibration(folder),
    )


def headline(scores: Mapping[str, Any]) -> str:
    """The scores that matter most, and what the CRF and the other modes brought, in one line."""
    shown = {"mIoU": "miou", "MPA": "mpa", "PA": "pa", "Dice": "mdice", "ECE": "ece"}
    parts = [f"{label} {_points(scores[key])} %" for label, key in shown.items()]
    if "crf" in scores:
        parts.append(f"CRF {_points(scores['crf_gain'], '+')} points of mIoU (without it {_points(scores['miou_without_crf'])} %)")
    parts += [f"{mode} {_points(row['gain'], '+')} points" for mode, row in scores["modes"].items()]
    if scores["corruptions"]:
        parts.append(f"corrupted {_points(scores['corruptions']['mean']['miou'])} %")
    return ", ".join(parts)


def report(done: int, total: int) -> None:
    """Print a line at every tenth of the work."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"evaluated {done} of {total}", flush=True)


def _points(value: float | None, sign: str = "") -> str:
    """A share of 1 as points; a dash where undefined."""
    return "-" if value is None else f"{100 * value:{sign}.2f}"


if __name__ == "__main__":
    main()
