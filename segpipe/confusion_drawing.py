"""The drawing of a confusion matrix: each row in per cent of its true pixels, one hue, the same bytes for the same counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

PRINTED_CLASSES = 24
"""Up to this many classes the drawn confusion matrix has its numbers in its cells."""


def draw_confusion(counts: np.ndarray, *, class_names: Sequence[str], path: Path) -> None:
    """Draw summed counts int64 (K, K) as a PNG: each row in per cent of its true pixels, the pixel count below.

    One hue from light to dark, readable in any colour vision and in print; the scale is a square root, so that rare confusions
    show. A class that truth lacks has a grey row.
    """
    true = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, true, out=np.full(counts.shape, np.nan), where=true > 0)
    classes, printed = len(class_names), len(class_names) <= PRINTED_CLASSES
    side = min(2.4 + (0.78 if printed else 0.16) * classes, 24.0)
    figure = Figure(figsize=(side + 1.2, side), layout="compressed", dpi=110)
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    drawn = axes.imshow(100 * share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    small = 8 if printed else 5
    axes.set_xticks(range(classes), class_names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small + 1)
    axes.set_yticks(range(classes), class_names, fontsize=small + 1)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    for row, column in np.ndindex(counts.shape) if printed else ():
        if counts[row, column]:
            text = f"{100 * share[row, column]:.1f}\n{_short(int(counts[row, column]))}"
            colour = "white" if share[row, column] > 0.3 else "#222222"
            axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1 if printed else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    scale = figure.colorbar(
        drawn, ax=axes, shrink=0.8, aspect=30, label="% of the true pixels", ticks=[0, 1, 5, 10, 25, 50, 75, 100]
    )
    scale.outline.set_visible(False)  # type: ignore[operator]  # a Spine, whatever the stubs say
    # Without the version of matplotlib in it, the file depends on the counts alone.
    figure.savefig(path, metadata={"Software": None})


def _short(number: int) -> str:
    """1234567 as 1.2M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
