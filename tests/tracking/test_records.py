"""What the files say, in MLflow's terms."""

import json
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_metric_name

from segpipe.tracking import records
from tests.tracking import workspace


def test_every_class_name_becomes_a_metric_of_its_own() -> None:
    names = [
        "road",
        "sky & sea",
        "sky | sea",
        "sky _ sea",
        "a/b",
        "..",
        ".",
        "",
        "Straße",
        "名前",
        "x" * 900,
        "<b>&'\"",
        "a\nb",
        " pad ",
    ]
    safe = records.metric_names(names)
    assert list(safe) == names and safe["road"] == "road"
    assert len(set(safe.values())) == len(names)
    for name in safe.values():
        _validate_metric_name(f"iou/{name}")


def test_a_record_holds_what_the_files_say(tmp_path: Path) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.8)
    record = records.read_record("unet", params={"seed": 3, "train": {"lr": 0.1, "crop": None}}, root=tmp_path)
    assert record.params == {"seed": "3", "train.lr": "0.1", "train.crop": "None", "precision": "32-true"}
    assert [row["epoch"] for row in record.curves] == [1, 2, 3] and record.curves[0]["train_loss"] == 1 / 3
    assert record.scores["miou_ci_low"] == pytest.approx(record.scores["miou"] - 0.01)
    assert record.scores["iou/sky _ sea"] == 0.5 and record.scores["iou/a_b_ tree"] == 0.25
    assert "iou/sky _ sea_2" not in record.scores, "an undefined score is no number"
    assert record.scores["cost/parameters"] == 1234 and "cost/peak_memory_mb" not in record.scores
    assert record.scores["fail/missed/miou_cost"] == 0.125 and record.scores["fail/confirmed_biases"] == 1
    assert "fail/boundary/miou_cost" not in record.scores and record.scores["fail/boundary/share"] == 0.5
    assert record.scores["modes/flip/gain"] == 0.01 and record.scores["corruptions/fog-3/drop"] == 0.2
    assert "modes/flip/p" not in record.scores and "corruptions/fog-3/miou" not in record.scores
    assert record.protocol == "tta=none tile=auto"


def test_contents_change_with_any_file(tmp_path: Path) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.8)
    before = records.read_record("unet", params={}, root=tmp_path)
    page = tmp_path / "reports/unet/failures/index.html"
    page.write_text(page.read_text() + " ")
    assert records.read_record("unet", params={}, root=tmp_path).contents != before.contents


def test_a_missing_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.8)
    (tmp_path / "evaluations/unet/confusions.npz").unlink()
    with pytest.raises(ValueError, match="confusions.npz: missing.*dvc repro"):
        records.read_record("unet", params={}, root=tmp_path)


def test_an_experiment_that_compare_has_not_seen_is_named(tmp_path: Path) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.8)
    (tmp_path / records.LEADERBOARD).write_text("experiment,miou_ci_low\nother,0.1\n")
    with pytest.raises(ValueError, match="no row 'unet'"):
        records.read_record("unet", params={}, root=tmp_path)


def test_numbers_that_are_none_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_miou,lr\n1,,0.1\n2,nan,0.2\n")
    assert records._curves(path) == [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.2}]
    assert records._scores({"pa": float("nan"), "tta": "none", "n": 3, "iou": None}, {}) == json.loads('{"n": 3}')
