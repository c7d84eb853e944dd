"""Which model is better, by how much, and is it real: `python -m stages.compare`."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from segpipe import components, ratings, results, results_table
from segpipe.agreement import agreement, count_agreement
from segpipe.comparison import Comparison, compare, document, leaderboard, plain
from segpipe.failures import versus
from segpipe.model_scores import Scored
from segpipe.pages import rate
from segpipe.pages.comparison import Class, Section, comparison_page
from segpipe.pages.comparison_pictures import picture_rows, versus_rows
from segpipe.params import Experiment, read_params
from segpipe.resampling import units_of
from segpipe.shards import Split, decode_mask, read_info

METRICS = {"miou": "mean_iou", "mpa": "mean_pixel_accuracy", "pa": "pixel_accuracy", "dice": "mean_dice"}
OUT, RATINGS = Path("reports/comparison"), Path("ratings")
RATED_PAIRS = 3
"""Pairs of models on the blind page: the best one against those that follow it."""


def main() -> None:
    params = read_params()
    metrics = {key: components.load("metrics", name).compute for key, name in METRICS.items()}
    datasets: dict[tuple[str, str], list[Scored]] = {}
    for experiment in params.experiments.values():
        one = read_scored(experiment)
        datasets.setdefault((one.dataset, one.dataset_digest), []).append(one)
    comparisons = [
        compare(
            scored,
            metrics=metrics,
            per_class=components.load("metrics", "iou").compute,
            resamples=params.compare.resamples,
            alpha=params.compare.alpha,
            method=params.compare.interval,
            seed=params.seed,
        )
        for scored in datasets.values()
    ]
    parts = [section_of(c, scored, seed=params.seed) for c, scored in zip(comparisons, datasets.values(), strict=True)]
    sections, to_rate = [section for section, _ in parts], [item for _, items in parts for item in items]
    documents = [
        document(comparison)
        | {"agreement": plain([asdict(one) for one in section.agreements]), "attention": plain(section.attention)}
        for comparison, section in zip(comparisons, sections, strict=True)
    ]
    rows = [row for comparison in comparisons for row in leaderboard(comparison)]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "comparison.json").write_text(json.dumps(documents, indent=1, allow_nan=False) + "\n")
    with open(OUT / "leaderboard.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (OUT / "index.html").write_text(comparison_page(sections))
    if to_rate:
        (OUT / "rate.html").write_text(rate.rate_page(to_rate))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(results_table.leaderboard([{k: str(v) for k, v in row.items()} for row in rows]))
    for line in [pair.verdict for comparison in comparisons for pair in comparison.pairs] + [f"{OUT}/index.html"]:
        console.print(line, highlight=False)


def read_scored(experiment: Experiment) -> Scored:
    """One experiment's counts and costs. Its recipe is its whole row, defaults filled in, but for name and seed."""
    evaluation, model = results.read_evaluation(Path("evaluations") / experiment.name), Path("models") / experiment.name
    config = json.loads((model / "config.json").read_text())
    return Scored(
        name=experiment.name,
        architecture=experiment.architecture,
        loss=experiment.loss,
        seed=experiment.seed,
        recipe=json.dumps(asdict(experiment) | {"name": None, "seed": None}, sort_keys=True),
        dataset=config["dataset"],
        dataset_digest=config["dataset_digest"],
        ids=evaluation.ids,
        groups=evaluation.groups,
        counts=evaluation.counts,
        cost=json.loads((model / "cost.json").read_text()) | predicting(evaluation.scores.get("seconds_per_image")),
    )


def predicting(seconds: float | None) -> dict[str, float]:
    """What predicting one test image took."""
    return {"predict_seconds": seconds, "predicted_per_second": 1 / seconds} if seconds else {}


def section_of(comparison: Comparison, scored: list[Scored], *, seed: int) -> tuple[Section, list[rate.Shown]]:
    """What the page and the blind page show of one dataset, read from the files of its experiments."""
    data, names = Path("data/converted") / comparison.dataset, [one.name for one in scored]
    info, split = read_info(data), Split(data, "test")
    if info.digest != comparison.dataset_digest:
        raise ValueError(f"{data}: has changed since {', '.join(names)} were evaluated. Run `dvc repro`.")
    predictions = {name: results.read_predictions(Path("evaluations") / name) for name in names}

    def predicted(name: str, index: int) -> np.ndarray:
        return predictions[name][comparison.ids[index]]

    firsts = [model.members[0].name for model in comparison.models]
    shared = np.array(
        [
            count_agreement(decode_mask(split[i].mask), [predicted(name, i) for name in firsts], ignore_index=info.ignore_index)
            for i in range(len(comparison.ids) if comparison.pairs else 0)
        ]
    )
    agreements = [agreement((pair.a, pair.b), shared[:, i].sum(axis=0)) for i, pair in enumerate(comparison.pairs)]
    attention, shown = attention_of(comparison, scored[0], info.class_names, seed=seed)
    truth = scored[0].counts.sum(axis=(0, 2))
    return Section(
        comparison=comparison,
        classes=[
            Class(name=c.name, colour=c.colour, share=float(n / truth.sum())) for c, n in zip(info.classes, truth, strict=True)
        ],
        rows=picture_rows(comparison, split.arrays, predicted, info.palette(), ignore_index=info.ignore_index),
        histories={name: pd.read_csv(Path("models") / name / "history.csv") for name in names},
        failures={n: f"../{n}/failures/index.html" for n in names if Path("failures", n, "summary.json").exists()},
        evaluations={n: f"../{n}/evaluation/index.html" for n in names if Path("reports", n, "evaluation/index.html").exists()},
        agreements=[one for one in agreements if one is not None],
        versus=versus_rows(comparison, shared, split.arrays, predicted, info.palette(), ignore_index=info.ignore_index),
        attention=attention,
    ), shown


def attention_of(
    comparison: Comparison, one: Scored, classes: list[str], *, seed: int
) -> tuple[dict[str, Any] | None, list[rate.Shown]]:
    """What the models' maps of common segments say, and what the blind page shows of them; None and nothing where there are none.

    A model with several seeds is represented by its first.
    """
    found = {model.name: versus.read(Path("failures") / model.members[0].name) for model in comparison.models}
    known = {name: common for name, common in found.items() if common is not None}
    pairs = [(pair.a, pair.b) for pair in comparison.pairs if pair.a in known and pair.b in known]
    units = dict(zip(one.ids, units_of(one.groups)[0].tolist(), strict=True))
    chance: dict[str, Any] = {"units": units, "resamples": comparison.resamples, "alpha": comparison.alpha, "seed": seed}
    documents = versus.versus({name: common.table for name, common in known.items()}, pairs, **chance)
    if not documents:
        return None, []
    shown = [
        item
        for a, b in pairs[:RATED_PAIRS]
        for item in rate.items(
            comparison.dataset, comparison.dataset_digest, (a, b), (known[a], known[b]), class_names=classes, seed=seed
        )
    ]
    answers, problems = ratings.read_ratings(RATINGS)
    counted = ratings.count(answers, [item.key for item in shown], **chance)
    key = [asdict(item.key) for item in shown]
    page = {"rate_page": "rate.html" if shown else None, "key": key}
    return {"pairs": documents, "ratings": counted | {"problems": problems}, **page}, shown


if __name__ == "__main__":
    main()
