"""The whole pipeline on a tiny `scenes`, through real DVC and MLflow on SQLite; a second run does nothing."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segpipe import archives, shards
from tests.conftest import make_workspace, run, tiny_params

pytestmark = pytest.mark.slow
EXPERIMENTS = sorted(tiny_params()["experiments"])


def test_every_out_is_there(tiny_workspace: Path) -> None:
    for name in EXPERIMENTS:
        for file in ("model.safetensors", "config.json", "history.csv", "cost.json"):
            assert (tiny_workspace / "models" / name / file).stat().st_size > 0
        for file in ("masks.npz", "calibration.json", "variants.npz", "predictions.arrow"):
            assert (tiny_workspace / "evaluations" / name / file).stat().st_size > 0
        scores = json.loads((tiny_workspace / "evaluations" / name / "scores.json").read_text())
        assert 0 <= scores["miou"] <= 1
        counts = np.load(tiny_workspace / "evaluations" / name / "confusions.npz")["counts"]
        assert counts.dtype == np.int64
        assert counts.sum() == 6 * 64 * 80, "every test pixel is counted once"
        for page in ("evaluation", "failures"):
            assert (tiny_workspace / "reports" / name / page / "index.html").stat().st_size > 10_000
        for file in ("regions.parquet", "controls.parquet", "segments.parquet", "maps.npz", "segments.npz", "summary.json"):
            assert (tiny_workspace / "failures" / name / file).stat().st_size > 0
    assert (tiny_workspace / "reports/comparison/index.html").stat().st_size > 10_000
    receipt = json.loads((tiny_workspace / "registry.json").read_text())
    assert receipt["complete"]
    assert sorted(receipt["experiments"]) == EXPERIMENTS


def test_nothing_is_pickled(tiny_workspace: Path) -> None:
    suffixes = {path.suffix for folder in ("models", ".servers", ".cache") for path in (tiny_workspace / folder).rglob("*")}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt"}


def test_checkpoints_are_removed_when_a_training_ends(tiny_workspace: Path) -> None:
    assert not list((tiny_workspace / ".cache").rglob("*.safetensors"))


def test_the_scores_follow_from_the_stored_predictions(tiny_workspace: Path) -> None:
    """Decode the predictions and the masks, count by hand, and arrive at the same mIoU and pixel accuracy."""
    split = shards.Split(tiny_workspace / "data/converted/scenes", "test")
    predictions = pd.read_feather(tiny_workspace / "evaluations/unet/predictions.arrow")
    assert list(predictions["id"]) == split.ids
    truth = np.stack([split.arrays(i)[1] for i in range(len(split))]).ravel()
    predicted = np.stack([shards.decode_mask(mask) for mask in predictions["mask"]]).ravel()
    valid = truth != 255
    ious = []
    for k in range(shards.read_info(tiny_workspace / "data/converted/scenes").num_classes):
        union = ((truth == k) | (predicted == k)) & valid
        if union.any():
            ious.append(((truth == k) & (predicted == k) & valid).sum() / union.sum())
    scores = json.loads((tiny_workspace / "evaluations/unet/scores.json").read_text())
    assert scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["pa"] == pytest.approx((truth == predicted)[valid].mean())


def test_a_second_run_only_looks_at_mlflow(tiny_workspace: Path) -> None:
    database = tiny_workspace / ".servers/mlflow.db"

    def rows() -> list[int]:
        with sqlite3.connect(database) as connection:
            return [
                connection.execute(f"select count(*) from {table}").fetchone()[0] for table in ("runs", "model_versions", "metrics")
            ]

    before = rows()
    printed = run(tiny_workspace, "dvc", "repro").stdout
    assert re.findall(r"Running stage '([^']+)'", printed) == ["register"]
    assert rows() == before


def test_a_bad_row_stops_before_anything_runs(tmp_path: Path) -> None:
    params = tiny_params()
    params["experiments"]["bad"] = {"dataset": "scenes", "architecture": "unett", "loss": "cross_entropy"}
    workspace = make_workspace(tmp_path / "workspace", params)
    done = run(workspace, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "experiments.bad.architecture" in done.stdout + done.stderr
    assert "Did you mean 'unet'" in done.stdout + done.stderr
    assert not (workspace / "data").exists()


def test_a_bad_mask_stops_the_pipeline_and_keeps_what_was_made(tiny_workspace: Path, tmp_path: Path) -> None:
    """A damaged raw mask makes convert fail with its name; the model trained before is still there."""
    workspace = tmp_path / "workspace"
    shutil.copytree(tiny_workspace, workspace, symlinks=True)
    raw = workspace / "data/raw/scenes"
    with archives.opened(raw, tmp_path / "tree") as tree:
        mask = next(tree.rglob("masks/*.png"))
        content = mask.read_bytes()
        mask.write_bytes(content[: len(content) // 2])
        (raw / "files.tar").unlink()  # a link into DVC's cache, which must stay as it is
        archives.pack(tree, raw / "files.tar")
    done = run(workspace, "python", "-m", "stages.convert", "scenes", check=False)
    assert done.returncode != 0
    assert mask.name in done.stdout + done.stderr
    page = (workspace / "reports/datasets/scenes/index.html").read_text()
    assert mask.name in page and "1 error" in page
    assert (workspace / "data/converted/scenes/dataset.json").exists()
    assert (workspace / "models/unet/model.safetensors").exists()


def test_predict_writes_maps_and_overlays(tiny_workspace: Path, tmp_path: Path) -> None:
    sample = shards.Split(tiny_workspace / "data/converted/scenes", "test")[0]
    image = tmp_path / f"{sample.id}.png"
    image.write_bytes(sample.image)
    for model in ("models/unet", "models:/scenes-segmenter@champion"):
        out = tmp_path / model.partition("/")[0]
        printed = run(tiny_workspace, "segpipe", "predict", str(image), "--model", model, "--out", str(out)).stdout
        assert image.name in printed
        labels = shards.decode_mask((out / f"{image.stem}.labels.png").read_bytes())
        assert labels.shape == (64, 80)
        assert labels.max() < 6
        assert shards.decode_image((out / f"{image.stem}.overlay.png").read_bytes()).shape == (64, 80, 3)


def test_the_commands_answer(tiny_workspace: Path) -> None:
    assert "mIoU" in run(tiny_workspace, "segpipe", "leaderboard").stdout
    assert "params.yaml is valid" in run(tiny_workspace, "segpipe", "check").stdout
    assert "torch" in run(tiny_workspace, "segpipe", "doctor").stdout
    done = run(tiny_workspace, "segpipe", "predict", "nowhere.png", "--model", "models/unet", check=False)
    assert done.returncode == 1
    assert "nowhere.png: no such file" in done.stderr
    done = run(tiny_workspace, "segpipe", "predict", "nowhere.png", "--model", "models/none", check=False)
    assert "models/none" in done.stderr


def test_dvc_knows_the_curves_and_the_scores(tiny_workspace: Path) -> None:
    assert "models/unet/history.csv" in run(tiny_workspace, "dvc", "plots", "show", "--json").stdout
    assert "miou" in run(tiny_workspace, "dvc", "metrics", "show").stdout
