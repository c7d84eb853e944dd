"""Every network for the same few minutes on the same data, and one table: `make zoo`, or `python -m benchmarks.zoo --source PATH`.

Rows and recipe are those of presets/zoo.yaml. Each network has a folder of its own in the workspace, with its params.yaml and a
log, in which the stages `train` and `evaluate` run as in the pipeline. Before that `zoo_plan.py` times a few
steps, and plans as many epochs as fit into the minutes, so that the learning rate has come to its end when the time has.

Killed and started again it goes on where it was. A result stays while the row, the data, the minutes, the threads and the network's
own file are the same; `--again` drops the results of the chosen networks. A network that fails is in the table with its reason,
and the exit status is then 1.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout

from segpipe import components
from segpipe.intervals import percentile
from segpipe.metrics import mean_iou
from segpipe.model_io import replacing
from segpipe.params import PARAMS_FILE, read_params
from segpipe.resampling import bootstrap, units_of
from segpipe.shards import read_info

ROOT = Path(__file__).resolve().parent.parent
PRESET = ROOT / "presets" / "zoo.yaml"
DATASET = "camvid"
DATA = Path("data/converted") / DATASET
BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"
HEADER = ("network", "size", "parameters", "GFLOPs", "images/s", "epochs", "mIoU % (95 % interval)", "ms/image")
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """One call of the command: the workspace, the preset with source and minutes filled in, and the threads of each network."""

    folder: Path
    preset: dict[str, Any]
    threads: int

    def fingerprint(self, name: str) -> str:
        """Of all that a network's result is kept for; the data is in it by the digest of what was converted."""
        row, info = self.preset["experiments"][name], read_info(self.folder / DATA)
        decides = [row, self.preset["train"], self.preset["evaluate"], self.preset["seed"], self.threads, info.digest]
        source = (ROOT / "segpipe" / "architectures" / f"{row['architecture']}.py").read_bytes()
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode() + source).hexdigest()

    def result(self, name: str) -> dict[str, Any] | None:
        """What is known of a network: the cells of its row, or {"failed": reason}; None if nothing, or nothing that still holds."""
        path = self.folder / name / "result.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found if found["fingerprint"] == self.fingerprint(name) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", help="a folder or archive that holds CamVid/ (default: it is downloaded, 180 MB)")
    parser.add_argument("--folder", type=Path, default=Path("zoo"), help="the workspace (default: zoo)")
    parser.add_argument("--minutes", type=float, help="for each training (default: the preset's)")
    parser.add_argument("--only", action="append", default=[], metavar="NETWORK", help="may be repeated, or several with commas")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--threads", type=int, help="of each network (default: the cores, divided among the jobs)")
    parser.add_argument("--again", action="store_true", help="train the chosen networks anew")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the table between {BEGIN} and {END} in FILE too")
    options = parser.parse_args(arguments)
    preset = yaml.safe_load(PRESET.read_text())
    names = [name for word in options.only for name in word.split(",")] or list(preset["experiments"])
    components.check_options(dict.fromkeys(names), preset["experiments"], where="--only")
    if options.source:
        local = Path(options.source)
        preset["datasets"][DATASET]["source"] = str(local.resolve()) if local.exists() else options.source
    preset["train"]["minutes"] = options.minutes or preset["train"]["minutes"]
    threads = options.threads or max(1, len(os.sched_getaffinity(0)) // options.jobs)
    zoo = Zoo(folder=options.folder.resolve(), preset=preset, threads=threads)
    zoo.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(zoo.folder / ".lock", timeout=0):
            prepare(zoo)
            run_all(zoo, names, jobs=options.jobs, again=options.again)
            text = table(zoo)
    except Timeout:
        sys.exit(f"{zoo.folder}: another `make zoo` is at work there. Wait for it, or give this one another --folder.")
    with replacing(zoo.folder / "zoo.md") as path:
        path.write_text(text)
    print(f"\n{text}\nin {zoo.folder / 'zoo.md'}")
    if options.write:
        insert(options.write, text)
    return int(any("failed" in (zoo.result(name) or {"failed": ""}) for name in names))


def prepare(zoo: Zoo) -> None:
    """Download and convert the data, unless that is done for the same row of `datasets`.

    Raises:
        SystemExit: a stage failed; what it says stands above.
    """
    done, row = zoo.folder / "data" / "prepared.json", json.dumps(zoo.preset["datasets"], sort_keys=True)
    if done.exists() and done.read_text() == row:
        return
    shutil.rmtree(zoo.folder / "data", ignore_errors=True)
    write_params(zoo.folder, zoo.preset)
    for stage in ("download", "convert"):
        command = [sys.executable, "-m", f"stages.{stage}", DATASET]
        if subprocess.run(command, cwd=zoo.folder, env=environment(zoo.threads)).returncode:
            sys.exit(f"the stage {stage} failed")
    done.write_text(row)


def run_all(zoo: Zoo, names: Sequence[str], *, jobs: int, again: bool) -> None:
    """Bring the networks `names` up to date, `jobs` at a time."""
    said = threading.Lock()

    def one(name: str) -> None:
        if again:
            shutil.rmtree(zoo.folder / name, ignore_errors=True)
        known = zoo.result(name)
        if known is None or "failed" in known:
            started = time.monotonic()
            with said:
                print(f"{name}: begins, log in {zoo.folder / name / 'log.txt'}", flush=True)
            known = run(zoo, name)
            known |= {"seconds": time.monotonic() - started}
        with said:
            what = f"failed: {known['failed']}" if "failed" in known else f"mIoU {100 * known['miou']:.1f} %"
            print(f"{name}: {what}" + (f" after {known['seconds']:.0f} s" if "seconds" in known else ", known"), flush=True)

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            list(pool.map(one, names))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def run(zoo: Zoo, name: str) -> dict[str, Any]:
    """Plan, train and evaluate one network; answers, and keeps in result.json, the cells of its row or the reason of a failure."""
    folder, fingerprint = zoo.folder / name, zoo.fingerprint(name)
    mark = folder / "fingerprint"
    if not (mark.exists() and mark.read_text() == fingerprint):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "data").symlink_to(Path("..") / "data")
    row = zoo.preset["experiments"][name]
    try:
        if not mark.exists():
            write_params(folder, zoo.preset | {"experiments": {name: row}})
            epochs = int(logged(zoo, folder, "benchmarks.zoo_plan").split()[-1])
            write_params(folder, zoo.preset | {"experiments": {name: row | {"epochs": epochs}}})
            mark.write_text(fingerprint)
        if not (folder / "models" / name / "config.json").exists():  # the last file that `train` writes
            logged(zoo, folder, "stages.train", name)
        logged(zoo, folder, "stages.evaluate", name)
        result = measured(folder, name)
    except RuntimeError as error:
        result = {"failed": str(error)}
    with replacing(folder / "result.json") as path:
        path.write_text(json.dumps({"fingerprint": fingerprint, **result}, indent=1) + "\n")
    return result


def logged(zoo: Zoo, folder: Path, module: str, *arguments: str) -> str:
    """Run a module in `folder`, its output added to log.txt there, and return that output.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    with (folder / "log.txt").open("a+") as log:
        start = log.seek(0, os.SEEK_END)
        command = [sys.executable, "-m", module, *arguments]
        code = subprocess.run(command, cwd=folder, env=environment(zoo.threads), stdout=log, stderr=subprocess.STDOUT).returncode
        log.seek(start)
        said = log.read()
    if code:
        last = (said.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"{module} was killed by signal {-code}" if code < 0 else last or f"{module} ended with {code}")
    return said


def environment(threads: int) -> dict[str, str]:
    """Of the stages: this clone's code, the threads, and no MLflow, whose start would take its share of the minutes."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    nowhere = "http://127.0.0.1:9"
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MLFLOW_TRACKING_URI": nowhere}


def write_params(folder: Path, document: dict[str, Any]) -> None:
    """Write params.yaml, after a check of what is in it."""
    with replacing(folder / PARAMS_FILE) as path:
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        read_params(path)


def measured(folder: Path, name: str) -> dict[str, Any]:
    """The cells of one network's row, from what its stages wrote."""
    cost = json.loads((folder / "models" / name / "cost.json").read_text())
    config = json.loads((folder / "models" / name / "config.json").read_text())
    evaluation = folder / "evaluations" / name
    scores = json.loads((evaluation / "scores.json").read_text())
    with np.load(evaluation / "confusions.npz") as file:
        counts, groups = file["counts"], file["groups"]
    units = units_of(list(groups))[0]
    draws = bootstrap(counts[None], units, metrics={"miou": mean_iou.compute}, resamples=RESAMPLES, seed=0)["miou"][0]
    low, high = percentile(draws, alpha=0.05)
    return {
        "parameters": cost["parameters"],
        "gflops": cost["gflops"],
        "images_per_second": cost["images_per_second"],
        "epochs": cost["epochs"],
        "planned": config["train"]["epochs"],
        "miou": scores["miou"],
        "low": low,
        "high": high,
        "ms": 1000 * scores["seconds_per_image"],
        "precision": config["precision"],
        "device": cost["device"],
    }


def table(zoo: Zoo) -> str:
    """The Markdown table of all results that hold, best mIoU first and failures last, with a line on what it is of."""
    results = {name: found for name in zoo.preset["experiments"] if (found := zoo.result(name))}
    info, train = read_info(zoo.folder / DATA), zoo.preset["train"]
    good = sorted((n for n in results if "failed" not in results[n]), key=lambda n: -results[n]["miou"])
    height, width = train["size"]
    counts = ", ".join(f"{count} {split}" for split, count in info.splits.items())
    where = sorted({f"{r['device']} in {r['precision']}" for r in results.values() if "device" in r}) or [platform.machine()]
    lines = [
        f"{info.name} at {width} x {height}, {counts} images; {train['minutes']:g} minutes of training each, "
        f"{zoo.threads} {'thread' if zoo.threads == 1 else 'threads'} of {', '.join(where)}, "
        f"torch {torch.__version__}, seed {zoo.preset['seed']}.",
        "",
        f"| {' | '.join(HEADER)} |",
        "|---|---|" + "---:|" * (len(HEADER) - 2),
    ]
    for name in good:
        r = results[name]
        cells = [
            f"{r['parameters'] / 1e6:.2f} M",
            f"{r['gflops']:.2f}",
            f"{r['images_per_second']:.1f}",
            f"{r['epochs']} of {r['planned']}",
            f"{100 * r['miou']:.1f} ({100 * r['low']:.1f} to {100 * r['high']:.1f})",
            f"{r['ms']:.0f}",
        ]
        lines.append(f"| {' | '.join([name, described(zoo, name), *cells])} |")
    for name in (n for n in results if "failed" in results[n]):
        reason = results[name]["failed"].replace("|", "/")
        lines.append(f"| {name} | {described(zoo, name)} | failed: {reason} |" + " |" * (len(HEADER) - 3))
    return "\n".join(lines) + "\n"


def described(zoo: Zoo, name: str) -> str:
    """The options of a network in words: `trunk resnet18, width 32`."""
    return ", ".join(f"{key} {value}" for key, value in zoo.preset["experiments"][name].get("options", {}).items()) or "default"


def insert(path: Path, text: str) -> None:
    """Put `text` between the two marks in a Markdown file.

    Raises:
        SystemExit: the file has not both marks.
    """
    before, found, rest = path.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        sys.exit(f"{path}: has no {BEGIN} with an {END} after it")
    with replacing(path) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
