"""The class table that a user writes: every form gives the same classes, and what is wrong is named with its place."""

from pathlib import Path
from typing import Any

import pytest

from segpipe.datasets.blocks import class_table
from segpipe.datasets.blocks.colours import key

RED, BLACK = key(255, 0, 0), 0


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ("[soil, crop]", ["soil", "crop"], {0: 0, 1: 1}),
        ("- soil\n- crop\n", ["soil", "crop"], {0: 0, 1: 1}),
        ("{classes: [soil, crop], ignore: 255}", ["soil", "crop"], {0: 0, 1: 1, 255: 255}),
        ("crop: 7\nsoil: 1\nignore: [0, 255]\n", ["soil", "crop"], {1: 0, 7: 1, 0: 255, 255: 255}),
        ("{1: soil, 255: crop}", ["soil", "crop"], {1: 0, 255: 1}),
        ('crop: [255, 0, 0]\nsoil: "#000000"\nignore: [1, 2, 3]\n', ["crop", "soil"], {RED: 0, BLACK: 1, key(1, 2, 3): 255}),
        ('{classes: {crop: "#FF0000"}, ignore: ["#000000", [0, 0, 9]]}', ["crop"], {RED: 0, BLACK: 255, 9: 255}),
    ],
)
def test_forms_in_yaml(tmp_path: Path, text: str, names: list[str], labels: dict[int, int]) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    table = class_table.read(tmp_path / "classes.yaml")
    assert list(table.names) == names and table.labels == labels
    if table.colour_coded:
        assert table.classes[0].colour == (255, 0, 0), "a class is shown in the colour of its label"
    assert len({c.colour for c in table.classes}) == len(names)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_colors.txt", "0 0 0\t\tVoid\n255 0 0\tLane Mark\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nVoid:0,0,0::\nLane Mark:255,0,0::\n"),
        ("class_dict.csv", "name,r,g,b\nVoid,0,0,0\nLane Mark,255,0,0\n"),
        ("class_dict.csv", "\ufeffname, r, g, b\r\nVoid, 0, 0, 0\r\nLane Mark, 255, 0, 0\r\n"),
    ],
)
def test_colours_in_text_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, newline="")
    found = class_table.find(tmp_path)
    assert found == tmp_path / name
    table = class_table.read(found)
    assert table.names == ("Void", "Lane Mark") and table.values == (BLACK, RED) and table.colour_coded


def test_names_in_text_files_and_the_nearest_table_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "codes.txt").write_text("far\n")
    assert class_table.find(tmp_path) == tmp_path / "a" / "b" / "codes.txt"
    (tmp_path / "a" / "classes.txt").write_text("sky: blue\nroad\n\n")
    found = class_table.find(tmp_path)
    assert found == tmp_path / "a" / "classes.txt"
    table = class_table.read(found)
    assert table.names == ("sky: blue", "road") and table.labels == {0: 0, 1: 1} and table.positional


def test_many_classes_move_the_ignored_index() -> None:
    few = class_table.parse({"classes": [f"c{i}" for i in range(254)], "ignore": 999}, where="x")
    many = class_table.parse({"classes": [f"c{i}" for i in range(255)], "ignore": 999}, where="x")
    assert (few.ignore_index, few.labels[999]) == (255, 255) and (many.ignore_index, many.labels[999]) == (65535, 65535)
    assert many.labels[254] == 254


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"T: \[\]; write a list of names"),
        ("soil", "T: 'soil'; write a list of names"),
        (["soil", True], "T: the class name True is no text. Put it in quotes: 'True'"),
        (["soil", "soil"], "T: soil is there twice"),
        ({"soil": 1, "crop": 1}, "T: 1 is the value of two classes; merge them with `class_map`"),
        ({"soil": [1, 2, 3], "crop": "#010203"}, r"T: \[1, 2, 3\] is the value of two classes"),
        ({"soil": 1, "crop": [1, 2, 3]}, "T: some classes have a label value and some a colour"),
        ({"soil": "red"}, "T, soil: 'red' is no colour; write"),
        ({"soil": [1, 2, 300]}, r"T, soil: \[1, 2, 300\] is no colour"),
        ({"soil": 1.5}, "T, soil: 1.5 is no label value"),
        ({"soil": None}, "T, soil: None is no label value"),
        ({"soil": 1, "ignore": 1}, "T, ignore: 1 is the class 'soil' already"),
        ({"classes": ["soil"], "ignored": 255}, "T: 'ignored' beside `classes`; only `ignore` may stand there"),
        ({"classes": ["soil"], "ignore": "#000000"}, "T, ignore: '#000000' is no label value"),
    ],
)
def test_what_is_wrong_is_named(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_table.parse(document, where="T")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.yaml", "a: [", "classes.yaml: not valid YAML"),
        ("classes.txt", "soil\n\ncrop\n", "classes.txt, line 2: empty"),
        ("classes.txt", "\n", "classes.txt: empty"),
        ("label_colors.txt", "0 0 0 Void\nSky\n", "label_colors.txt, line 2: not like the first line"),
        ("label_colors.txt", "0 0 0 Void\n0 0 1 Void\n", "label_colors.txt: Void is there twice"),
        ("label_colors.txt", "0 0 0 Void\n0 0 999 Sky\n", r"label_colors.txt, Sky: \[0, 0, 999\] is no colour"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        class_table.read(tmp_path / name)
