"""The mask audit: each kind of fault that a dataset can have is found by convert, named with its file, and settled by params."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segpipe.audit import AuditError, Finding
from segpipe.convert import convert
from segpipe.finding_kinds import KINDS
from segpipe.layout import Item, Raw, Scan
from segpipe.shards import ClassInfo, Split
from tests.imports import ROOT

CLASSES = tuple(ClassInfo(name=n, colour=(40 * i, 9, 9), thing=i > 0) for i, n in enumerate(("ground", "cat", "dog")))
SPLITS = {"train": 6, "val": 3, "test": 3}


def load_pair(item: Item) -> Raw:
    assert item.mask is not None
    instances = [{"category": c, "mask": np.array(m), "iscrowd": False} for c, m in item.extra.get("instances", ())]
    with Image.open(item.mask) as mask:
        return Raw(image=item.image.read_bytes(), labels=np.asarray(mask), instances=instances)


def picture(seed: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth random picture: no two seeds resemble each other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def labels(seed: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 3, (6, 8), np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST)


@pytest.fixture
def sound(tmp_path: Path) -> Scan:
    """A dataset without a fault: <id>.png with <id>-mask.png."""
    items = []
    for split, count in SPLITS.items():
        for i in range(count):
            image, mask = tmp_path / f"{split}{i}.png", tmp_path / f"{split}{i}-mask.png"
            seed = 100 * len(split) + i + (50 if split == "test" else 0)
            Image.fromarray(picture(seed)).save(image)
            Image.fromarray(labels(seed)).save(mask)
            items.append(Item(id=image.stem, split=split, image=image, mask=mask, group=image.stem, source=image.name))
    return Scan(classes=CLASSES, items=tuple(items), labels={0: 0, 1: 1, 2: 2, 255: 255})


def findings(folder: Path, scan: Scan, **options: Any) -> list[Finding]:
    try:
        return convert(folder, folder / "out", name="mine", scan=scan, load=load_pair, **options)[1].findings
    except AuditError as error:
        return error.audit.findings


def test_sound_data_has_no_finding(tmp_path: Path, sound: Scan) -> None:
    assert findings(tmp_path, sound) == []


def write_mask(folder: Path, name: str, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(folder / f"{name}-mask.png")


def unknown_value(folder: Path) -> None:
    mask = labels(1)
    mask[:2, :5] = 7
    write_mask(folder, "train1", mask)


def foreground_255(folder: Path) -> None:
    write_mask(folder, "train1", np.uint8(255 * (labels(1) > 0)))


def jpeg_mask(folder: Path) -> None:
    Image.fromarray(labels(1) * 100).save(folder / "train1-mask.png", "JPEG", quality=80)


def smeared(folder: Path) -> None:
    write_mask(folder, "train1", cv2.resize(labels(1) * 40, (64, 48), interpolation=cv2.INTER_NEAREST)[:, ::-1] // 1)
    soft = cv2.resize((labels(1) * 40)[::4, ::4], (64, 48), interpolation=cv2.INTER_CUBIC)
    write_mask(folder, "train1", soft)


def colours(folder: Path) -> None:
    Image.fromarray(picture(1)).save(folder / "train1-mask.png")


def transparent_colours(folder: Path) -> None:
    Image.fromarray(np.dstack([picture(1), labels(1)])).save(folder / "train1-mask.png")


def floats(folder: Path) -> None:
    Image.fromarray(labels(1).astype(np.float32)).save(folder / "train1-mask.png", "TIFF")


def smaller(folder: Path) -> None:
    write_mask(folder, "train1", labels(1)[::2, ::2])


def turned(folder: Path) -> None:
    write_mask(folder, "train1", np.rot90(labels(1)))


def empty(folder: Path) -> None:
    write_mask(folder, "train1", np.full((48, 64), 255, np.uint8))


def constant(folder: Path) -> None:
    write_mask(folder, "train1", np.full((48, 64), 2, np.uint8))


def zero_bytes(folder: Path) -> None:
    (folder / "train1.png").write_bytes(b"")


def cut(folder: Path) -> None:
    data = (folder / "train1-mask.png").read_bytes()
    (folder / "train1-mask.png").write_bytes(data[: len(data) // 2])


def web_page(folder: Path) -> None:
    (folder / "train1.png").write_text("<!doctype html><title>Please log in</title>")


def exif(folder: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 3
    Image.fromarray(picture(1)).save(folder / "train1.png", exif=tag)


def twice(folder: Path) -> None:
    (folder / "train1.png").write_bytes((folder / "train4.png").read_bytes())


def leaked(folder: Path) -> None:
    (folder / "train1.png").write_bytes((folder / "test2.png").read_bytes())


def nearly(folder: Path) -> None:
    Image.fromarray(np.asarray(Image.open(folder / "test2.png"))).save(folder / "train1.png", "JPEG", quality=70)


FAULTS: list[tuple[Callable[[Path], None], str, str, list[str]]] = [
    (unknown_value, "unknown_label", "error", ["value 7", "train1.png (10 pixels)", "values: {7: ignore}"]),
    (foreground_255, "ignore_as_foreground", "error", ["255", "train1.png", "values: {255:"]),
    (jpeg_mask, "jpeg_mask", "error", ["JPEG", "train1.png", "Save masks as PNG"]),
    (smeared, "smeared_mask", "error", ["smooth resizing", "train1.png"]),
    (colours, "colour_mask", "error", ["colour picture (3 channels)", "train1.png"]),
    (transparent_colours, "colour_mask", "error", ["colour picture (4 channels)", "train1.png"]),
    (floats, "not_labels", "error", ["float32", "train1.png"]),
    (smaller, "size_mismatch", "error", ["(48, 64) and (24, 32)", "train1.png"]),
    (turned, "size_mismatch", "error", ["turned against each other, (48, 64) and (64, 48)", "train1.png"]),
    (empty, "empty_mask", "warning", ["every pixel", "train1.png"]),
    (constant, "constant_mask", "warning", ["the whole mask is 'dog'", "train1.png"]),
    (zero_bytes, "unreadable", "error", ["train1.png is empty, 0 bytes"]),
    (cut, "unreadable", "error", ["train1-mask.png", "Fetch it again"]),
    (web_page, "unreadable", "error", ["no image file", "train1.png"]),
    (exif, "orientation", "warning", ["orientation 3", "train1.png"]),
    (twice, "same_image", "warning", ["twice in train", "train1.png and train4.png"]),
    (leaked, "leaked_image", "error", ["in train and in test", "train1.png and test2.png", "leaked_image: warning"]),
    (nearly, "near_duplicate", "warning", ["train1.png (train)", "test2.png (test)", "of 64 bits differ"]),
]


@pytest.mark.parametrize(("spoil", "kind", "severity", "words"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_each_fault_is_found_and_named(
    tmp_path: Path, sound: Scan, spoil: Callable[[Path], None], kind: str, severity: str, words: list[str]
) -> None:
    if kind == "unknown_label" or kind == "ignore_as_foreground":
        sound = Scan(classes=CLASSES, items=sound.items, labels={0: 0, 1: 1, 2: 2})
    spoil(tmp_path)
    found = findings(tmp_path, sound)
    assert [(f.kind, f.severity) for f in found] == [(kind, severity)]
    for word in words:
        assert word in f"{found[0]} {found[0].settle}"
    if kind not in ("unreadable",):
        assert found[0].pictures and cv2.imdecode(np.frombuffer(found[0].pictures[0][1], np.uint8), cv2.IMREAD_COLOR) is not None
    if severity == "error":
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spoil", "kind", "severity", "words"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_a_line_of_params_makes_an_error_a_warning(
    tmp_path: Path, sound: Scan, spoil: Callable[[Path], None], kind: str, severity: str, words: list[str]
) -> None:
    spoil(tmp_path)
    found = findings(tmp_path, sound, severities={kind: "warning", "ignore_as_foreground": "warning"})
    assert all(f.severity == "warning" for f in found)
    ids = Split(tmp_path / "out", "train").ids
    unusable = kind in ("unreadable", "not_labels", "colour_mask", "size_mismatch")
    assert ("train1" in ids) == (not unusable), "a sample that cannot be used is left out, the others stay"
    assert not any(f.kind == kind for f in findings(tmp_path, sound, severities={kind: "off", "ignore_as_foreground": "off"}))


def test_all_masks_of_0_and_255_are_an_error(tmp_path: Path, sound: Scan) -> None:
    for split, count in SPLITS.items():
        for i in range(count):
            write_mask(tmp_path, f"{split}{i}", np.uint8(255 * (labels(i + 1) > 0)))
    kinds = {f.kind: f for f in findings(tmp_path, sound) if f.severity == "error"}
    assert set(kinds) == {"ignore_as_foreground"}
    assert "all labelled pixels of the whole dataset are 'ground'" in kinds["ignore_as_foreground"].what


def test_rare_and_absent_classes_are_told_per_split(tmp_path: Path, sound: Scan) -> None:
    for i in range(3):
        mask = np.minimum(labels(i + 1), 1)
        mask[0, :3] = 2 if i == 0 else 0
        write_mask(tmp_path, f"val{i}", mask)
        write_mask(tmp_path, f"test{i}", np.minimum(labels(i + 1), 1))
    found = {(f.kind, f.what): f for f in findings(tmp_path, sound)}
    assert found["rare_class", "classes with fewer than 1000 pixels in val"].examples == ["dog (3 pixels)"]
    assert found["absent_class", "classes without a pixel in test"].examples == ["dog"]
    assert len(found) == 2


def test_groups_in_two_splits(tmp_path: Path, sound: Scan) -> None:
    items = tuple(Item(**{**vars(item), "group": item.id[-1]}) for item in sound.items)
    found = findings(tmp_path, Scan(classes=CLASSES, items=items, labels=sound.labels))
    assert [(f.kind, f.what, f.examples) for f in found] == [
        ("group_in_two_splits", "samples of one group are in train and val and test", ["0", "1", "2"])
    ]


def test_instances_that_disagree_with_the_mask(tmp_path: Path, sound: Scan) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 1
    write_mask(tmp_path, "train0", mask)
    right, wrong = mask == 1, np.roll(mask == 1, 25, axis=1)
    first = Item(**{**vars(sound.items[0]), "extra": {"instances": [(1, right), (1, wrong), (2, right)]}})
    found = findings(tmp_path, Scan(classes=CLASSES, items=(first, *sound.items[1:]), labels=sound.labels))
    assert {(f.kind, f.what) for f in found} == {
        ("instance_mismatch", "instances of 'cat' lie mostly on pixels of other classes"),
        ("instance_mismatch", "instances of 'dog' lie mostly on pixels of other classes"),
    }


def test_audit_json_holds_every_finding_with_its_settling_line(tmp_path: Path, sound: Scan) -> None:
    constant(tmp_path)
    convert(tmp_path, tmp_path / "out", name="mine", scan=sound, load=load_pair)
    (row,) = json.loads((tmp_path / "out" / "audit.json").read_text())["findings"]
    assert row["kind"] == "constant_mask" and row["count"] == 1 and row["examples"] == ["train1.png"]
    assert row["settle"] == "datasets: {mine: {..., audit: {constant_mask: off}}}"


def test_every_kind_in_the_code_is_listed_and_every_listed_one_is_used() -> None:
    used = set()
    for path in (ROOT / "segpipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Fault":
                kinds = [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
                used |= {n.value for kind in kinds for n in ast.walk(kind) if isinstance(n, ast.Constant)}
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "audit.add" and isinstance(node.args[0], ast.Constant):
                used.add(node.args[0].value)
    assert used == set(KINDS)
