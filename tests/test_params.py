"""params.yaml is validated as a whole, and every refusal names the key, the value and the choices."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segpipe import components, corruptions
from segpipe.params import ParamsError, read_params
from tests.imports import ROOT

Change = Callable[[dict[str, Any]], None]


def changed(tmp_path: Path, change: Change) -> Path:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(document)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p.name)
def test_the_shipped_files_are_valid(path: Path) -> None:
    assert read_params(path).experiments


def test_a_row_overrides_train_and_nothing_else(tmp_path: Path) -> None:
    def change(d: dict[str, Any]) -> None:
        d["experiments"]["unet"]["lr"] = 0.5

    params = read_params(changed(tmp_path, change))
    assert params.experiments["unet"].train.lr == 0.5
    assert params.experiments["segnet"].train.lr == params.train.lr
    assert params.experiments["unet-seed1"].seed == 1
    assert params.experiments["unet"].seed == params.seed


def row(**keys: Any) -> Change:
    def change(d: dict[str, Any]) -> None:
        d["experiments"]["unet"] = {**d["experiments"]["unet"], **keys}

    return change


def dataset(**keys: Any) -> Change:
    def change(d: dict[str, Any]) -> None:
        d["datasets"]["scenes"] = {**d["datasets"]["scenes"], **keys}

    return change


def section(name: str, **keys: Any) -> Change:
    def change(d: dict[str, Any]) -> None:
        d[name] = {**d[name], **keys}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (row(architectur="unet"), r"experiments\.unet\.architectur: unknown key\. Did you mean 'architecture'\?"),
        (row(architecture="unett"), r"experiments\.unet\.architecture: .*no 'unett'.*Did you mean 'unet'.*create segpipe"),
        (row(loss="crossentropy"), r"experiments\.unet\.loss: .*Did you mean 'cross_entropy'"),
        (row(dataset="scene"), r"experiments\.unet\.dataset: no 'scene' under datasets\. Did you mean 'scenes'"),
        (row(options={"widht": 8}), r"experiments\.unet\.options\.widht: unknown key\. Did you mean 'width'"),
        (row(loss_options={"gamma": 2}), r"experiments\.unet\.loss_options\.gamma: unknown key"),
        (section("train", schedule="polly"), r"train\.schedule: 'polly'\. Did you mean 'poly'"),
        (section("train", schedule="exponential"), r"train\.gamma: missing; schedule: exponential multiplies"),
        (row(schedule="exponential", gamma=1.5), r"experiments\.unet\.gamma: 1\.5 must be null, or above 0 and at most 1"),
        (section("train", optimizer="rmsprob"), r"train\.optimizer: 'rmsprob'\. Did you mean 'rmsprop'"),
        (section("train", lr="1e-3"), r"train\.lr: '1e-3' is not a number \(YAML reads"),
        (section("train", epochs=0), r"train\.epochs: 0 must be 1 or more"),
        (section("train", epochs=True), r"train\.epochs: True is not a whole number"),
        (section("train", crop=[10]), r"train\.crop: .* must be null or \[height, width\]"),
        (section("augment", policy="heavy"), r"augment\.policy: 'heavy'.*Choices: none, light, strong"),
        (section("augment", copies=-1), r"augment\.copies: -1 must be 0 or more"),
        (section("evaluate", tile="big"), r"evaluate\.tile: 'big' must be auto, none, parts or"),
        (section("evaluate", tta="flips"), r"evaluate\.tta: 'flips'\. Did you mean 'flip'.*none, flip, scales, flip_scales"),
        (section("evaluate", tta="flip", modes=["flip"]), r"evaluate\.modes: 'flip' is what `evaluate.tta` has already"),
        (section("evaluate", modes=["tile"]), r"evaluate\.modes: 'tile'\. Did you mean 'tiles'.*Choices: none, flip"),
        (section("evaluate", modes="flip"), r"evaluate\.modes: 'flip' must be none, all, or a list of: none, flip"),
        (section("evaluate", modes=["flip", "flip"]), r"evaluate\.modes: \['flip', 'flip'\] names one twice"),
        (section("evaluate", corruptions=["fogg"]), r"evaluate\.corruptions: 'fogg'\. Did you mean 'fog'.*Choices: noise, blur"),
        (section("evaluate", corruptions=True), r"evaluate\.corruptions: True must be none, all, or a list of: noise"),
        (section("register", gate={"metric": "iou"}), r"register\.gate\.metric: 'iou'.*Choices: miou"),
        (section("datasets", other={"format": "vco"}), r"datasets\.other\.format: .*no 'vco'"),
        (section("datasets", other={}), r"datasets\.other\.format: missing"),
        (section("datasets", scenes={"format": "scenes", "sise": [8, 8]}), r"datasets\.scenes\.sise: unknown key.*'size'"),
        (section("datasets", mine={"format": "folder"}), r"datasets\.mine\.source: missing; the format 'folder' reads your own"),
        (dataset(splits={"fractions": {"train": 1.0}}), r"datasets\.scenes\.splits\.fractions: .*one for each of train, val"),
        (dataset(stand_in={"test": {"form": "val"}}), r"datasets\.scenes\.stand_in\.test: "),
        (dataset(class_map={"merg": {}}), r"datasets\.scenes\.class_map\.merg: unknown key\. Did you mean 'merge'"),
        (dataset(audit={"unreadble": "warning"}), r"datasets\.scenes\.audit\.unreadble: unknown key\. Did you mean 'unreadable'"),
        (dataset(audit={"unreadable": "warn"}), r"datasets\.scenes\.audit\.unreadable: 'warn'; choices: error, warning, off"),
        (section("experiments", datasets={}), r"experiments\.datasets: this name is taken"),
        (section("experiments", comparison={}), r"experiments\.comparison: this name is taken"),
        (section("experiments", **{"a/b": {}}), r"experiments\.a/b: a row's name is made of"),
        (lambda d: d.pop("compare"), r"the key 'compare' is missing"),
        (lambda d: d.update(trian={}), r"top level\.trian: unknown key\. Did you mean 'train'"),
        (lambda d: d.update(seed="zero"), r"seed: 'zero' is not a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_the_choices(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        read_params(changed(tmp_path, change))


def test_a_row_of_datasets_may_split_map_and_accept(tmp_path: Path) -> None:
    accepted = {"near_duplicate": False, "same_image": "off"}  # a bare off is false in YAML
    change = dataset(splits={"folds": 5, "fold": 1}, class_map={"merge": {"box": ["crate", "chest"]}}, audit=accepted)
    row = read_params(changed(tmp_path, change)).datasets["scenes"]
    assert row.splits == {"folds": 5, "fold": 1} and row.class_map == {"merge": {"box": ["crate", "chest"]}}
    assert row.audit == {"near_duplicate": "off", "same_image": "off"} and "size" in row.options


@pytest.mark.parametrize(
    ("given", "modes", "damages"),
    [
        ({"modes": None, "corruptions": "none"}, (), ()),
        ({"modes": ["tiles", "scales"], "corruptions": ["jpeg"]}, ("tiles", "scales"), ("jpeg",)),
        ({"modes": "all", "corruptions": "all"}, ("flip", "scales", "flip_scales", "tiles"), corruptions.NAMES),
        ({"tta": "flip", "modes": "all", "corruptions": []}, ("none", "scales", "flip_scales", "tiles"), ()),
    ],
    ids=str,
)
def test_other_ways_to_evaluate(tmp_path: Path, given: dict[str, Any], modes: object, damages: object) -> None:
    read = read_params(changed(tmp_path, section("evaluate", **given))).evaluate
    assert (read.modes, read.corruptions) == (modes, damages)


def test_class_weights_need_a_loss_that_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(components.ROOT, tmp_path / "segpipe", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "segpipe/losses/plain.py").write_text("def build(*, num_classes, ignore_index=255): ...\n")
    monkeypatch.setattr(components, "ROOT", tmp_path / "segpipe")
    path = changed(tmp_path, row(loss="plain", class_weights="median_frequency"))
    with pytest.raises(ParamsError, match=r"experiments.unet.class_weights: .* the loss 'plain' takes no class weights"):
        read_params(path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1, 2")
    with pytest.raises(ParamsError, match="not valid YAML"):
        read_params(tmp_path / "params.yaml")
