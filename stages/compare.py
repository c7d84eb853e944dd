"""Which model is better, by how much, and is it real: `python -m stages.compare`."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console

from segpipe import components, results, results_table
from segpipe.comparison import Comparison, Scored, compare, document, leaderboard
from segpipe.pages.comparison import Class, Section, comparison_page, picture_rows
from segpipe.params import Experiment, read_params
from segpipe.shards import Split, read_info

METRICS = {"miou": "mean_iou", "mpa": "mean_pixel_accuracy", "pa": "pixel_accuracy", "dice": "mean_dice"}
OUT = Path("reports/comparison")


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
            seed=params.seed,
        )
        for scored in datasets.values()
    ]
    rows = [row for comparison in comparisons for row in leaderboard(comparison)]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "comparison.json").write_text(json.dumps([document(c) for c in comparisons], indent=1, allow_nan=False) + "\n")
    with open(OUT / "leaderboard.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sections = [section_of(c, scored) for c, scored in zip(comparisons, datasets.values(), strict=True)]
    (OUT / "index.html").write_text(comparison_page(sections))
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
        cost=json.loads((model / "cost.json").read_text()),
    )


def section_of(comparison: Comparison, scored: list[Scored]) -> Section:
    """What the page shows of one dataset, read from the files of its experiments."""
    data, names = Path("data/converted") / comparison.dataset, [one.name for one in scored]
    info, split = read_info(data), Split(data, "test")
    if info.digest != comparison.dataset_digest:
        raise ValueError(f"{data}: has changed since {', '.join(names)} were evaluated. Run `dvc repro`.")
    predictions = {name: results.read_predictions(Path("evaluations") / name) for name in names}
    truth = scored[0].counts.sum(axis=(0, 2))
    return Section(
        comparison=comparison,
        classes=[
            Class(name=c.name, colour=c.colour, share=float(n / truth.sum())) for c, n in zip(info.classes, truth, strict=True)
        ],
        rows=picture_rows(
            comparison,
            split.arrays,
            lambda name, index: predictions[name][comparison.ids[index]],
            info.palette(),
            ignore_index=info.ignore_index,
        ),
        histories={name: pd.read_csv(Path("models") / name / "history.csv") for name in names},
        failures={n: f"../{n}/failures/index.html" for n in names if Path("failures", n, "summary.json").exists()},
    )


if __name__ == "__main__":
    main()
