"""Reference numbers computed outside this project: metrics, Grad-CAM, and the networks' parameter counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segpipe import components, confusion
from segpipe.failures.gradcam import Target, class_activation
from segpipe.metrics import (
    class_accuracy,
    dice,
    frequency_weighted_iou,
    iou,
    mean_dice,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
    precision,
)
from segpipe.results import score
from tests.failures.networks import Golden, golden_input

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text())
NAMES = ["a", "b", "c", "d"]
DATASET_LEVEL = {
    "PA": pixel_accuracy,
    "MPA": mean_pixel_accuracy,
    "precision": precision,
    "iou": iou,
    "dice": dice,
    "acc_1vsrest": class_accuracy,
    "fwiou": frequency_weighted_iou,
    "mIoU": mean_iou,
    "mDice": mean_dice,
}


def same(values: Any, golden: Any) -> None:
    """Equal to the last bits, undefined (null) in the same places."""
    np.testing.assert_allclose(values, np.array(golden, dtype=np.float64), rtol=1e-14)


def counts_of(case: str) -> np.ndarray:
    """int64 (2, 4, 4), counted from the label maps of the golden file."""
    inputs = GOLDEN["multiclass"]["inputs"]
    target, prediction = np.array(inputs["gt"], np.uint8), np.array(inputs["pred"], np.uint8)
    if case == "multiclass_noignore":
        ignored = target == inputs["ignore_index"]
        target[ignored] = prediction[ignored] = 0
    return confusion.count_batch(target, prediction, num_classes=inputs["num_classes"], ignore_index=inputs["ignore_index"])


def test_counts() -> None:
    assert counts_of("multiclass").tolist() == GOLDEN["multiclass"]["counts"]


@pytest.mark.parametrize("case", ["multiclass", "multiclass_noignore"])
@pytest.mark.parametrize("name", DATASET_LEVEL)
def test_dataset_level(case: str, name: str) -> None:
    same(DATASET_LEVEL[name].compute(counts_of(case).sum(axis=0)), GOLDEN[case]["dataset_level"][name])


@pytest.mark.parametrize("case", ["multiclass", "multiclass_noignore"])
def test_means_without_the_background(case: str) -> None:
    counts, golden = counts_of(case).sum(axis=0), GOLDEN[case]["dataset_level"]
    same(np.nanmean(iou.compute(counts)[1:]), golden["mIoU_nobg"])
    same(np.nanmean(dice.compute(counts)[1:]), golden["mDice_nobg"])


def test_image_level() -> None:
    counts = counts_of("multiclass")
    golden = GOLDEN["multiclass"]["image_level"]
    same(iou.compute(counts), golden["iou_per_image"])
    same(dice.compute(counts), golden["dice_per_image"])
    same(mean_iou.compute(counts).mean(), golden["mIoU_I"])
    same(mean_dice.compute(counts).mean(), golden["mDice_I"])
    same(iou.compute(counts_of("multiclass_noignore")), GOLDEN["multiclass_noignore"]["iou_per_image"])
    same(dice.compute(counts_of("multiclass_noignore")), GOLDEN["multiclass_noignore"]["dice_per_image"])


def test_scores_of_a_split() -> None:
    scores, golden = score(counts_of("multiclass"), class_names=NAMES), GOLDEN["multiclass"]["dataset_level"]
    for key, name in {"pa": "PA", "mpa": "MPA", "miou": "mIoU", "mdice": "mDice", "fwiou": "fwiou"}.items():
        assert scores[key] == pytest.approx(golden[name], rel=1e-14)
    assert scores["image_miou"] == pytest.approx(GOLDEN["multiclass"]["image_level"]["mIoU_I"], rel=1e-14)
    assert scores["iou"] == dict(zip(NAMES, [pytest.approx(v) if v else None for v in golden["iou"]], strict=True))
    assert (scores["n_images"], scores["n_classes_averaged"]) == (2, 3)


def test_resampled_images() -> None:
    """The dataset-level mIoU of bootstrap samples of images, all at once."""
    counts = counts_of("multiclass")
    drawn = {tuple(json.loads(f"[{key.strip('()')}]")): value for key, value in GOLDEN["bootstrap"].items()}
    resampled = np.stack([counts[list(indices)].sum(axis=0) for indices in drawn])
    same(mean_iou.compute(resampled), list(drawn.values()))


def test_a_prediction_out_of_range_is_refused() -> None:
    inputs = GOLDEN["pred_out_of_range"]
    target, prediction = np.array(inputs["gt"], np.uint8), np.array(inputs["pred"], np.uint8)
    with pytest.raises(ValueError, match="prediction: 1 pixels hold the labels 255"):
        confusion.count(target, prediction, num_classes=inputs["num_classes"], ignore_index=255)


@pytest.mark.parametrize("case", GOLDEN["empty_masks"])
def test_empty_masks(case: str) -> None:
    golden = GOLDEN["empty_masks"][case]
    target, prediction = (np.array(golden["inputs"][side], np.uint8) for side in ("gt", "pred"))
    counts = confusion.count(target, prediction, num_classes=2, ignore_index=255)
    same(iou.compute(counts)[1], golden["iou"])
    same(dice.compute(counts)[1], golden["dice"])


def test_road_and_sidewalk() -> None:
    """A worked example: 9 pixels, 2 of the road missed, "(TP + TN) / all" of the road 7/9."""
    golden = GOLDEN["road"]
    target, prediction = ((np.array(golden[side]) == "S").astype(np.uint8) for side in ("gt", "pred"))
    counts = confusion.count(target, prediction, num_classes=2, ignore_index=255)
    same(class_accuracy.compute(counts)[0], golden["acc"])
    same(iou.compute(counts), [golden["iou_R"], golden["iou_S"]])
    same(mean_iou.compute(counts), golden["mIoU"])
    same(dice.compute(counts)[0], golden["dice_R"])
    same(pixel_accuracy.compute(counts), golden["PA"])
    same(mean_pixel_accuracy.compute(counts), golden["MPA"])


@pytest.mark.parametrize(
    ("architecture", "options", "parameters"),
    [
        ("unet", {"num_classes": 2, "in_channels": 1}, 31_030_658),
        ("segnet", {"num_classes": 11}, 29_449_355),
        ("fcn", {"num_classes": 21, "variant": "8s"}, 134_489_759),
        ("deeplabv3plus", {"num_classes": 21}, 41_055_413),
    ],
)
def test_parameters_of_the_papers_networks(architecture: str, options: dict[str, Any], parameters: int) -> None:
    """To the unit; tests/architectures holds every variant, the stages' shapes and the numeric probes."""
    with torch.device("meta"):
        model = components.load("architectures", architecture).build(**options)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("class_index", range(3))
def test_grad_cam(class_index: int) -> None:
    """alpha is the mean gradient of the region's summed logits, the map its weighted sum of features (Selvaraju et al. 2017)."""
    golden = json.loads((Path(__file__).parent / "failures/golden.json").read_text())["expected"][str(class_index)]
    region = np.zeros((8, 8))
    region[2:6, 3:7] = 1
    model = Golden()
    found = class_activation(
        model, golden_input(), layers={"pool": model.pool}, targets=[Target(class_index=class_index, weights=region)]
    ).layers["pool"]
    np.testing.assert_allclose(found.alpha[0], golden["alpha"], atol=1e-9)
    np.testing.assert_allclose(found.gradcam[0], golden["raw_before_relu"], atol=1e-9)
    np.testing.assert_allclose(found.hirescam[0], golden["hirescam_before_relu_4x4"], atol=1e-9)
