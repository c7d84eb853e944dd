"""Evaluation with the CRF: both answers are counted in one pass, files and printed line say the gain, none changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from segpipe import crf as dense_crf
from segpipe import results
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.confusion import count
from segpipe.crf_parameters import PARAMETERS, CrfParameters
from segpipe.evaluation import Evaluation, evaluate
from segpipe.evaluation_files import scores_of, write_evaluation
from segpipe.inference import predict
from segpipe.params import ParamsError, read_params
from segpipe.shards import ClassInfo, DatasetInfo, Sample, Split, SplitWriter, encode_image, encode_mask, read_info, write_info
from tests.test_evaluation import MEAN, STD, run_stage, stage_workspace
from tests.test_params import Change, changed, section

NAMES = ["ground", "sky"]
SIZES = [(48, 64), (70, 66), (40, 52)]  # the second is above the exact filter's pixels
GENTLE = CrfParameters(bilateral_weight=5, sxy=30, srgb=10, gaussian_weight=1, gaussian_sxy=2)


class Coarse(nn.Module):
    """Answers for blocks of eight pixels: is the blue channel the brighter one? A border between them is off by a few pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=8, minimum=8)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        bluer = torch.nn.functional.avg_pool2d(x[:, 2:] - x[:, :1], 8) + self.weight
        return {"out": torch.cat([-bluer, bluer + 0.3], dim=1)}


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of two colours with a wavy border, and their masks."""
    rng = np.random.default_rng(0)
    found = []
    for index, (height, width) in enumerate(SIZES):
        i, j = np.mgrid[:height, :width]
        mask = (i < height / 2 + 5 * np.sin(j / 6 + index)).astype(np.uint8)
        image = np.array([[120, 100, 60], [110, 130, 170]])[mask] + rng.normal(0, 3, (height, width, 3))
        mask[rng.random(mask.shape) < 0.05] = 255
        found.append((image.round().clip(0, 255).astype(np.uint8), mask))
    return found


def split(folder: Path) -> Split:
    folder.mkdir(parents=True)
    digests = {}
    for name in ("train", "val", "test"):
        with SplitWriter(folder, name) as writer:
            for number, (image, mask) in enumerate(pairs() if name == "test" else ()):
                height, width = mask.shape
                data: dict[str, Any] = {"image": encode_image(image), "mask": encode_mask(mask), "source": "", "group": "g"}
                writer.write(Sample(id=f"image {number}", height=height, width=width, **data))
            digests[name] = writer.close()
    info = DatasetInfo(
        name="toy",
        classes=tuple(ClassInfo(name=name, colour=(9 * i, 0, 0)) for i, name in enumerate(NAMES)),
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": 0, "val": 0, "test": len(SIZES)},
        pixels={"test": [1, 1]},
        mean=tuple(MEAN),
        std=tuple(STD),
        provenance={},
        digest="d",
    )
    write_info(folder, info)
    return Split(folder, "test")


def evaluated(test: Split, **options: Any) -> Evaluation:
    given = {"classes": read_info(test.folder).classes, "ignore_index": 255, "mean": MEAN, "std": STD, **options}
    return evaluate(Coarse(), test, **given)


def test_both_answers_are_counted_in_one_pass(tmp_path: Path) -> None:
    test = split(tmp_path / "data")
    labels: dict[str, np.ndarray] = {}
    evaluation = evaluated(test, crf=GENTLE, on_answer=lambda name, found, _: labels.update({name: found}))
    plain = evaluated(test)
    np.testing.assert_array_equal(evaluation.network_counts, plain.counts)
    for index, (image, mask) in enumerate(pairs()):
        logits = predict(Coarse().eval(), image, mean=MEAN, std=STD)
        expected = dense_crf.mean_field(logits, image, bilateral_weight=5, sxy=30, srgb=10, gaussian_weight=1, gaussian_sxy=2)
        found = labels[f"image {index}"]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected.argmax(axis=0))
        np.testing.assert_array_equal(evaluation.counts[index], count(mask, found, num_classes=2, ignore_index=255))


def test_the_headline_is_that_with_the_crf_and_the_gain_is_said(tmp_path: Path) -> None:
    test = split(tmp_path / "data")
    out = tmp_path / "out"
    with results.PredictionWriter(out) as writer:
        evaluation = evaluated(test, crf=GENTLE, on_answer=writer.write)
    written = write_evaluation(out, evaluation)
    scores = results.read_evaluation(out).scores
    plain = scores_of(evaluated(test))
    assert scores == json.loads(json.dumps(written))
    assert scores["miou"] == results.score(evaluation.counts, class_names=NAMES)["miou"]
    assert scores["miou_without_crf"] == plain["miou"]
    assert scores["crf_gain"] == pytest.approx(scores["miou"] - plain["miou"], abs=1e-15)
    assert scores["crf_gain"] > 0.03, "the border lies in the image's colours, and the network does not see it well"
    assert scores["crf"] == str(GENTLE)
    assert set(scores) - set(plain) == {"crf", "miou_without_crf", "crf_gain"}
    assert not {"crf", "miou_without_crf", "crf_gain"} & set(plain)
    np.testing.assert_array_equal(results.read_evaluation(out).counts, evaluation.counts)


@pytest.mark.parametrize("options", [{"size": [40, 48]}, {"tta": "flip"}, {"tile": (24, 40), "tta": "flip"}], ids=str)
def test_it_works_at_the_image_s_own_resolution_whatever_the_network_sees(tmp_path: Path, options: dict[str, Any]) -> None:
    test = split(tmp_path / "data")
    evaluation = evaluated(test, crf=GENTLE, **options)
    assert evaluation.counts.sum(axis=(1, 2)).tolist() == [int(np.sum(mask != 255)) for _, mask in pairs()]
    np.testing.assert_array_equal(evaluation.network_counts, evaluated(test, **options).counts)


def test_undefined_scores_have_no_gain(tmp_path: Path) -> None:
    evaluation = evaluated(split(tmp_path / "data"), crf=GENTLE)
    scores = scores_of(replace(evaluation, counts=0 * evaluation.counts, network_counts=0 * evaluation.network_counts))
    assert scores["miou"] is None and scores["miou_without_crf"] is None and scores["crf_gain"] is None


def test_images_too_large_are_refused_before_the_first_is_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = split(tmp_path / "data")
    monkeypatch.setattr(dense_crf, "MOST_VALUES", 2 * 48 * 64)
    seen: list[int] = []
    with pytest.raises(ValueError, match=r"image 'image 1' of test: 2 classes at 70 x 66 .*`evaluate.crf` in params.yaml be none"):
        evaluated(test, crf=GENTLE, on_image=lambda done, _: seen.append(done))
    assert not seen
    assert evaluated(test).counts.sum() > 0


def test_only_the_crf_needs_all_logits_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all logits were asked for")

    monkeypatch.setattr(dense_crf, "mean_field", refuse)
    test = split(tmp_path / "data")
    evaluated(test)
    with pytest.raises(AssertionError, match="all logits were asked for"):
        evaluated(test, crf=GENTLE)


def test_confidence_and_modes_are_the_network_s_own(tmp_path: Path) -> None:
    test = split(tmp_path / "data")
    sure: dict[str, list[np.ndarray]] = {}
    with_crf, plain = (
        evaluated(test, crf=crf, modes=["flip"], on_answer=lambda name, _, found: sure.setdefault(name, []).append(found))
        for crf in (GENTLE, None)
    )
    assert all((first == second).all() for first, second in sure.values())
    assert with_crf.calibration.document() == plain.calibration.document()
    np.testing.assert_array_equal(with_crf.variant_counts, plain.variant_counts)
    for key in ("miou", "gain", "gain_low", "gain_high"):
        assert scores_of(with_crf)["modes"]["flip"][key] == scores_of(plain)["modes"]["flip"][key]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("none", None), ("deeplabv2-resnet101", PARAMETERS["deeplabv2-resnet101"])],
    ids=["none", "a name"],
)
def test_params_name_a_published_set(tmp_path: Path, value: str, expected: CrfParameters | None) -> None:
    assert read_params(changed(tmp_path, section("evaluate", crf=value))).evaluate.crf == expected


def test_params_leave_the_crf_out_or_hold_its_numbers(tmp_path: Path) -> None:
    assert read_params(changed(tmp_path, lambda d: d["evaluate"].pop("crf", None))).evaluate.crf is None
    row = {"bilateral_weight": 4, "sxy": 67, "srgb": 3, "gaussian_weight": 3, "gaussian_sxy": 1.5, "iterations": 5}
    found = read_params(changed(tmp_path, section("evaluate", crf=row))).evaluate.crf
    assert found == CrfParameters(
        bilateral_weight=4.0, sxy=67.0, srgb=3.0, gaussian_weight=3.0, gaussian_sxy=1.5, iterations=5, filter="auto"
    )


NUMBERS = {"bilateral_weight": 4, "sxy": 67, "srgb": 3, "gaussian_weight": 3, "gaussian_sxy": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (section("evaluate", crf="deeplabv2"), r"evaluate\.crf: 'deeplabv2'\. Did you mean 'deeplabv.*Choices: none, densecrf"),
        (section("evaluate", crf=True), r"evaluate\.crf: True\. Choices: none, .* or a mapping with bilateral_weight, sxy"),
        (section("evaluate", crf={"sxy": 3}), r"evaluate\.crf\.bilateral_weight: missing"),
        (section("evaluate", crf={**NUMBERS, "sxyz": 3}), r"evaluate\.crf\.sxyz: unknown key\. Did you mean 'sxy'"),
        (section("evaluate", crf={**NUMBERS, "srgb": 0}), r"evaluate\.crf\.srgb: 0\.0 must be 0\.01 or more"),
        (section("evaluate", crf={**NUMBERS, "iterations": 2.5}), r"evaluate\.crf\.iterations: 2\.5 is not a whole number"),
        (section("evaluate", crf={**NUMBERS, "filter": "fats"}), r"evaluate\.crf\.filter: 'fats'\. Did you mean 'fast'"),
    ],
)
def test_a_wrong_crf_is_named_with_the_choices(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        read_params(changed(tmp_path, change))


def test_the_stage_says_the_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stage_workspace(tmp_path, digest="the digest")
    document = yaml.safe_load((folder / "params.yaml").read_text())
    document["evaluate"]["crf"] = "deeplabv1"
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    run_stage(monkeypatch, folder, "toy")
    scores = results.read_evaluation(folder / "evaluations" / "toy").scores
    assert scores["crf"] == str(PARAMETERS["deeplabv1"]) and scores["crf_gain"] == scores["miou"] - scores["miou_without_crf"]
    printed = capsys.readouterr().out
    assert f"toy: mIoU {100 * scores['miou']:.2f} %" in printed
    gain, before = 100 * scores["crf_gain"], 100 * scores["miou_without_crf"]
    assert f"CRF {gain:+.2f} points of mIoU (without it {before:.2f} %) on 5 test images" in printed
