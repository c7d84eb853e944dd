"""`segpipe audit FOLDER` as a new user runs it: what reads the folder, what is wrong with it, and a row that runs as printed."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segpipe import cli, components, detection
from segpipe.audit import Audit
from segpipe.convert import convert
from segpipe.dataset_row import read_row
from segpipe.splits import assign
from tests.imports import ROOT

READ_AS = {
    "ade20k_sample": "ade20k",
    "aerial_samples": "folder",
    "camvid": "camvid",
    "cityscapes": "cityscapes",
    "coco2017_panoptic100": "coco",
    "coco2017_tiny": "coco",
    "coco_eval_samples": "coco",
    "coco_stuff": "coco",
    "crackforest": "folder",
    "cwfid": None,
    "dental_caries_mlua": "folder",
    "drive": "drive",
    "dsb2018": "dsb2018",
    "isbi2012_membrane": "isbi_em",
    "la2018": "volumes",
    "lung_cxr": "folder",
    "nifti_sample": "volumes",
    "nyu40": "folder",
    "pascal_context": "pascal_context",
    "person_part": "folder",
    "stardist_samples": None,
    "voc2012_genuine": "voc",
    "voc_style_labelme": "folder",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run the command in."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder: 14 photos and masks of 0 and 255."""
    return draw(tmp_path / "my data", {f"{i:03d}": blob(i) for i in range(14)})


def draw(folder: Path, masks: dict[str, np.ndarray], *, mask_folder: str = "masks", below: str = "") -> Path:
    """Write noise as images/ and `masks` beside it, by id."""
    for kind in ("images", mask_folder):
        (folder / below / kind).mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        photo = np.random.default_rng(list(f"{below}{name}".encode())).integers(0, 256, (*mask.shape, 3), np.uint8)
        Image.fromarray(photo).save(folder / below / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / below / mask_folder / f"{name}.png")
    return folder


def blob(number: int, *, value: int = 255) -> np.ndarray:
    mask = np.zeros((40, 48), np.uint8)
    mask[number % 7 : number % 7 + 30, 4:40] = value
    return mask


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The command's exit status, and all that it said."""
    monkeypatch.setattr(sys, "argv", ["segpipe", *words])
    code: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return (1, f"{said.out}{code}") if isinstance(code, str) else (code or 0, said.out)


def printed_row(said: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the row that the command printed last."""
    ((name, row),) = yaml.safe_load(said.splitlines()[-1]).items()
    return name, row


def converted(row: dict[str, Any], out: Path) -> dict[str, int]:
    """The splits that convert makes of the printed row."""
    read = read_row("mine", row)
    module = components.load("datasets", read.format)
    scan = module.scan(Path(str(read.source)), **read.options)
    return convert(
        Path(str(read.source)), out, name="mine", scan=scan, load=module.load, splits=read.splits, stand_ins=read.stand_in
    )[0].splits


def test_it_detects_says_and_prints_a_row_that_converts(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(monkeypatch, capsys, "audit", str(mine))
    assert code == 0
    assert f"{mine}: read as format folder: 14 samples, 2 classes" in said
    assert "warning: the masks hold 0 and 255, read as background and foreground" in said
    assert "settled by, if it is meant: datasets: {my-data: {..., audit: {binary_mask: off}}}" in said
    assert "no errors, 1 warning; pictures: reports/audits/my-data/index.html" in said
    page = (here / "reports/audits/my-data/index.html").read_text()
    assert "binary_mask" in page and page.count("data:image/jpeg") == 3, "a contact sheet for each split"
    assert sorted(path.name for path in here.iterdir()) == ["reports"], "the converted data is gone"
    name, row = printed_row(said)
    assert name == "my-data" and row["format"] == "folder" and row["source"] == str(mine)
    splits = converted(row, here / "converted")
    assert sum(splits.values()) == 14 and min(splits.values()) > 0


def test_an_error_is_status_1_with_the_line_that_settles_it(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(mine, {"003": blob(3, value=7)})
    (mine / "classes.yaml").write_text("{background: 0, leaf: 255}")
    code, said = run(monkeypatch, capsys, "audit", str(mine), "--out", "page.html")
    assert code == 1
    assert "error: the mask holds the unknown label value 7: images/003.png (1080 pixels)." in said
    assert "datasets: {my-data: {..., class_map: {values: {7: ignore}}}}" in said and "1 error, no warnings" in said
    page = (here / "page.html").read_text()
    assert "1 error stops this dataset" in page and "images/003.png" in page and "data:image/" in page
    assert not (here / "reports").exists()
    (mine / "masks" / "003.png").write_bytes(b"")
    code, said = run(monkeypatch, capsys, "audit", str(mine))
    assert code == 1 and "images/003.png or its mask 003.png" in said and "Traceback" not in said


def test_what_could_mean_two_things_is_named_by_options(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(mine, {f"{i:03d}": blob(i, value=9) for i in range(14)}, mask_folder="labels")
    code, said = run(monkeypatch, capsys, "audit", str(mine))
    assert code == 1 and "images with labels (14 pairs); images with masks (14 pairs)" in said
    assert f"segpipe audit {mine} --format folder --option masks=annotations" in said
    assert "Formats: ade20k, camvid" in said and "scenes" not in said, "a drawn dataset reads nobody's folder"
    options = ["--option", "masks=labels", "--option", "classes={soil: 0, leaf: 9}"]
    code, said = run(monkeypatch, capsys, "audit", str(mine), "--format", "folder", *options)
    row = printed_row(said)[1]
    assert code == 0 and row["masks"] == "labels" and row["classes"] == {"soil": 0, "leaf": 9}
    assert min(converted(row, here / "converted").values()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--option", "masks=labels"], "--option belongs to a format: name that with --format"),
        (["--format", "folder", "--option", "masks"], "--option masks: write KEY=VALUE, e.g. masks=annotations"),
        (["--format", "folder", "--option", "mask=labels"], "--option.mask: unknown key. Did you mean 'masks'?"),
        (["--format", "foldr"], "no 'foldr'. Did you mean 'folder'?"),
        (["--format", "folder", "--option", "masks=nowhere"], "no image with a mask is named by masks: 'nowhere'"),
        (["--format", "folder", "--option", "masks={id"], "'{id'"),
        (["--format", "voc"], "SegmentationClass"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, said = run(monkeypatch, capsys, "audit", str(mine), *words)
    assert code == 1 and said.startswith("segpipe audit: ") and message in said


def test_a_pattern_needs_no_quotes(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    field = draw(tmp_path / "field", {f"row{i % 5}_{i}": blob(i) for i in range(10)})
    code, said = run(monkeypatch, capsys, "audit", str(field), "--format", "folder", "--option", "group={group}_*")
    assert code == 0, said
    row = printed_row(said)[1]
    assert row["group"] == "{group}_*" and set(converted(row, here / "converted").values()) <= {2, 4, 6}


def test_without_samples(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, said = run(monkeypatch, capsys, "audit", str(empty))
    assert code == 1 and "no images with masks found" in said and "The folder holds no file at all" in said
    code, said = run(monkeypatch, capsys, "audit", str(tmp_path / "nowhere"))
    assert code == 1 and said == f"segpipe audit: {tmp_path / 'nowhere'}: no such folder"
    (empty / "data.zip").write_bytes(b"PK")
    code, said = run(monkeypatch, capsys, "audit", str(empty / "data.zip"))
    assert code == 1 and "unpack it" in said


def test_a_format_that_nearly_reads_it_is_said(
    here: Path, tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = {"version": "5", "imagePath": "gone.jpg", "imageData": None, "imageHeight": 4, "imageWidth": 4, "shapes": []}
    alone = tmp_path / "annotated"
    alone.mkdir()
    for place in (alone, mine):
        (place / "gone.json").write_text(json.dumps(labelled))
    code, said = run(monkeypatch, capsys, "audit", str(alone))
    assert code == 1 and "\n  labelme: a labelme file has neither its image nor imageData: gone.json." in said
    code, said = run(monkeypatch, capsys, "audit", str(mine))
    assert code == 0 and f"{mine}: not read as labelme: a labelme file has neither" in said and "read as format folder" in said


def test_missing_splits_are_settled_in_the_row(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = tmp_path / "halves"
    for split, count in (("train", 14), ("val", 4)):
        draw(halves, {f"{split}{i}": blob(i, value=1) for i in range(count)}, below=split)
    code, said = run(monkeypatch, capsys, "audit", str(halves))
    row = printed_row(said)[1]
    assert code == 0 and "There are no test samples; the row below says what stands in for them." in said
    assert row["stand_in"] == {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.1}}
    splits = converted(row, here / "converted")
    assert splits["test"] == 4 and splits["train"] + splits["val"] == 14 and splits["val"] > 0
    train = draw(tmp_path / "train_only", {f"a{i}": blob(i, value=1) for i in range(12)}, below="train")
    code, said = run(monkeypatch, capsys, "audit", str(train))
    assert code == 0 and "There are no val and no test samples; the row below draws the splits by group." in said
    assert min(converted(printed_row(said)[1], here / "converted").values()) > 0


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_few_samples_get_a_draw_that_fills_all_splits_or_a_sentence(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    few = draw(tmp_path / "few", {f"{i}": blob(i) for i in range(count)})
    code, said = run(monkeypatch, capsys, "audit", str(few))
    assert code == 0 and f"{count} samples" in said
    row = printed_row(said)[1]
    if count == 2:
        assert "none can be drawn; all were audited as train. datasets.few.splits: no sample falls into" in said
        assert "splits" not in row
        assert "A training needs val and test samples too" in (here / "reports/audits/few/index.html").read_text()
    else:
        assert min(converted(row, here / "converted").values()) > 0


@pytest.mark.parametrize("name", READ_AS)
def test_the_real_samples_are_recognised(samples: Path, name: str) -> None:
    found, reasons = detection.detect(samples / name)
    expected = READ_AS[name]
    assert list(found) == ([expected] if expected else [])
    if expected is None:
        assert "images with masks" in reasons["folder"] if name == "cwfid" else "instances: true" in reasons["volumes"]
        return
    scan, keys, said = detection.settle_splits(found[expected], name=name)
    assert len(scan.items) == len(found[expected].items)
    if "splits" in keys:
        made, _ = assign(scan.items, keys["splits"], name=name, audit=Audit(name))
        assert {item.split for item in made} == {"train", "val", "test"}
    assert bool(said) == ({item.split for item in found[expected].items} != {"train", "val", "test"})


def test_the_readmes_class_table_and_row_are_valid(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text().partition("## Your own data")[2].partition("\n## ")[0]
    table, row = re.findall(r"```yaml\n(.*?)```", text, re.S)
    road = np.ones((100, 120), np.uint8)
    road[20:60, 20:60], road[80:, :9], road[:4] = 2, 3, 4
    cracks = draw(tmp_path / "cracks", {f"{i}": np.roll(road, i, 1) for i in range(9)})
    (cracks / "classes.yaml").write_text(table)
    code, said = run(monkeypatch, capsys, "audit", str(cracks))
    assert code == 0 and "9 samples, 2 classes" in said and "no errors, no warnings" in said
    read = read_row("mine", yaml.safe_load(row)["datasets"]["mine"])
    assert read.format == "folder" and read.splits is not None and read.audit == {"near_duplicate": "off", "unreadable": "warning"}
    formats = set(re.findall(r"`(\w+)`", re.sub(r"(?m)^(?!\|).*$", "", text))) & set(components.names("datasets"))
    assert formats == set(detection.formats()), "the table names every format"


def test_a_preset_for_a_folder_that_is_not_there(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(monkeypatch, capsys, "preset", "folder", "--source", str(mine.with_name("my-dta")))
    assert code == 1 and said.endswith("my-dta: no such file or folder") and not (here / "params.yaml").exists()
    code, said = run(monkeypatch, capsys, "preset", "folder", "--source", str(mine))
    assert code == 0 and yaml.safe_load((here / "params.yaml").read_text())["datasets"]["mine"]["source"] == str(mine)
