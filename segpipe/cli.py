"""The command `segpipe`, run by hand beside `dvc repro`. Only this file of the library prints or reads the environment."""

import argparse
import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PRESETS = Path(__file__).resolve().parent.parent / "presets"


def main() -> None:
    """Parse the command line and run one command; a wrong input ends it with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="segpipe", description=__doc__.partition(":")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="label maps and colour overlays of images")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    predict.add_argument("--model", required=True, help="models:/NAME@champion, models:/NAME/3, or a folder under models/")
    predict.add_argument("--out", type=Path, default=Path("predictions"), help="where to write (default: predictions)")
    commands.add_parser("doctor", help="what this machine has, and what would fail")
    commands.add_parser("check", help="read params.yaml and say what is wrong with it")
    commands.add_parser("leaderboard", help="the last comparison, and where to look further")
    preset = commands.add_parser("preset", help="replace params.yaml by a preset")
    preset.add_argument("name", nargs="?", help="without a name: list the presets")
    preset.add_argument("--source", help="a local folder or archive that the preset's dataset is read from")
    arguments = parser.parse_args()
    actions = {"doctor": _doctor, "check": _check, "leaderboard": _leaderboard}
    try:
        if arguments.command == "predict":
            _predict(arguments.images, arguments.model, arguments.out)
        elif arguments.command == "preset":
            _preset(arguments.name, arguments.source)
        else:
            actions[arguments.command]()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"segpipe {arguments.command}: {error}")


def _predict(images: list[Path], model: str, out: Path) -> None:
    from segpipe import drawing, prediction, shards

    predictor = prediction.open_model(model, tracking_uri=_tracking_uri())
    names = [path.stem for path in images]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two images are called {name!r}: their label maps would overwrite each other; predict them apart")
    out.mkdir(parents=True, exist_ok=True)
    for path, name in zip(images, names, strict=True):
        image = prediction.read_image(path)
        labels = predictor.labels(image)
        (out / f"{name}.labels.png").write_bytes(shards.encode_mask(labels))
        (out / f"{name}.overlay.png").write_bytes(shards.encode_image(drawing.overlay(image, labels, predictor.palette)))
        shares = np.bincount(labels.ravel(), minlength=len(predictor.class_names)) / labels.size
        largest = sorted(zip(shares, predictor.class_names, strict=True), reverse=True)[:3]
        print(f"{path} -> {out}/{name}.{{labels,overlay}}.png   " + ", ".join(f"{n} {s:.0%}" for s, n in largest if s > 0))


def _doctor() -> None:
    from segpipe import doctor

    prefect = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{os.environ.get('PREFECT_PORT', '4200')}/api")
    checks = doctor.examine(Path.cwd(), prefect_url=prefect, mlflow_uri=_tracking_uri())
    table = Table("", "check", "found", "what to do", box=None)
    marks = {"ok": "[green]ok", "warning": "[yellow]note", "error": "[red]FAIL"}
    for check in checks:
        table.add_row(marks[check.status], *map(escape, (check.name, check.found, check.advice)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if any(check.status == "error" for check in checks):
        sys.exit(1)


def _check() -> None:
    from segpipe.params import read_params

    params = read_params()
    print(f"params.yaml is valid: {len(params.datasets)} datasets, {len(params.experiments)} experiments")


def _leaderboard() -> None:
    from segpipe import results_table

    console = Console(width=None if sys.stdout.isatty() else 120)  # a log is not cut at 80 columns
    path = Path("reports/comparison/leaderboard.csv")
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing. Run `dvc repro` first.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    receipt = results_table.read_receipt(Path("registry.json"))
    console.print(results_table.leaderboard(rows, champions=receipt.champions))
    for line in receipt.lines:
        console.print(line, highlight=False, markup=False)
    console.print("\nLook further:")
    for what, where in results_table.further(rows):
        console.print(f"  {what:22} {where}", highlight=False, markup=False)


def _preset(name: str | None, source: str | None) -> None:
    from segpipe import components
    from segpipe.params import PARAMS_FILE, read_params

    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name is None:
        print("\n".join(names))
        return
    if name not in names:
        raise ValueError(f"no preset {name!r}.{components.suggestion(name, names)} There are: {', '.join(names)}.")
    text = (PRESETS / f"{name}.yaml").read_text()
    if source:
        if text.count("source: null") != 1:
            raise ValueError(f"preset {name}: has no single `source: null` line to replace; edit params.yaml by hand")
        text = text.replace("source: null", f"source: {json.dumps(source)}")
    new = PARAMS_FILE.with_suffix(".yaml.new")
    new.write_text(text)
    read_params(new)
    backup = PARAMS_FILE.with_suffix(".yaml.bak")
    if PARAMS_FILE.exists() and not backup.exists():  # the first one kept is the user's own, later ones are presets
        shutil.copyfile(PARAMS_FILE, backup)
    new.replace(PARAMS_FILE)
    print(f"params.yaml is now the preset {name}; your own is kept as {backup}. Run `dvc repro`.")


def _tracking_uri() -> str:
    from segpipe.tracking.connection import default_uri

    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path.cwd())


if __name__ == "__main__":
    main()
