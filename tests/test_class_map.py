"""Class maps: merge, rename, drop and keep classes, and give label values a meaning, for any source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.class_map import apply
from segpipe.layout import Item, Scan
from segpipe.relabel import relabel
from segpipe.shards import ClassInfo

NAMES = ("sky", "road", "car", "bus", "person")
CLASSES = tuple(ClassInfo(name=n, colour=(i, 2 * i, 3 * i), thing=i >= 2) for i, n in enumerate(NAMES))
ITEM = Item(id="a", split="train", image=Path("a"), mask=None, group="a", source="a")
SCAN = Scan(classes=CLASSES, items=(ITEM,), labels={10 + i: i for i in range(5)} | {99: 255})
SOURCE = np.array([[10, 11, 12, 13, 14, 99]], np.uint8)


def mapped(rules: dict[str, Any], source: np.ndarray = SOURCE) -> tuple[list[str], list[int], tuple[int | None, ...]]:
    scan, categories = apply(SCAN, rules, where="datasets.mine.class_map")
    mask, unknown = relabel(source, scan.labels, ignore_index=scan.ignore_index)
    assert not unknown
    return [c.name for c in scan.classes], mask.ravel().tolist(), categories


def test_no_rules_change_nothing() -> None:
    assert apply(SCAN, {}, where="x") == (SCAN, (0, 1, 2, 3, 4))


def test_merged_classes_stand_where_the_first_stood() -> None:
    names, mask, categories = mapped({"merge": {"vehicle": ["car", "bus"]}})
    assert names == ["sky", "road", "vehicle", "person"]
    assert mask == [0, 1, 2, 2, 3, 255] and categories == (0, 1, 2, 2, 3)
    scan, _ = apply(SCAN, {"merge": {"vehicle": ["car", "bus"], "rest": ["road", "person"]}}, where="x")
    assert scan.classes[2].colour == CLASSES[2].colour and scan.classes[2].thing and not scan.classes[1].thing


def test_renaming_into_an_existing_class_merges() -> None:
    assert mapped({"rename": {"bus": "car"}}) == (["sky", "road", "car", "person"], [0, 1, 2, 2, 3, 255], (0, 1, 2, 2, 3))


def test_dropped_classes_are_ignored() -> None:
    assert mapped({"drop": ["sky", "bus"]}) == (["road", "car", "person"], [255, 0, 1, 255, 2, 255], (None, 0, 1, None, 2))


def test_keep_drops_the_rest_after_merging() -> None:
    names, mask, _ = mapped({"merge": {"vehicle": ["car", "bus"]}, "keep": ["road", "vehicle"]})
    assert names == ["road", "vehicle"] and mask == [255, 0, 1, 1, 255, 255]


def test_values_get_a_meaning() -> None:
    source = np.array([[7, 8, 10]], np.uint8)
    assert mapped({"values": {7: "road", 8: "ignore"}}, source)[1] == [1, 255, 0]
    scan, _ = apply(SCAN, {"values": {"#ff0001": "car"}}, where="x")
    assert scan.labels[0xFF0001] == 2


def test_a_table_of_many_classes_shrinks_to_eight_bits() -> None:
    many = tuple(ClassInfo(name=f"c{i}", colour=(0, 0, 0)) for i in range(300))
    wide = Scan(classes=many, items=(ITEM,), labels={i: i for i in range(300)} | {65535: 65535}, ignore_index=65535)
    scan, _ = apply(wide, {"keep": ["c299", "c7"]}, where="x")
    assert scan.ignore_index == 255 and scan.labels[65535] == 255 and scan.labels[299] == 1 and scan.labels[7] == 0
    assert apply(wide, {"drop": ["c0"]}, where="x")[0].ignore_index == 65535


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"merg": {}}, r"class_map\.merg: unknown key\. Did you mean 'merge'"),
        ({"merge": {"v": ["cra"]}}, "no class 'cra'. Did you mean 'car'"),
        ({"merge": {"v": "car"}}, r"class_map\.merge\.v: 'car'; write the list"),
        ({"merge": {"v": ["car"], "w": ["car"]}}, "'car' is merged or renamed twice"),
        ({"drop": "sky"}, r"class_map\.drop: 'sky'; write a list"),
        ({"drop": list(NAMES)}, "no class is left"),
        ({"keep": ["cars"]}, "no class 'cars'"),
        ({"values": {7: "raod"}}, "no class 'raod'. Did you mean 'road'"),
        ({"values": {"seven": "road"}}, 'a label value is a whole number, or "#rrggbb"'),
    ],
)
def test_wrong_rules_name_the_key_and_the_choices(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"datasets.mine.class_map.*{message}|{message}"):
        apply(SCAN, rules, where="datasets.mine.class_map")
