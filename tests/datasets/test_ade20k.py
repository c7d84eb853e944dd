"""ADE20K's scene parsing layout: on a made-up tree, with the challenge's instances, and on the development kit's samples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from segpipe.convert import convert
from segpipe.datasets import ade20k
from segpipe.shards import Split

NAMES = [f"thing {i}, other name {i}" for i in range(1, 151)]


def table(folder: Path, names: list[str] = NAMES) -> None:
    rows = [f"{i}\t0.1\t{i}\t{i}\t{name} " for i, name in enumerate(names, 1)]
    (folder / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")


def make(folder: Path, names: dict[str, list[str]]) -> Path:
    """The tree of ADEChallengeData2016, with `names` of images in each part."""
    folder.mkdir(parents=True, exist_ok=True)
    table(folder)
    for part, stems in names.items():
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        for number, stem in enumerate(stems):
            rng = np.random.default_rng([number, len(part)])
            pixels, labels = rng.integers(0, 256, (12, 16, 3), np.uint8), rng.integers(0, 151, (12, 16), np.uint8)
            labels[0, :3] = 0
            Image.fromarray(pixels).save(folder / "images" / part / f"{stem}.jpg")
            Image.fromarray(labels).save(folder / "annotations" / part / f"{stem}.png")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    parts = {"training": ["ADE_train_00000001", "ADE_train_00000002"], "validation": ["ADE_val_00000001"]}
    return make(tmp_path / "raw" / "ADEChallengeData2016", parts)


def test_layout(tree: Path) -> None:
    for raw in (tree, tree.parent, tree.parent.parent):
        found = ade20k.scan(raw)
        assert [(i.id, i.split, i.group) for i in found.items] == [
            ("ADE_train_00000001", "train", "ADE_train_00000001"),
            ("ADE_train_00000002", "train", "ADE_train_00000002"),
            ("ADE_val_00000001", "val", "ADE_val_00000001"),
        ]
        assert all((raw / item.source).samefile(item.image) for item in found.items)
        assert not found.faults
    assert [c.name for c in found.classes] == [f"thing {i}" for i in range(1, 151)], "the first name, without spaces"
    assert len({c.colour for c in found.classes}) == 150
    assert found.labels == {0: 255} | {i: i - 1 for i in range(1, 151)}


def test_labels_are_those_of_the_file(tree: Path) -> None:
    item = ade20k.scan(tree).items[1]
    raw = ade20k.load(item)
    rng = np.random.default_rng([1, len("training")])
    rng.integers(0, 256, (12, 16, 3), np.uint8)
    labels = rng.integers(0, 151, (12, 16), np.uint8)
    labels[0, :3] = 0
    assert (raw.labels == labels).all()
    assert raw.labels.dtype == np.uint8 and raw.image == item.image.read_bytes() and not raw.instances


def test_shards_hold_the_label_less_one(tree: Path, tmp_path: Path) -> None:
    rules = {"test": {"from": "train", "fraction": 0.5}}
    info, _ = convert(tree, tmp_path / "out", name="ade", scan=ade20k.scan(tree), load=ade20k.load, stand_ins=rules)
    assert info.splits == {"train": 1, "val": 1, "test": 1}
    for split, part in (("train", "training"), ("test", "training"), ("val", "validation")):
        rows = Split(tmp_path / "out", split)
        source = np.asarray(Image.open(tree / "annotations" / part / f"{rows[0].id}.png"))
        assert (rows.arrays(0)[1] == np.where(source == 0, 255, source.astype(int) - 1)).all() and (source == 0).any()


def test_colours_of_the_development_kit_are_taken_where_they_are(tree: Path) -> None:
    colours = np.random.default_rng(0).permutation(256 * 150)[: 150 * 3].reshape(150, 3) % 256
    (tree / "visualizationCode").mkdir()
    savemat(tree / "visualizationCode" / "color150.mat", {"colors": colours.astype(np.uint8)})
    assert [c.colour for c in ade20k.scan(tree).classes] == [tuple(row) for row in colours.tolist()]


def test_flat_folders_take_the_split_from_the_name(tmp_path: Path) -> None:
    make(tmp_path / "kit", {"": ["ADE_val_00000001", "ADE_train_00000002", "mine"]})
    assert {i.id: i.split for i in ade20k.scan(tmp_path).items} == {
        "ADE_val_00000001": "val",
        "ADE_train_00000002": "train",
        "mine": None,
    }


def test_instances_of_the_places_challenge(tree: Path) -> None:
    """Red 1 is the first class with instances, bed (label 8), and red 100 the last, flag (150)."""
    folder = tree / "annotations_instance" / "training"
    folder.mkdir(parents=True)
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[:3, :5] = (1, 1, 0)
    pixels[:3, 6:9] = (1, 2, 9)  # blue says nothing
    pixels[5:, :] = (100, 3, 0)
    Image.fromarray(pixels).save(folder / "ADE_train_00000001.png")
    first, second, _ = ade20k.scan(tree).items
    rows = ade20k.load(first).instances
    assert [(r["category"], r["iscrowd"]) for r in rows] == [(7, False), (7, False), (149, False)]
    expected = [np.s_[:3, :5], np.s_[:3, 6:9], np.s_[5:, :]]
    for row, where in zip(rows, expected, strict=True):
        mask = np.zeros((12, 16), bool)
        mask[where] = True
        assert (row["mask"] == mask).all()
    assert ade20k.load(second).instances == []
    classes = ade20k.scan(tree).classes
    assert sum(c.thing for c in classes) == 100 and classes[7].thing and not classes[0].thing


@pytest.mark.parametrize(("pixels", "words"), [((101, 1, 0), "red is 101"), (5, "is RGB")])
def test_a_wrong_instance_mask_is_named(tree: Path, pixels: int | tuple[int, ...], words: str) -> None:
    folder = tree / "annotations_instance" / "training"
    folder.mkdir(parents=True)
    wrong = np.full((12, 16) + np.shape(pixels), pixels, np.uint8)
    Image.fromarray(wrong).save(folder / "ADE_train_00000001.png")
    with pytest.raises(ValueError, match=rf"ADE_train_00000001\.png: .*{words}"):
        ade20k.load(ade20k.scan(tree).items[0])


def test_an_unpaired_file_is_a_fault_and_no_sample(tree: Path) -> None:
    (tree / "annotations" / "training" / "ADE_train_00000002.png").unlink()
    (tree / "images" / "validation" / "ADE_val_00000001.jpg").unlink()
    (tree / "images" / "training" / "._ADE_train_00000001.jpg").write_bytes(b"left by macOS")
    found = ade20k.scan(tree.parent)
    assert [i.id for i in found.items] == ["ADE_train_00000001"]
    assert [(f.kind, f.example, f.severity) for f in found.faults] == [
        ("no_mask", "ADEChallengeData2016/images/training/ADE_train_00000002.jpg", "error"),
        ("no_image", "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", "error"),
    ]
    assert "ADE_train" not in found.faults[0].what, "faults of one kind are joined"


def test_the_table_of_classes_is_needed_whole(tree: Path) -> None:
    table(tree, NAMES[:-1])
    with pytest.raises(ValueError, match=r"objectInfo150\.txt: names 149 classes, not 150"):
        ade20k.scan(tree)
    (tree / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t5\t5\twall\n3\t0.1\t5\t5\tsky\n")
    with pytest.raises(ValueError, match=r"objectInfo150\.txt, line 3: '3\\t0\.1.*sky'; should be 2, share"):
        ade20k.scan(tree)
    (tree / "objectInfo150.txt").unlink()
    with pytest.raises(ValueError, match=r"objectInfo150\.txt: missing"):
        ade20k.scan(tree)


def test_empty_folders_are_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match="no folder with images/ and annotations/"):
        ade20k.scan(tmp_path / "other")
    (tmp_path / "other" / "annotations").mkdir()
    with pytest.raises(ValueError, match="other: no .jpg or .png in images/"):
        ade20k.scan(tmp_path / "other")


def test_real_classes(samples: Path) -> None:
    classes = ade20k.scan(samples / "ade20k_sample").classes
    colours = loadmat(samples / "ade20k_sample" / "visualizationCode" / "color150.mat")["colors"]
    assert [c.colour for c in classes] == [tuple(row) for row in colours.tolist()]
    lines = (samples / "ade20k_sample" / "objectInfo150.txt").read_text().split("\n")[1:151]
    assert all(line.split("\t")[4].startswith(c.name) for line, c in zip(lines, classes, strict=True))
    known = {0: "wall", 12: "person", 44: "chest of drawers", 58: "screen door", 130: "screen", 149: "flag"}
    assert {index: classes[index].name for index in known} == known and len({c.name for c in classes}) == 150
    # The 100 names of instanceInfo100_val.txt, in the order of the instance masks' red channel: 1, 2, 3, 50, 99, 100.
    things = [c.name for c in classes if c.thing]
    assert [things[i - 1] for i in (1, 2, 3, 50, 99, 100)] == ["bed", "windowpane", "cabinet", "bus", "clock", "flag"]


def test_real_samples(samples: Path, tmp_path: Path) -> None:
    """All three annotated images: the shards' masks against the PNGs, where 0 is ignored and 1..150 are one less."""
    found = ade20k.scan(samples / "ade20k_sample")
    assert Counter(i.split for i in found.items) == {"val": 3} and not found.faults
    rules = {"train": {"from": "val", "fraction": 0.34}, "test": {"from": "val", "fraction": 0.34}}
    folder = samples / "ade20k_sample" / "sampleData"
    info, _ = convert(samples / "ade20k_sample", tmp_path / "out", name="ade", scan=found, load=ade20k.load, stand_ins=rules)
    assert sum(info.splits.values()) == 3
    seen = 0
    for split in info.splits:
        rows = Split(tmp_path / "out", split)
        for i in range(len(rows)):
            source = np.asarray(Image.open(folder / "annotations" / f"{rows[i].id}.png")).astype(int)
            image, mask = rows.arrays(i)
            assert ((mask == source - 1) | ((mask == 255) & (source == 0))).all()
            assert (np.asarray(Image.open(folder / "images" / f"{rows[i].id}.jpg")) == image).mean() > 0.99
            seen += 1
    assert seen == 3
