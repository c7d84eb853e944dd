"""A small split through a hand-made network: the scores equal an independent computation, and the files say the same."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from segpipe import components, results, surfaces
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.confusion_drawing import draw_confusion
from segpipe.evaluation import Evaluation, evaluate
from segpipe.evaluation_files import scores_of, write_evaluation
from segpipe.model_io import KEYS, save_model
from segpipe.shards import ClassInfo, DatasetInfo, Sample, Split, SplitWriter, encode_image, encode_mask, read_info, write_info
from stages import evaluate as stage
from tests.imports import ROOT

NAMES = ["ground", "water", "tree", "nowhere"]
SIZES = [(30, 40), (24, 50), (31, 33), (16, 16), (40, 30)]
IDS = [f"image {i}" for i in range(len(SIZES))]
GROUPS = ["a", "a", "b", "b", "c"]
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
METRICS = {name: components.load("metrics", name) for name in components.names("metrics")}


class Brightest(nn.Module):
    """Predicts the channel that is brightest; the fourth class never."""

    def __init__(self) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=8, minimum=8)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": torch.cat([x, x.new_full((len(x), 1, *x.shape[-2:]), -100.0)], dim=1) + self.weight}


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for index, size in enumerate(SIZES):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = np.where(rng.random(size) < 0.6, image.argmax(axis=2), rng.integers(0, 3, size)).astype(np.uint8)
        mask[rng.random(size) < 0.1] = 255
        mask[mask == 2] = 0 if index == 3 else 2
        found.append((image, mask))
    return found


def write_dataset(
    folder: Path, *, images: int = len(SIZES), val: int = 0, spacing: list[float] | None = None, things: bool = False
) -> DatasetInfo:
    """A dataset whose test and val splits are the first `images` and `val` of `pairs`; with `things`, trees can be counted."""
    folder.mkdir(parents=True)
    digests = {}
    for split, length in (("train", 0), ("val", val), ("test", images)):
        with SplitWriter(folder, split) as writer:
            for name, group, (image, mask) in list(zip(IDS, GROUPS, pairs(), strict=True))[:length]:
                height, width = mask.shape
                data = {"image": encode_image(image), "mask": encode_mask(mask), "source": name, "group": group}
                data |= {"spacing": spacing, "instances": [tree_of(mask)] if things and (mask == 2).any() else []}
                writer.write(Sample(id=name, height=height, width=width, **data))  # type: ignore[arg-type]
            digests[split] = writer.close()
    info = DatasetInfo(
        name="toy",
        classes=tuple(ClassInfo(name=n, colour=(i, 2 * i, 3 * i), thing=things and i == 2) for i, n in enumerate(NAMES)),
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": 0, "val": 0, "test": images},
        pixels={"test": [1, 1, 1, 0]},
        mean=tuple(MEAN),
        std=tuple(STD),
        provenance={},
        digest="the digest",
    )
    write_info(folder, info)
    return info


def tree_of(mask: np.ndarray) -> dict[str, Any]:
    """All trees of a mask as one instance, as a shard's row holds it."""
    encoded = coco_mask.encode(np.asfortranarray(mask == 2, dtype=np.uint8))
    box, area = coco_mask.toBbox(encoded).tolist(), float(coco_mask.area(encoded))
    return {"category": 2, "rle": encoded["counts"].decode(), "bbox": box, "area": area, "iscrowd": False}


def evaluated(folder: Path, *, model: nn.Module | None = None, **options: Any) -> Evaluation:
    given = {"classes": read_info(folder).classes, "ignore_index": 255, "mean": MEAN, "std": STD, "metrics": METRICS, **options}
    return evaluate(model or Brightest(), Split(folder, "test"), **given)


def by_hand() -> tuple[dict[str, Any], list[dict[str, float]], list[np.ndarray]]:
    """(dataset level, per image, predictions), computed from boolean masks."""

    def of(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        valid = truth != 255
        inter = [np.sum(valid & (truth == k) & (predicted == k)) for k in range(4)]
        true = [np.sum(valid & (truth == k)) for k in range(4)]
        guess = [np.sum(valid & (predicted == k)) for k in range(4)]
        some = [k for k in range(4) if true[k] + guess[k]]
        ious = {k: inter[k] / (true[k] + guess[k] - inter[k]) for k in some}
        dices = {k: 2 * inter[k] / (true[k] + guess[k]) for k in some}
        return {
            "pa": np.mean(truth[valid] == predicted[valid]),
            "mpa": np.mean([inter[k] / true[k] for k in range(4) if true[k]]),
            "miou": np.mean(list(ious.values())),
            "mdice": np.mean(list(dices.values())),
            "fwiou": sum(true[k] * ious[k] for k in some) / valid.sum(),
            "n_classes": len(some),
            "iou": ious,
        }

    predictions = [image.argmax(axis=2).astype(np.uint8) for image, _ in pairs()]
    masks = [mask for _, mask in pairs()]
    images = [of(mask, prediction) for mask, prediction in zip(masks, predictions, strict=True)]
    flat = of(np.concatenate([m.ravel() for m in masks]), np.concatenate([p.ravel() for p in predictions]))
    return flat, images, predictions


def test_scores_equal_those_computed_by_hand(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    evaluation = evaluated(tmp_path / "data")
    total, images, _ = by_hand()
    scores = scores_of(evaluation)
    for key in ("pa", "mpa", "miou", "mdice", "fwiou"):
        assert scores[key] == pytest.approx(total[key], rel=1e-12), key
    assert scores["iou"] == {name: pytest.approx(total["iou"][k]) if k < 3 else None for k, name in enumerate(NAMES)}
    assert scores["image_miou"] == pytest.approx(np.mean([row["miou"] for row in images]), rel=1e-12)
    assert (scores["n_images"], scores["n_classes_averaged"]) == (5, 3)
    assert (scores["tta"], scores["tile"]) == ("none", "auto")
    assert evaluation.counts.dtype == np.int64
    assert evaluation.counts.sum() == sum(int(np.sum(mask != 255)) for _, mask in pairs())


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"tta": "flip"}, {"tile": (8, 24), "tta": "flip"}], ids=str)
def test_tiles_and_flips_leave_a_pixelwise_network_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    write_dataset(tmp_path / "data")
    np.testing.assert_array_equal(evaluated(tmp_path / "data", **options).counts, evaluated(tmp_path / "data").counts)


def test_scored_at_the_resolution_of_the_truth(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    evaluation = evaluated(tmp_path / "data", size=[16, 24])
    assert evaluation.counts.sum(axis=(1, 2)).tolist() == [int(np.sum(mask != 255)) for _, mask in pairs()]


def test_files_say_what_the_evaluation_says(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    out = tmp_path / "evaluations" / "toy"
    done: list[tuple[int, int]] = []
    with results.PredictionWriter(out) as writer:
        evaluation = evaluated(tmp_path / "data", on_answer=writer.write, on_image=lambda i, n: done.append((i, n)))
    written = write_evaluation(out, evaluation)
    assert done == [(i, 5) for i in range(1, 6)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["scores.json", "confusions.npz", "masks.npz", "calibration.json", "variants.npz"]
        + ["per_image.parquet", "predictions.arrow", "confusion.png"]
    )
    read = results.read_evaluation(out)
    assert read.scores == written == scores_of(evaluation)
    assert (read.ids, read.groups, read.class_names) == (IDS, GROUPS, NAMES)
    assert read.counts.dtype == np.int64
    np.testing.assert_array_equal(read.counts, evaluation.counts)
    _, images, predictions = by_hand()
    table = results.read_per_image(out)
    assert list(table.columns) == [*"id group pa mpa miou mdice n_classes seconds".split(), *evaluation.masks]
    assert (list(table.id), list(table.group)) == (IDS, GROUPS)
    for key in ("pa", "mpa", "miou", "mdice", "n_classes"):
        np.testing.assert_allclose(table[key], [row[key] for row in images], rtol=1e-12)
    assert (table.seconds > 0).all()
    masks = results.read_predictions(out)
    assert len(masks) == 5 and [name for name, _ in masks] == IDS
    for (_, mask), expected in zip(masks, predictions, strict=True):
        np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(masks["image 3"], predictions[3])
    with Image.open(out / "confusion.png") as drawn:
        assert drawn.width > 300 and drawn.height > 300


def test_a_metric_of_ones_own_is_scored_by_its_name() -> None:
    """What stages/evaluate.py hands on: every file of segpipe/metrics, the known ones among them."""
    metrics, _ = surfaces.split(METRICS)
    share, errors = ModuleType("share"), ModuleType("errors")
    share.PER_CLASS, share.compute = True, lambda counts: counts.sum(axis=-1) / counts.sum(axis=(-1, -2))[..., None]
    errors.PER_CLASS, errors.compute = False, lambda counts: counts.sum(axis=(-1, -2)) - np.trace(counts, axis1=-2, axis2=-1)
    counts = np.array([[[3, 1], [0, 4]], [[2, 0], [2, 0]]])
    plain = results.score(counts, class_names=["a", "b"], metrics=metrics)
    assert plain == results.score(counts, class_names=["a", "b"])
    scores = results.score(counts, class_names=["a", "b"], metrics={**metrics, "share": share, "errors": errors})
    assert scores == {**plain, "share": {"a": 0.5, "b": 0.5}, "errors": 3.0}


def test_undefined_scores_are_null(tmp_path: Path) -> None:
    counts = np.zeros((2, 3, 3), np.int64)
    scores = results.score(counts, class_names=["a", "b", "c"])
    results.write_scores(tmp_path, scores)
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["miou"] is None and read["image_miou"] is None and read["iou"] == {"a": None, "b": None, "c": None}
    assert (read["n_images"], read["n_classes_averaged"]) == (2, 0)


def test_predictions_stream_in_batches(tmp_path: Path) -> None:
    masks = {f"id {i}": np.full((3, 4), i, np.uint16) for i in range(300, 340)}
    with results.PredictionWriter(tmp_path) as writer:
        for name, mask in masks.items():
            writer.write(name, mask)
    read = results.read_predictions(tmp_path)
    assert read.ids == list(masks)
    assert all(mask.dtype == np.uint16 and (mask == masks[name]).all() for name, mask in read)
    assert pa.ipc.open_file(str(tmp_path / "predictions.arrow")).num_record_batches == 3
    with pytest.raises(ValueError, match="predictions.arrow: holds no prediction for 'id 1'"):
        read["id 1"]


def test_user_errors_are_named(tmp_path: Path) -> None:
    write_dataset(tmp_path / "empty", images=0)
    with pytest.raises(ValueError, match="empty: the test split is empty"):
        evaluated(tmp_path / "empty")
    write_dataset(tmp_path / "data")
    with pytest.raises(ValueError, match=r"image 'image 0' of test: target: .* pixels hold the labels 2, which are not in 0\.\.1"):
        evaluated(tmp_path / "data", classes=read_info(tmp_path / "data").classes[:2])
    with pytest.raises(ValueError, match=r"scores\.json: missing, so .* is not a finished evaluation"):
        results.read_evaluation(tmp_path)


@pytest.mark.parametrize("classes", [1, 5, 40])
def test_confusion_is_drawn_the_same_each_time(tmp_path: Path, classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 10**6, (classes, classes))
    counts[-1] = 0
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for path in paths:
        draw_confusion(counts, class_names=[f"class {i}" for i in range(classes)], path=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_reading_results_needs_no_torch() -> None:
    command = "import sys, segpipe.results; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode == 0


def stage_workspace(folder: Path, *, digest: str) -> Path:
    """A folder with params.yaml, a converted dataset and a saved (untrained) U-Net, as the train stage leaves them."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    row = {"dataset": "scenes", "architecture": "unet", "loss": "cross_entropy", "options": {"padding": "same", "width": 4}}
    params["experiments"] = {"toy": row}
    params["evaluate"] = {"tta": "flip", "tile": [16, 32]}
    write_dataset(folder / "data" / "converted" / "scenes")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    torch.manual_seed(0)
    model = components.load("architectures", "unet").build(num_classes=4, **row["options"])
    config = dict.fromkeys(KEYS) | {"architecture": "unet", "options": row["options"], "num_classes": 4, "in_channels": 3}
    config |= {"mean": MEAN, "std": STD, "size": [16, 32], "dataset": "scenes", "dataset_digest": digest}
    save_model(folder / "models" / "toy", model, config)
    return folder


def run_stage(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    stage.main()


def test_stage_writes_its_outs_and_says_the_headline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(monkeypatch, stage_workspace(tmp_path, digest="the digest"), "toy")
    read = results.read_evaluation(tmp_path / "evaluations" / "toy")
    assert (read.scores["tta"], read.scores["tile"], read.scores["n_images"]) == ("flip", [16, 32], 5)
    assert f"toy: mIoU {100 * read.scores['miou']:.2f} %" in capsys.readouterr().out
    shapes = [mask.shape for _, mask in results.read_predictions(tmp_path / "evaluations" / "toy")]
    assert shapes == SIZES


def test_stage_refuses_data_that_changed_since_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stage_workspace(tmp_path, digest="another")
    with pytest.raises(ValueError, match=r"models/toy/config.json: the model was trained on scenes with digest another"):
        run_stage(monkeypatch, folder, "toy")
    with pytest.raises(SystemExit, match="one of: toy"):
        run_stage(monkeypatch, folder, "tow")
