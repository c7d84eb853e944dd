"""The table that ends a run on the terminal: the leaderboard, the champion, and where to look further."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What `register` left behind: the experiments that are champions, one per dataset, and sentences for a person."""

    champions: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)


def read_receipt(path: Path) -> Receipt:
    """Read registry.json; without it nothing was registered yet."""
    if not path.exists():
        return Receipt(lines=["Not registered yet: `dvc repro` does it."])
    document = json.loads(path.read_text())
    champions = {name: champion for name, champion in (document.get("champions") or {}).items() if champion.get("version")}
    lines = [f"Champion: {c['experiment']} ({name} version {c['version']}): {c['reason']}" for name, c in champions.items()]
    if not document["complete"]:
        lines.append(f"MLflow is not complete: {document['pending']}. The next `dvc repro` completes it.")
    return Receipt(champions=frozenset(c["experiment"] for c in champions.values()), lines=lines)


def leaderboard(rows: Sequence[Mapping[str, str]], *, champions: Collection[str] = ()) -> Table:
    """The rows of leaderboard.csv, best mIoU first within each dataset; percentages, seconds and millions of parameters."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    table = Table(title="Leaderboard: " + ", ".join(f"test split of {name}" for name in datasets), title_justify="left")
    for name in ("experiment", "mIoU %", "interval %", "MPA %", "PA %", "Dice %", "params", "train s", ""):
        table.add_column(name, justify="left" if name in ("experiment", "") else "right", no_wrap=True)
    for row in sorted(rows, key=lambda row: (datasets.index(row["dataset"]), -float(row["miou"]))):
        table.add_row(
            row["experiment"],
            _percent(row["miou"]),
            f"{_percent(row['miou_ci_low'])} to {_percent(row['miou_ci_high'])}",
            _percent(row["mpa"]),
            _percent(row["pa"]),
            _percent(row["dice"]),
            f"{float(row['parameters']) / 1e6:.2f} M",
            f"{float(row['train_seconds']):.0f}",
            "champion" if row["experiment"] in champions else "",
            style="bold" if row["experiment"] in champions else None,
        )
    return table


def further(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """(what, path or command) pairs that lead on from the table."""
    best = max(rows, key=lambda row: float(row["miou"]))["experiment"]
    return [
        ("compare the models", "reports/comparison/index.html"),
        ("see why one fails", f"reports/{best}/failures/index.html (one per experiment)"),
        ("Prefect, MLflow", "make ui"),
        ("predict your images", f"segpipe predict IMAGE... --model models/{best}"),
        ("this machine", "segpipe doctor"),
    ]


def _percent(text: str) -> str:
    return f"{100 * float(text):.1f}"
