"""What people answered on the blind page `reports/comparison/rate.html`, read from `ratings/` and counted.

`<dataset>.jsonl` is what the report server appends, one answer a line: {"time", "dataset", "rater", "item", "choice"}. A `.json`
file is what the page offers as a download: {"dataset", "rater", "answers": [{"item", "choice", "time"}]}. A choice is 1 (the left
map is much better) to 5 (the right one is); who was on which side is known here only, from the key of the page. Of several
answers of one rater to one item the last one counts. An item's name changes with its maps, so answers on older maps never count
for newer ones.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from segpipe.intervals import spread
from segpipe.resampling import mean_per_unit
from segpipe.wording import p_words

MOST_BYTES = 64 * 2**20
CHOICES = {1: "A much better", 2: "A better", 3: "equal", 4: "B better", 5: "B much better"}
"""What the page asks; A is on the left."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """The key of one item: two models' maps of one true segment, and whether `a` was on the left."""

    item: str
    dataset: str
    a: str
    b: str
    a_left: bool
    id: str
    segment: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One rater's choice, 1 to 5, on one item."""

    item: str
    rater: str
    choice: int


def read_ratings(folder: Path) -> tuple[list[Answer], list[str]]:
    """The last answer of each rater to each item, and what could not be read, each with its file and line.

    A file that a person damaged costs the answers in it, never the comparison.
    """
    found: dict[tuple[str, str], tuple[datetime, Answer]] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.json*")) if folder.is_dir() else []:
        for where, row in _rows(path, problems):
            try:
                time, answer = _answer(row)
            except ValueError as error:
                problems.append(f"{where}: {error}")
                continue
            key = answer.rater, answer.item
            if key not in found or time >= found[key][0]:
                found[key] = time, answer
    return [found[key][1] for key in sorted(found)], problems


def _rows(path: Path, problems: list[str]) -> list[tuple[str, Any]]:
    """The answers of one file as they stand there, each with where it stands."""
    name = f"{path.parent.name}/{path.name}"
    if path.suffix not in (".json", ".jsonl") or not path.is_file():
        return []
    if path.stat().st_size > MOST_BYTES:
        problems.append(f"{name}: larger than {MOST_BYTES // 2**20} MiB, left out")
        return []
    text = path.read_text(errors="replace")
    rows: list[tuple[str, Any]] = []
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    rows.append((f"{name}:{number}", json.loads(line)))
                except (ValueError, RecursionError):
                    problems.append(f"{name}:{number}: is not JSON")
        return rows
    try:
        document = json.loads(text)
        answers, rater = document["answers"], document["rater"]
        return [(f"{name}, answer {number}", {**row, "rater": rater}) for number, row in enumerate(answers, 1)]
    except (ValueError, TypeError, KeyError, RecursionError):
        problems.append(f"{name}: is not a download of the rating page")
        return []


def _answer(row: Any) -> tuple[datetime, Answer]:
    if not isinstance(row, dict):
        raise ValueError("is no answer")
    item, rater, choice = row.get("item"), row.get("rater"), row.get("choice")
    if not isinstance(item, str) or not item:
        raise ValueError(f"item is {item!r}, which is no name of an item")
    if not isinstance(rater, str) or not rater.strip():
        raise ValueError(f"rater is {rater!r}, which is no name")
    if type(choice) is not int or choice not in CHOICES:
        raise ValueError(f"choice is {choice!r}, and must be 1 to 5")
    try:
        time = datetime.fromisoformat(str(row.get("time", "")))
    except ValueError:
        time = datetime.min
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time, Answer(item=item, rater=rater.strip(), choice=choice)


def count(
    answers: Sequence[Answer], items: Sequence[Item], *, units: Mapping[str, int], resamples: int, alpha: float, seed: int
) -> dict[str, Any]:
    """Count the answers of each pair of models.

    Args:
        items: the key of the page.
        units: the independent unit of each image id.

    Returns:
        {"pairs": [...], "other": answers to items that the page no longer holds}. A pair is {dataset, a, b, items (on the page),
        rated, answers, raters, choices (answers from "a much better" to "b much better"), mean, low, high, wins, ties, losses, p,
        agreement, sentence}. `mean` is the preference for a, from -2 to 2, over units (of the means over raters), with its
        bootstrap interval; wins are items on which a is preferred; p is of a two-sided sign test over units; `agreement` is
        Krippendorff's alpha. A number that is undefined is None.
    """
    known = {one.item for one in items}
    rows = []
    for dataset, a, b in dict.fromkeys((one.dataset, one.a, one.b) for one in items):
        mine = {one.item: one for one in items if (one.dataset, one.a, one.b) == (dataset, a, b)}
        given = [one for one in answers if one.item in mine]
        votes: dict[str, list[int]] = {}
        for one in given:
            votes.setdefault(one.item, []).append((3 - one.choice) * (1 if mine[one.item].a_left else -1))
        row: dict[str, Any] = {"dataset": dataset, "a": a, "b": b, "items": len(mine), "rated": len(votes), "answers": len(given)}
        row["raters"] = len({one.rater for one in given})
        row["choices"] = [sum(vote == value for one in votes.values() for vote in one) for value in (2, 1, 0, -1, -2)]
        means = np.array([np.mean(one) for one in votes.values()])
        row |= {"wins": int((means > 0).sum()), "ties": int((means == 0).sum()), "losses": int((means < 0).sum())}
        row |= dict.fromkeys(("mean", "low", "high", "p", "agreement"))
        if votes:
            row |= _chance(means, np.array([units[mine[item].id] for item in votes]), resamples=resamples, alpha=alpha, seed=seed)
            row["agreement"] = agreement(list(votes.values()))
        rows.append(row | {"sentence": sentence(row, alpha=alpha)})
    return {"pairs": rows, "other": sum(one.item not in known for one in answers)}


def _chance(means: np.ndarray, units: np.ndarray, *, resamples: int, alpha: float, seed: int) -> dict[str, float | None]:
    paired = mean_per_unit(means, units)
    value = float(paired.mean())
    ahead, behind = int((paired > 0).sum()), int((paired < 0).sum())
    p = float(stats.binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
    if len(paired) < 2:
        return {"mean": value, "low": None, "high": None, "p": p}
    draws = paired[np.random.default_rng(seed).integers(0, len(paired), (resamples, len(paired)))].mean(axis=1)
    chance = spread(draws, value, (paired.sum() - paired) / (len(paired) - 1), alpha=alpha)
    return {"mean": value, "low": chance.low, "high": chance.high, "p": p}


def agreement(votes: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha with squared differences ("interval"): 1 is full agreement, 0 what chance gives.

    `votes` holds for each item the values that were given to it; items with one value say nothing. None where no item has two, or
    all values are the same. Source: Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section E.
    """
    several = [np.asarray(one, np.float64) for one in votes if len(one) > 1]
    if not several:
        return None
    values = np.concatenate(several)
    expected = _squares(values) / (len(values) - 1)
    observed = sum(_squares(one) / (len(one) - 1) for one in several)
    return float(1 - observed / expected) if expected > 0 else None


def _squares(values: np.ndarray) -> float:
    """The sum of squared differences over all ordered pairs."""
    return float(2 * (len(values) * (values**2).sum() - values.sum() ** 2))


def sentence(row: Mapping[str, Any], *, alpha: float) -> str:
    """What the answers on one pair say, in words."""
    a, b = row["a"], row["b"]
    if not row["answers"]:
        return f"Nobody has rated the maps of {a} and {b} yet."
    people = f"{row['raters']} {'people' if row['raters'] != 1 else 'person'}"
    text = f"{people} rated {row['rated']} of {row['items']} pairs of maps blindly"
    liked, other, sign = (a, b, 1) if row["mean"] >= 0 else (b, a, -1)
    ends = "" if row["low"] is None else f"{100 * (1 - alpha):g} % {_signed(sign, row, 0)} to {_signed(sign, row, 1)}; "
    wins, losses = (row["wins"], row["losses"]) if sign > 0 else (row["losses"], row["wins"])
    numbers = f"{ends}better on {wins}, equal on {row['ties']}, worse on {losses}; {p_words(row['p'])} in a sign test"
    if row["p"] < alpha:
        text += f": {liked}'s are preferred to {other}'s by {abs(row['mean']):.1f} on a scale from -2 to 2 ({numbers})."
    else:
        by = f"{liked}'s by {abs(row['mean']):.1f} on a scale from -2 to 2"
        text += f": no evidence that they prefer {a}'s or {b}'s ({by}; {numbers})."
    if row["agreement"] is not None:
        text += f" The raters' agreement is {row['agreement']:.2f} (Krippendorff's alpha; 1 is full)."
    return text


def _signed(sign: int, row: Mapping[str, Any], end: int) -> str:
    ends = sorted((sign * row["low"], sign * row["high"]))
    return f"{round(ends[end], 1) + 0.0:.1f}"
