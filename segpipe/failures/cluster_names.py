"""What the regions of a group share, in words: a short name, and sentences that set it against the other explained regions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from segpipe.failures.measures import READINGS

MOST_OF = 0.6
"""A property is shared if this part of a group has it."""
APART = 0.75
"""How often a random member must exceed a random other region (or fall below it) to call the members larger (or smaller)."""
EVIDENCE = {
    "no evidence": "no evidence for the true class",
    "context": "evidence elsewhere",
    "look-alike": "the classes look alike",
    "parts": "each class sees another part",
    "true class elsewhere": "evidence for the true class elsewhere",
}
"""What a reading is called in a name."""


def describe(table: pd.DataFrame, inside: np.ndarray, *, class_names: Sequence[str], layer: str) -> tuple[str, list[str]]:
    """The name of the rows `inside`, bool (n,), of a table of explained regions, and sentences on what they share."""
    group, others = table[inside], table[~inside]
    sentences: list[str] = []

    def common(column: str, phrase: str, names: Sequence[str] | None = None) -> str | None:
        """The value that most of the group has, as a word; one sentence about it."""
        counts = group[column].value_counts()
        value = min(counts.index[counts == counts.max()])
        if counts[value] < MOST_OF * len(group):
            return None
        word = str(value) if names is None else names[int(value)]
        rest = f"; of the others {int((others[column] == value).sum())} of {len(others)}" if len(others) else ""
        sentences.append(f"{_all(int(counts[value]), len(group))} {phrase.format(word)}{rest}.")
        return word

    mode = common("mode", "are of the kind “{}”")
    true = common("true", "are {} in truth", class_names)
    predicted = common("predicted", "are predicted as {}", class_names)
    size = _contrast(group["area"], others["area"])
    if size:
        ours, theirs = ([round(float(v)) for v in part["area"].quantile([0.25, 0.75])] for part in (group, others))
        sentences.append(
            f"They are {'smaller' if size == 'small' else 'larger'} than the others: half of them have {ours[0]:,} to {ours[1]:,}"
            f" pixels, half of those {theirs[0]:,} to {theirs[1]:,}."
        )
    reading = common(f"{layer}/reading", "have the reading “{}”") if f"{layer}/reading" in table else None
    if reading in READINGS:
        sentences[-1] = f"{sentences[-1][:-1]}: {READINGS[reading]}."
    if "margin" in table and (sure := _contrast(group["margin"], others["margin"])):
        logits = [float(part["margin"].median()) for part in (group, others)]
        sentences.append(
            f"The network was {'surer' if sure == 'large' else 'less sure'} of these than of the others: its logits lie"
            f" {logits[0]:.1f} apart, theirs {logits[1]:.1f} (medians)."
        )
    images = group["id"].nunique()
    sentences.append(f"They come from {images} image{'s' if images != 1 else ''}.")
    name = _subject(mode, true, predicted)
    parts = [f"{size} {name}" if size else name]
    if reading in EVIDENCE:
        parts.append(EVIDENCE[reading])
    return ", ".join(parts), sentences


def _subject(mode: str | None, true: str | None, predicted: str | None) -> str:
    what, taken = true or "segments of several classes", predicted or "other classes"
    if mode == "missed":
        return f"{what} missed" + (f", taken for {predicted}" if predicted else "")
    if mode == "hallucinated":
        return f"{predicted or 'segments of several classes'} hallucinated" + (f" on {true}" if true else "")
    if mode == "merge":
        return f"{predicted or 'segments of several classes'} merged" + (f" across {true}" if true else "")
    if mode == "split":
        return f"{what} split" + (f" by {predicted}" if predicted else "")
    if mode == "boundary":
        return f"borders between {true or 'several classes'} and {taken}"
    if mode == "partial":
        return f"parts of {what} taken for {taken}"
    if true or predicted:
        return f"{what} taken for {taken}"
    return "confusions of several classes" if mode == "confusion" else "mixed errors"


def _contrast(group: pd.Series, others: pd.Series) -> str | None:
    """ "large" or "small" where the group's values clearly are, against the others'; NaN left out."""
    a, b = group.dropna().to_numpy(np.float64), others.dropna().to_numpy(np.float64)
    if not (len(a) and len(b)):
        return None
    above = float(((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()) / (len(a) * len(b)))
    return "large" if above >= APART else "small" if above <= 1 - APART else None


def _all(count: int, of: int) -> str:
    return f"All {of}" if count == of else f"{count} of {of}"
