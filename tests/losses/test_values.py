"""The losses against golden values and against second implementations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segpipe.losses import cross_entropy, cross_entropy_dice, dice

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
LOGITS = torch.tensor(GOLDEN["inputs"]["logits"], dtype=torch.float64)
TARGET = torch.tensor(GOLDEN["inputs"]["target"])
WITHOUT_CLASS_2 = torch.where(TARGET == 2, 0, TARGET)
WEIGHT = GOLDEN["inputs"]["class_weights"]
# A sigmoid is a softmax over (0, z): the binary formulas are those of class 1.
BINARY = torch.tensor(GOLDEN["inputs"]["binary_logits"], dtype=torch.float64)
BINARY = torch.cat([torch.zeros_like(BINARY), BINARY], 1)
BINARY_TARGET = torch.tensor(GOLDEN["inputs"]["binary_target"])[:, 0]


@pytest.mark.parametrize(
    ("key", "module", "options", "logits", "target"),
    [
        ("cross_entropy", cross_entropy, {}, LOGITS, TARGET),
        ("cross_entropy_weighted", cross_entropy, {"weight": WEIGHT}, LOGITS, TARGET),
        ("cross_entropy_smoothed_0.1", cross_entropy, {"label_smoothing": 0.1}, LOGITS, TARGET),
        ("dice", dice, {}, LOGITS, TARGET),
        ("dice_absent_keep", dice, {"absent": "keep"}, LOGITS, WITHOUT_CLASS_2),
        ("dice_absent_skip", dice, {"absent": "skip"}, LOGITS, WITHOUT_CLASS_2),
        ("dice_binary", dice, {"background": False}, BINARY, BINARY_TARGET),
        ("dice_binary_smooth_1", dice, {"background": False, "smooth": 1.0}, BINARY, BINARY_TARGET),
        ("dice_binary_squared", dice, {"background": False, "squared": True}, BINARY, BINARY_TARGET),
        ("cross_entropy_dice", cross_entropy_dice, {}, LOGITS, TARGET),
    ],
)
def test_golden(key: str, module: Any, options: dict[str, Any], logits: Tensor, target: Tensor) -> None:
    value = module.build(num_classes=logits.shape[1], **options)(logits, target)
    assert value.item() == pytest.approx(GOLDEN["expected"][key], abs=1e-9)


@pytest.mark.parametrize("weight", [None, WEIGHT, [0.0, 1.0, 2.0]])
def test_cross_entropy_is_torchs(weight: list[float] | None) -> None:
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(LOGITS, TARGET, w, ignore_index=255)
    torch.testing.assert_close(cross_entropy.build(num_classes=3, weight=weight)(LOGITS, TARGET), expected)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_dice_by_hand(squared: bool, weight: list[float] | None) -> None:
    x, y = LOGITS.numpy(), TARGET.numpy()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    valid, losses = y != 255, []
    for c in range(3):
        pc, gc = p[:, c][valid], (y == c)[valid]
        losses.append(1 - (2 * pc[gc].sum() + 0.5) / ((pc**2 if squared else pc).sum() + gc.sum() + 0.5))
    value = dice.build(num_classes=3, squared=squared, smooth=0.5, weight=weight)(LOGITS, TARGET)
    assert value.item() == pytest.approx(np.average(losses, weights=weight), abs=1e-12)


def test_the_sum_is_the_sum_of_its_terms() -> None:
    options: dict[str, Any] = {"squared": True, "smooth": 1.0, "absent": "keep", "background": False}
    value = cross_entropy_dice.build(num_classes=3, weight=WEIGHT, dice_share=0.25, **options)(LOGITS, TARGET)
    entropy = cross_entropy.build(num_classes=3, weight=WEIGHT)(LOGITS, TARGET)
    overlap = dice.build(num_classes=3, **options)(LOGITS, TARGET)
    torch.testing.assert_close(value, entropy + 0.25 * overlap)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (cross_entropy, {"label_smoothing": 1.5}, "label_smoothing: 1.5"),
        (dice, {"absent": "zero"}, "absent: 'zero'. Choices: skip, keep"),
        (dice, {"smooth": -1.0}, "smooth: -1.0"),
        (dice, {"background": False, "weight": [1.0, 0.0, 0.0]}, "leaves no class"),
        (cross_entropy_dice, {"dice_share": -0.1}, "dice_share: -0.1"),
        (cross_entropy_dice, {"absent": "zero"}, "absent: 'zero'"),
    ],
)
def test_a_wrong_option_raises(module: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.build(num_classes=3, **options)
