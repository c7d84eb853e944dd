"""The command `segpipe`, run by hand beside `dvc repro`. Only this file of the library prints or reads the environment."""

import argparse
import csv
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from segpipe.layout import Scan

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
    audit = commands.add_parser("audit", help="check the images and masks of a folder, without a pipeline")
    audit.add_argument("folder", type=Path, metavar="FOLDER")
    audit.add_argument("--format", help="a file in segpipe/datasets/ (default: the one that finds samples)")
    audit.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of that format; may be repeated"
    )
    audit.add_argument("--out", type=Path, help="where to write the page (default: reports/audits/NAME/index.html)")
    preset = commands.add_parser("preset", help="replace params.yaml by a preset")
    preset.add_argument("name", nargs="?", help="without a name: list the presets")
    preset.add_argument("--source", help="a local folder or archive that the preset's dataset is read from")
    arguments = parser.parse_args()
    actions = {"doctor": _doctor, "check": _check, "leaderboard": _leaderboard}
    try:
        if arguments.command == "predict":
            _predict(arguments.images, arguments.model, arguments.out)
        elif arguments.command == "audit":
            _audit(arguments.folder, arguments.format, arguments.option, arguments.out)
        elif arguments.command == "preset":
            _preset(arguments.name, arguments.source)
        else:
            actions[arguments.command]()
    except BrokenProcessPool:
        sys.exit(f"segpipe {arguments.command}: a worker process was ended from outside, as happens where memory runs out")
    except (ValueError, OSError) as error:
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


def _audit(folder: Path, name: str | None, settings: list[str], out: Path | None) -> None:
    from segpipe import components, detection
    from segpipe.audit import AuditError
    from segpipe.convert import convert
    from segpipe.pages.dataset import write_page

    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        there = "an archive or file; unpack it and name the folder" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{folder}: {there}")
    name, scan, options = _read_as(folder, name, _options(settings))
    key = "".join(c if c.isalnum() or c in "-_" else "-" for c in folder.name) or "data"
    page = out or Path("reports/audits") / key / "index.html"
    print(f"{folder}: read as format {name}: {len(scan.items)} samples, {len(scan.classes)} classes", flush=True)
    scan, keys, said = detection.settle_splits(scan, name=key)
    load = components.load("datasets", name).load
    with tempfile.TemporaryDirectory(prefix="segpipe-audit-") as temporary, _bar("audited") as progress:
        result = Path(temporary) / "converted"
        try:
            info, audit = convert(
                folder,
                result,
                name=key,
                scan=scan,
                load=load,
                splits=keys.get("splits"),
                stand_ins=keys.get("stand_in"),
                complete=False,
                progress=progress,
            )
            write_page(page, name=key, audit=audit, statistics=info.statistics, folder=result)
        except AuditError as error:
            audit = error.audit
            write_page(page, name=key, audit=audit, statistics=error.statistics)
    for finding in audit.findings:
        print(f"{finding}\n    settled by, if it is meant: {finding.settle}")
    warnings = len(audit.findings) - len(audit.errors)
    print(f"{_counted(len(audit.errors), 'error')}, {_counted(warnings, 'warning')}; pictures: {page}")
    if said:
        print(said)
    row = ", ".join(f"{word}: {_yaml(value)}" for word, value in {"format": name, "source": str(folder), **options, **keys}.items())
    print(f"Its row under `datasets` in params.yaml, by the name that your experiments use:\n  {key}: {{{row}}}")
    if audit.errors:
        sys.exit(1)


def _read_as(folder: Path, name: str | None, options: dict[str, Any]) -> tuple[str, Scan, dict[str, Any]]:
    """The format that reads the folder, what it lists there, and its options."""
    from segpipe import components, detection

    if name is not None:
        module = components.load("datasets", name)
        components.check_options(options, components.options("datasets", name, "scan", fixed=("raw",)), where="--option")
        scan = module.scan(folder, **options)
        for fault in () if scan.items else scan.faults[:1]:
            raise ValueError(f"{folder}: no samples. {fault.what}: {fault.example}. {fault.fix}")
        return name, scan, options
    if options:
        raise ValueError("--option belongs to a format: name that with --format")
    found, reasons = detection.detect(folder)
    if len(found) == 1:
        (name, scan), *_ = found.items()
        for other, reason in reasons.items() if name in detection.GENERAL else ():
            if other != detection.GENERAL[-1]:
                print(f"{folder}: not read as {other}: {reason}")
        return name, scan, options
    nearly = "".join(f"\n  {other}: {reason}" for other, reason in reasons.items())
    said = f"it reads as {' and as '.join(found)}." if found else f"no format reads it by itself.{nearly}"
    raise ValueError(
        f"{folder}: {said}\nName the format, with the options that it asks for, e.g. segpipe audit {folder} --format folder"
        f" --option masks=annotations\nFormats: {', '.join(detection.formats())}"
    )


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with (done, total): it moves a bar in a terminal. In a log there is none."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _yaml(value: Any) -> str:
    """A value of params.yaml on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _options(settings: list[str]) -> dict[str, Any]:
    """KEY=VALUE words as options; values are YAML, as in params.yaml, and what is none is text, such as the pattern {id}_*.png."""
    options: dict[str, Any] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise ValueError(f"--option {setting}: write KEY=VALUE, e.g. masks=annotations")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            options[key] = value
    return options


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
        if "://" not in source and not Path(source).expanduser().exists():
            raise FileNotFoundError(f"{source}: no such file or folder")
        text, count = re.subn(r"(?m)^( +source:) \S+", lambda m: f"{m[1]} {json.dumps(source)}", text)
        if count != 1:
            raise ValueError(f"preset {name}: has {count} lines `source:`, not one; edit params.yaml by hand")
    new = PARAMS_FILE.with_suffix(".yaml.new")
    new.write_text(text)
    read_params(new)
    backup = PARAMS_FILE.with_suffix(".yaml.bak")
    if PARAMS_FILE.exists() and not backup.exists():  # the first one kept is the user's own, later ones are presets
        shutil.copyfile(PARAMS_FILE, backup)
    new.replace(PARAMS_FILE)
    print(f"params.yaml is now the preset {name}; your own is kept as {backup}. Look at `datasets` in it, then run `dvc repro`.")


def _tracking_uri() -> str:
    from segpipe.tracking.connection import default_uri

    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path.cwd())


if __name__ == "__main__":
    main()
