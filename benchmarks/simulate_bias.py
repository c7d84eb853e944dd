"""Is the planted bias found, and nothing where none is planted? `python -m benchmarks.simulate_bias` prints what docs/ holds.

For every seed two datasets of `scenes` are drawn, with the bias and without it; a small U-Net learns each, its test split is
predicted, and the bias analysis is asked. Found: a finding (confirmed by an intervention) that crates and chests are called after
what surrounds them. False alarm: any finding at all without the bias. Each run is one JSON file in the folder --out; what is
there is not run again, so a killed study goes on where it stood.
"""

import argparse
import json
import logging
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from segpipe import components, resampling
from segpipe.architectures import unet
from segpipe.augmentation import policy
from segpipe.convert import convert
from segpipe.datasets import scenes
from segpipe.failures import bias
from segpipe.failures.attributes import Attributes, collect
from segpipe.failures.context import Context
from segpipe.failures.look import Viewer
from segpipe.inference import predict_labels
from segpipe.shards import DatasetInfo, Split
from segpipe.tasks import semantic
from segpipe.training import data, devices, optimizer
from segpipe.training.fit import fit
from segpipe.workers import end_with_parent

SETTINGS: dict[str, Any] = {
    "size": [96, 128],
    "seen": [42, 56],
    "images": {"train": 240, "val": 24, "test": 100},
    "width": 8,
    "epochs": 20,
    "batch_size": 8,
    "lr": 0.004,
    "precision": "auto",
}

NO_REGIONS = pd.DataFrame({name: np.zeros(0) for name in ("true", "predicted", "row", "column", "area")} | {"id": np.zeros(0, str)})
"""They only point to pictures, which nobody looks at here."""


def study(seed: int, biased: bool, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One dataset, one network, one analysis."""
    scratch = folder / f"scratch-{seed}-{'on' if biased else 'off'}"
    shutil.rmtree(scratch, ignore_errors=True)
    start = time.perf_counter()
    try:
        scenes.generate(scratch / "raw", seed=seed, size=settings["size"], images=settings["images"], bias=biased)
        scan = scenes.scan(scratch / "raw")
        info, _ = convert(scratch / "raw", scratch / "data", name="scenes", scan=scan, load=scenes.load, workers=1)
        model, miou = train(scratch / "data", info, seed, settings)
        trained = time.perf_counter()
        context = look(model, scratch / "data", info, seed, settings["seen"])
        attributes = collect(context)
        document = bias.analyse(context, NO_REGIONS, attributes)
        truth = json.loads((scratch / "raw/test/scenes.json").read_text())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = {"seed": seed, "bias": biased, "settings": settings, "val_miou": miou, **boxes(attributes, truth)}
    kinds = document["counts"]
    wanted = ("sentence", "key", "rate", "rate_else", "q", "intervention")
    shown = {key: [{name: entry[name] for name in wanted} for entry in document[key]] for key in kinds}
    found = any(
        {entry["true_name"], entry["predicted_name"]} == {"crate", "chest"} and entry["key"].startswith(("around/", "image/"))
        for entry in document["findings"]
    )
    seconds = {"training": trained - start, "analysis": time.perf_counter() - trained}
    return result | {"tested": document["tested"], "counts": kinds, "found": found, "entries": shown, "seconds": seconds}


def train(folder: Path, info: DatasetInfo, seed: int, settings: dict[str, Any]) -> tuple[torch.nn.Module, float]:
    """A small U-Net in eval mode, and its best validation mIoU."""
    torch.manual_seed(seed)
    model = unet.build(num_classes=info.num_classes, padding="same", norm="batch", width=settings["width"], dropout=0.0)
    device = torch.device("cpu")
    precision = devices.choose_precision(settings["precision"], device)
    samples = data.Samples(
        [Split(folder, "train")],
        Split(folder, "val"),
        policy=policy.build("flip"),
        seed=seed,
        ignore_index=info.ignore_index,
        size=tuple(settings["seen"]),
    )
    loss = components.load("losses", "cross_entropy")
    fitted = fit(
        model,
        fabric=devices.make_fabric(device, precision=precision),
        samples=samples,
        task=semantic,
        criterion=loss.build(num_classes=info.num_classes, ignore_index=info.ignore_index),
        loss_weights=unet.LOSS_WEIGHTS,
        optimizer=optimizer.build(model, name="adamw", lr=settings["lr"], weight_decay=1e-4),
        mean=info.mean,
        std=info.std,
        num_classes=info.num_classes,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        channels_last=devices.use_channels_last(device, precision),
    )
    return model.eval(), fitted.history[fitted.best_epoch - 1]["val_miou"]


def look(model: torch.nn.Module, folder: Path, info: DatasetInfo, seed: int, size: list[int]) -> Context:
    """The network, its test split and its predictions."""
    split = Split(folder, "test")
    view = {"mean": info.mean, "std": info.std, "size": size}
    predictions = {name: predict_labels(model, split.arrays(i)[0], **view) for i, name in enumerate(split.ids)}
    return Context(
        split=split,
        predictions=predictions,
        viewer=Viewer(model=model, layers={}, grids={}, device="cpu", **view),
        class_names=tuple(info.class_names),
        ignore_index=info.ignore_index,
        units=resampling.units_of(split.column("group"))[0],
        seed=seed,
    )


def boxes(attributes: Attributes, truth: dict[str, Any]) -> dict[str, Any]:
    """How the crates and chests of the test split are called: all of them, and by whether the texture speaks for their class."""
    segments = attributes.segments[attributes.segments["class"].isin([scenes.CRATE, scenes.CHEST])]
    # Pieces that a pole cut off show no brace.
    segments = segments[segments["area"] >= 200]
    texture = segments["id"].map({name: one["texture"] for name, one in truth.items()})
    speaks = (texture == "grass") == (segments["class"] == scenes.CRATE)
    seen = segments["predicted"].isin([scenes.CRATE, scenes.CHEST])
    right = segments["predicted"] == segments["class"]
    return {
        "boxes": len(segments),
        "seen": float(seen.mean()),
        "right": float(right[seen].mean()),
        "right_with": float(right[seen & speaks].mean()),
        "right_against": float(right[seen & ~speaks].mean()),
    }


def limit() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    end_with_parent()


def run(seed: int, biased: bool, settings: dict[str, Any], folder: Path) -> Path:
    path = folder / f"{'on' if biased else 'off'}-{seed:03d}.json"
    if not path.exists() or json.loads(path.read_text())["settings"] != settings:
        document = study(seed, biased, settings, folder)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n")
        part.replace(path)
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown table of all runs, and the counts."""
    lines = [
        "| seed | bias | boxes | right, texture for it | right, texture against it | tested | suspicions | findings | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (not r["bias"], r["seed"])):
        counts = row["counts"]
        suspicions = counts["findings"] + counts["dropped"] + counts["hypotheses"]
        verdict = ("found" if row["found"] else "missed") if row["bias"] else ("false alarm" if counts["findings"] else "silent")
        lines.append(
            f"| {row['seed']} | {'on' if row['bias'] else 'off'} | {row['boxes']} | {100 * row['right_with']:.0f} %"
            f" | {100 * row['right_against']:.0f} % | {row['tested']} | {suspicions} | {counts['findings']} | {verdict} |"
        )
    on, off = [r for r in rows if r["bias"]], [r for r in rows if not r["bias"]]
    alarms = sum(bool(r["counts"]["findings"]) for r in off)
    lines += [
        "",
        f"Found in {sum(r['found'] for r in on)} of {len(on)} with the bias, false alarm in {alarms} of {len(off)} without.",
    ]
    for name, some in (("with", on), ("without", off)):
        if some:
            right = np.mean([r["right"] for r in some])
            seconds = np.mean([sum(r["seconds"].values()) for r in some])
            lines.append(f"Boxes told right {name} the bias: {100 * right:.0f} % on average; {seconds:.0f} s a run.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=300, help="the first seed; those below 206 served to choose the settings")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=Path(".cache/simulations/bias"))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="settings to change")
    options = parser.parse_args()
    settings = SETTINGS | {key: json.loads(value) for key, _, value in (one.partition("=") for one in options.set)}
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(seed, biased) for seed in range(options.first, options.first + options.seeds) for biased in (True, False)]
    rows = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=limit) as pool:
        for done in as_completed([pool.submit(run, *job, settings, options.out) for job in jobs]):
            rows.append(json.loads(done.result().read_text()))
            last = rows[-1]
            print(
                f"{len(rows)}/{len(jobs)} seed {last['seed']} bias {last['bias']}: {last['counts']}, right {last['right']:.2f}",
                flush=True,
            )
    print(table(rows))


if __name__ == "__main__":
    main()
