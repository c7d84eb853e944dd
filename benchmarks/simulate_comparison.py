"""Are the intervals and tests of `compare` right? The truth of simulated data is known: `python -m benchmarks.simulate_comparison`.

Each setting draws 1,000 test sets of confusion counts (4,000 for intervals) and compares models on them as `compare` does. Printed
is how often models that are equally good were called different (at most alpha is right), how often each kind of interval held the
true value (95 % is right), and how often a difference of 1 point was seen on as many images as a verdict asks for (80 % is right).
docs/simulations.md keeps the numbers.

Images differ in difficulty, which all models share; models also err alike on the same class of the same image, and each has errors
of its own. Two classes are on every image, two on 70 % of them, two are rare (15 %) and small. In groups, images share their
difficulty and their classes in part.

What is done is kept in .cache/simulate_comparison.jsonl, one line per block of draws, and not done again; `--fresh` forgets it.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from segpipe.comparison import compare
from segpipe.intervals import bca, percentile, widened
from segpipe.metrics import iou, mean_iou
from segpipe.model_pairs import Pair
from segpipe.model_scores import Scored
from segpipe.resampling import bootstrap, jackknife

ALPHA, BLOCK, PIXELS, POPULATION = 0.05, 50, 20_000, 400_000
TIMES = 4
"""Intervals are quick to draw, and whether they cover 93 or 95 % takes many draws to tell: so many times as many."""
DONE = Path(".cache/simulate_comparison.jsonl")
PRESENCE = np.array([1, 1, 0.7, 0.7, 0.15, 0.15])
AREA = np.array([0.5, 0.25, 0.08, 0.08, 0.012, 0.012])
SKILL = np.array([3.0, 2.2, 1.4, 1.4, 0.7, 0.7])
"""Logits of the recall of each class on an image of middling difficulty."""
EXCHANGED = np.array([0, 0, 0.5, -0.5, 0.5, -0.5])
"""Added for one model and taken away for the other, it leaves both with the same mIoU: classes 2 and 3, 4 and 5 are alike."""
RARE = 4
Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Models (rows of logits, added to SKILL) and test sets of so many units of so many images each."""

    name: str
    models: tuple[tuple[float, ...], ...]
    units: int
    sizes: tuple[int, ...] = (1,)
    shows: str = "null"
    """What it is for: "null" (false winners), "coverage" (of the intervals) or "power" (of the number of images asked for)."""

    @property
    def words(self) -> str:
        groups = f"{self.units} groups of {min(self.sizes)} to {max(self.sizes)} images"
        return f"{self.units} images" if self.sizes == (1,) else groups


def settings() -> list[Setting]:
    """Everything that is simulated."""
    level, exchanged = (0.0,) * 6, tuple(EXCHANGED.tolist())
    worse, back = (-0.12,) * 6, tuple((-EXCHANGED).tolist())
    point, back_point = (-0.054,) * 6, tuple((-EXCHANGED - 0.0555).tolist())
    shapes: list[dict[str, Any]] = [{"units": 40}, {"units": 100}, {"units": 300}, {"units": 40, "sizes": (2, 4, 5, 6, 8)}]
    found = []
    for shape in shapes:
        found.append(Setting(name="two alike", models=(level, level), **shape))
        found.append(Setting(name="two unlike, equal mIoU", models=(exchanged, back), **shape))
        found.append(Setting(name="a difference", models=(level, worse), shows="coverage", **shape))
    for shape in (shapes[0], shapes[3]):
        found.append(Setting(name="five alike, 10 pairs", models=(level,) * 5, **shape))
    found.append(Setting(name="1 point, alike", models=(level, point), units=60, shows="power"))
    found.append(Setting(name="1 point, unlike", models=(exchanged, back_point), units=60, shows="power"))
    return found


def draw(rng: np.random.Generator, models: Sequence[Sequence[float]], groups: np.ndarray) -> np.ndarray:
    """Confusion counts int64 (M, N, K, K) of one test set; `groups` (N,) holds the number of each image's group, from 0."""
    n, k = len(groups), len(SKILL)
    shared, own = (rng.standard_normal((size, 1 + k)) for size in (int(groups.max()) + 1, n))
    # An image has half of its difficulty, and most of its classes, from its group.
    difficulty = 0.8 * (np.sqrt(0.5) * shared[groups, 0] + np.sqrt(0.5) * own[:, 0])
    present = np.sqrt(0.7) * shared[groups, 1:] + np.sqrt(0.3) * own[:, 1:] < special.ndtri(PRESENCE)
    area = np.where(present, AREA * np.exp(0.6 * rng.standard_normal((n, k))), 0)
    area = np.rint(PIXELS * area / area.sum(axis=1, keepdims=True))
    class_difficulty = 0.5 * rng.standard_normal((n, k))
    skills = (SKILL + np.array(models))[:, None] - difficulty[:, None] - class_difficulty
    recall = special.expit(skills + 0.5 * rng.standard_normal((len(models), n, k)))
    # What is missed goes to the classes around, the large ones first, and a little to classes that are not there.
    towards = (area / PIXELS + 0.01)[:, None] * (1 - np.eye(k))
    towards /= towards.sum(axis=2, keepdims=True)
    counts = np.rint(((1 - recall) * area)[..., None] * towards).astype(np.int64)
    right = np.maximum(area.astype(np.int64) - counts.sum(axis=3), 0)
    counts[..., range(k), range(k)] = right
    return counts


def groups_of(setting: Setting) -> np.ndarray:
    """The number of each image's group."""
    return np.repeat(np.arange(setting.units), np.resize(setting.sizes, setting.units))


@cache
def truth(models: tuple[tuple[float, ...], ...], *, images: int = POPULATION) -> np.ndarray:
    """Counts int64 (M, K, K) of so many images of the population that the test sets are drawn from; groups do not change it."""
    rng = np.random.default_rng(2026)
    size = 10_000
    return np.sum([draw(rng, models, np.arange(size)).sum(axis=1) for _ in range(images // size)], axis=0)


def winners(setting: Setting, *, first: int, draws: int, resamples: int) -> int:
    """In how many of `draws` test sets any two models were called different after Holm."""
    groups = groups_of(setting)
    found = 0
    for number in range(first, first + draws):
        pairs = _pairs(draw(_rng(setting, number), setting.models, groups), groups, resamples=resamples, seed=number)
        found += any(pair.better for pair in pairs)
    return found


def seen(setting: Setting, *, first: int, draws: int, resamples: int) -> tuple[int, int]:
    """In how many new test sets, each as large as the verdict on another one asks for, the first model was found better; and the
    images of all of them."""
    found, images = 0, 0
    for number in range(first, first + draws):
        rng, groups = _rng(setting, number), groups_of(setting)
        (pair,) = _pairs(draw(rng, setting.models, groups), groups, resamples=resamples, seed=number)
        enough = np.arange(setting.units + pair.more_units)
        (again,) = _pairs(draw(rng, setting.models, enough), enough, resamples=resamples, seed=number)
        found += again.better == "0"
        images += len(enough)
    return found, images


def coverage(setting: Setting, population: np.ndarray, *, first: int, draws: int, resamples: int) -> dict[str, int]:
    """How many intervals of each kind held the true value: {"what, kind": hits of `draws`}."""
    groups = groups_of(setting)
    true_miou, true_iou = mean_iou.compute(population), iou.compute(population)
    true = {
        "difference": true_miou[0] - true_miou[1],
        "one model": true_miou[0],
        "rare class": true_iou[0, RARE] - true_iou[1, RARE],
    }
    hits: dict[str, int] = {}
    metrics: dict[str, Callable[[np.ndarray], np.ndarray]] = {"miou": mean_iou.compute, "rare": lambda c: iou.compute(c)[..., RARE]}
    for number in range(first, first + draws):
        counts = draw(_rng(setting, number), setting.models, groups)
        drawn = bootstrap(counts, groups, metrics=metrics, resamples=resamples, seed=number)
        left = jackknife(counts, groups, metrics=metrics)
        whole = {name: metric(counts.sum(axis=1)) for name, metric in metrics.items()}
        for what, value in true.items():
            name = "rare" if what == "rare class" else "miou"
            if what == "one model":
                parts = (values[name][0] for values in (drawn, left, whole))
            else:
                parts = (values[name][0] - values[name][1] for values in (drawn, left, whole))
            for kind, (low, high) in _intervals(*parts).items():
                key = f"{what}, {kind}"
                hits[key] = hits.get(key, 0) + bool(low <= value <= high)
    return hits


def _pairs(counts: np.ndarray, groups: np.ndarray, *, resamples: int, seed: int) -> tuple[Pair, ...]:
    """All pairs of models, named "0", "1", ..., as `compare` judges them."""
    scored = [_scored(str(i), one, groups) for i, one in enumerate(counts)]
    metrics = {"miou": mean_iou.compute}
    return compare(scored, metrics=metrics, per_class=iou.compute, resamples=resamples, alpha=ALPHA, seed=seed).pairs


def _intervals(draws: np.ndarray, left: np.ndarray, value: float) -> Intervals:
    draws, rate = draws[~np.isnan(draws)], widened(ALPHA, len(left))
    return {
        "percentile": percentile(draws, alpha=ALPHA),
        "percentile, widened": percentile(draws, alpha=rate),
        "BCa": bca(draws, value, left, alpha=ALPHA),
        "BCa, widened": bca(draws, value, left, alpha=rate),
    }


def _rng(setting: Setting, number: int) -> np.random.Generator:
    return np.random.default_rng([number, setting.units, len(setting.sizes)])


def _scored(name: str, counts: np.ndarray, groups: np.ndarray) -> Scored:
    ids = [str(i) for i in range(len(counts))]
    words = [f"g{g}" for g in groups]
    row = {"architecture": "", "loss": "", "dataset": "simulated", "dataset_digest": ""}
    return Scored(name=name, seed=0, recipe=name, ids=ids, groups=words, counts=counts, cost={}, **row)


def block(setting: Setting, first: int, resamples: int) -> dict[str, Any]:
    """One line of the file of what is done."""
    key = _key(setting, first, resamples)
    if setting.shows == "null":
        return {**key, "winners": winners(setting, first=first, draws=BLOCK, resamples=resamples)}
    if setting.shows == "power":
        found, images = seen(setting, first=first, draws=BLOCK, resamples=resamples)
        return {**key, "seen": found, "images": images}
    population = truth(setting.models)
    return {**key, "hits": coverage(setting, population, first=TIMES * first, draws=key["draws"], resamples=resamples)}


def _key(setting: Setting, first: int, resamples: int) -> dict[str, Any]:
    draws = BLOCK * (TIMES if setting.shows == "coverage" else 1)
    return {"setting": setting.name, "test sets": setting.words, "first": first, "draws": draws, "resamples": resamples}


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Three tables in Markdown: false winners, coverage, and power."""
    lines = ["| models | test sets | draws | called different |", "|---|---|---|---|"]
    covered, powers = [], []
    for setting in settings():
        mine = [r for r in rows if (r["setting"], r["test sets"]) == (setting.name, setting.words)]
        draws = sum(r["draws"] for r in mine)
        if draws and setting.shows == "null":
            share = sum(r["winners"] for r in mine) / draws
            lines.append(f"| {setting.name} | {setting.words} | {draws:,} | {100 * share:.1f} % |")
        elif draws and setting.shows == "power":
            share, images = (sum(r[key] for r in mine) / draws for key in ("seen", "images"))
            powers.append(f"| {setting.name} | {setting.words} | {draws:,} | {images:.0f} | {100 * share:.1f} % |")
        elif draws:
            totals = {key: 100 * sum(r["hits"][key] for r in mine) / draws for key in mine[0]["hits"]}
            for what in ("difference", "one model", "rare class"):
                shares = " | ".join(f"{value:.1f} %" for key, value in totals.items() if key.startswith(f"{what},"))
                covered.append(f"| {what} | {setting.words} | {draws:,} | {shares} |")
    head = [
        "",
        "| interval of | test sets | draws | percentile | percentile, widened | BCa | BCa, widened |",
        "|---|---|---|---|---|---|---|",
    ]
    last = ["", "| models | first test sets | draws | images asked for, on average | seen on as many |", "|---" * 5 + "|"]
    return "\n".join(lines + head + covered + last + powers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fresh", action="store_true")
    chosen = parser.parse_args()
    DONE.parent.mkdir(exist_ok=True)
    if chosen.fresh:
        DONE.unlink(missing_ok=True)
    rows = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    rows = [r for r in rows if r["resamples"] == chosen.resamples and r["first"] < chosen.draws]
    known = [{key: r[key] for key in ("setting", "test sets", "first", "draws", "resamples")} for r in rows]
    todo = [(s, first) for first in range(0, chosen.draws, BLOCK) for s in settings()]
    todo = [(s, first) for s, first in todo if _key(s, first, chosen.resamples) not in known]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read by the workers, which start anew
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool, DONE.open("a") as file:
        running = [pool.submit(block, s, first, chosen.resamples) for s, first in todo]
        for number, done in enumerate(as_completed(running), start=1):
            rows.append(done.result())
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            print(f"{number} of {len(todo)} blocks of {BLOCK} draws", flush=True)
    print(report(rows))


if __name__ == "__main__":
    main()
