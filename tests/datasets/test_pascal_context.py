"""PASCAL-Context: .mat, index and colour masks in made-up folders of each layout, and the real colour-coded samples."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import pascal_context
from segpipe.datasets.blocks.voc import colour
from segpipe.shards import SPLITS, Split

IDS = {"aeroplane": 2, "bag": 9, "bedclothes": 19, "cat": 65, "person": 284, "sky": 360, "table": 397, "wood": 458}
"""Some of labels.txt, by its page; the 59 that stand here without an id of their own fill the rest of the made-up list."""
NAMES = ("a.b", "c", "d")


def label_names() -> dict[int, str]:
    names = {i: name for name, i in IDS.items()}
    others = iter(name for name in pascal_context.FREQUENT if name not in IDS)
    free = (i for i in range(1, 460) if i not in names)
    return dict(sorted({**names, **{i: next(others, f"thing{i}") for i in free}}.items()))


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)


def voc2010(folder: Path, *, lists: str = "Main") -> Path:
    """VOC 2010's tree with two photos in train and one in val."""
    for seed, name in enumerate(NAMES):
        photo(folder / "JPEGImages" / f"{name}.jpg", seed)
    (folder / "ImageSets" / lists).mkdir(parents=True)
    (folder / "ImageSets" / lists / "train.txt").write_text("\n".join(NAMES[:2]) + "\n")
    (folder / "ImageSets" / lists / "val.txt").write_text(f"{NAMES[2]}\n")
    return folder


def mat_masks(raw: Path, values: np.ndarray, *, inside: str = "", compressed: bool = True) -> None:
    folder = raw / inside / "trainval"
    folder.mkdir(parents=True)
    for name in NAMES:
        scipy.io.savemat(folder / f"{name}.mat", {"LabelMap": values}, do_compression=compressed)
    (raw / inside / "labels.txt").write_text("".join(f"{i}: {name}\n" for i, name in label_names().items()))


def png_masks(folder: Path, values: np.ndarray, *, palette: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        image = Image.fromarray(values.astype(np.uint8))
        if palette:
            image.putpalette([v for label in range(256) for v in colour(label)])
        image.save(folder / f"{name}.png")


def every(values: list[int]) -> np.ndarray:
    return np.resize(np.array(values, np.uint16), (20, 30))


def named(scan: pascal_context.Scan, labels: np.ndarray) -> set[str]:
    """The names that the labels of a mask mean."""
    return {
        "ignored" if (index := scan.labels[int(v)]) == scan.ignore_index else scan.classes[index].name for v in np.unique(labels)
    }


def test_the_59_in_both_orders() -> None:
    assert len(set(pascal_context.FREQUENT)) == 59
    official = pascal_context.ORDERS["official"]
    # 59_labels.txt: VOC's twenty, then the others in their order, which is nearly the alphabet's.
    assert {15: "person", 20: "tvmonitor", 21: "bag", 42: "curtain", 52: "bedclothes", 59: "wood"}.items() <= dict(
        enumerate(official, 1)
    ).items()
    alphabetical = pascal_context.ORDERS["alphabetical"]
    assert {1: "aeroplane", 2: "bag", 37: "person", 47: "sky", 59: "wood"}.items() <= dict(enumerate(alphabetical, 1)).items()


@pytest.mark.parametrize(("inside", "context"), [("VOCdevkit/VOC2010", ""), ("", "VOCdevkit/VOC2010"), ("VOC2010", "trainval")])
@pytest.mark.parametrize("compressed", [True, False])
def test_mat_masks_with_459_classes(tmp_path: Path, inside: str, context: str, compressed: bool) -> None:
    voc2010(tmp_path / inside if inside else tmp_path)
    values = every([*range(1, 460)])
    mat_masks(tmp_path, values, inside=context, compressed=compressed)
    scan = pascal_context.scan(tmp_path, classes=459)
    assert [(i.id, i.split) for i in scan.items] == [("a.b", "train"), ("c", "train"), ("d", "val")]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    assert len(scan.classes) == 459 and scan.classes[283].name == "person" and scan.ignore_index == 65535
    assert len({c.colour for c in scan.classes}) == 459
    assert scan.labels == {0: 65535, **{i: i - 1 for i in range(1, 460)}}
    raw = pascal_context.load(pickle.loads(pickle.dumps(scan.items[0])))
    assert (raw.labels == values).all() and raw.labels.dtype == np.uint16 and not raw.instances


@pytest.mark.parametrize("classes", [59, 60])
def test_mat_masks_become_the_frequent_classes_by_name(tmp_path: Path, classes: int) -> None:
    voc2010(tmp_path / "VOCdevkit" / "VOC2010")
    other = next(i for i, name in label_names().items() if name.startswith("thing"))
    mat_masks(tmp_path, every([0, other, *IDS.values()]))
    scan = pascal_context.scan(tmp_path, classes=classes)
    rest = "background" if classes == 60 else "ignored"
    assert [c.name for c in scan.classes] == [*["background"][: classes - 59], *pascal_context.FREQUENT]
    assert [c.name for c in scan.classes if c.thing] == list(pascal_context.FREQUENT[:20])
    meaning = {v: named(scan, np.array([v])) for v in scan.labels}
    assert meaning == {
        0: {rest},
        **{i: {name if name in pascal_context.FREQUENT else rest} for i, name in label_names().items()},
    }
    assert named(scan, pascal_context.load(scan.items[0]).labels) == {rest, *IDS}
    info, _ = convert(tmp_path, tmp_path / "out", name="pc", scan=scan, load=pascal_context.load, complete=False)
    mask = Split(tmp_path / "out", "train").arrays(0)[1]
    assert {info.class_names[v] for v in np.unique(mask) if v != 255} == {*IDS, *["background"][: classes - 59]}
    assert (mask == 255).any() == (classes == 59)


def test_459_classes_convert_to_16_bits(tmp_path: Path) -> None:
    voc2010(tmp_path / "raw")
    mat_masks(tmp_path / "raw", every([0, 1, 300, 459]))
    scan = pascal_context.scan(tmp_path / "raw", classes=459)
    convert(tmp_path / "raw", tmp_path / "out", name="pc", scan=scan, load=pascal_context.load, complete=False)
    mask = Split(tmp_path / "out", "val").arrays(0)[1]
    assert mask.dtype == np.uint16 and (mask == every([65535, 0, 299, 458])).all()


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize(
    ("folder", "lists", "options", "names"),
    [
        ("VOCdevkit/VOC2010/SegmentationClassContext", "SegmentationContext", {}, {"aeroplane", "bag", "bed", "person", "wood"}),
        ("59_context_labels", "Main", {}, {"aeroplane", "bicycle", "bird", "computer", "wood"}),
        ("mine", "Main", {"masks": "mine", "order": "official"}, {"aeroplane", "bicycle", "bird", "computer", "wood"}),
        ("mine", "Main", {"masks": "mine", "order": "alphabetical"}, {"aeroplane", "bag", "bed", "person", "wood"}),
    ],
)
def test_index_masks_in_either_order(tmp_path: Path, folder: str, lists: str, options: dict, names: set, palette: bool) -> None:
    voc2010(tmp_path / "VOCdevkit" / "VOC2010", lists=lists)
    values = every([0, 1, 2, 3, 59, 255, 37 if "person" in names else 29])
    png_masks(tmp_path / folder, values, palette=palette)
    for classes, rest in ((59, {"ignored"}), (60, {"ignored", "background"})):
        scan = pascal_context.scan(tmp_path, classes=classes, **options)
        assert [(i.id, i.split) for i in scan.items] == [("a.b", "train"), ("c", "train"), ("d", "val")]
        assert [c.name for c in scan.classes][classes - 59 :] == list(pascal_context.FREQUENT), "one order, whatever the masks have"
        raw = pascal_context.load(scan.items[0])
        assert (raw.labels == values).all() and not scan.colours
        assert named(scan, raw.labels) == names | rest
        assert scan.labels[255] == 255 and scan.ignore_index == 255


def test_an_unknown_order_is_not_guessed(tmp_path: Path) -> None:
    voc2010(tmp_path / "VOC2010")
    png_masks(tmp_path / "masks", every([0, 1, 2]))
    with pytest.raises(ValueError, match=r"masks: the masks' class order is not known.*Set `order` to official or alphabetical"):
        pascal_context.scan(tmp_path, masks="masks")


def colour_tree(raw: Path) -> np.ndarray:
    values = every([0, 1, 14, 15, 36, 50, 59, 255])
    raw.mkdir(parents=True, exist_ok=True)
    table = np.array([colour(label) for label in range(256)], np.uint8)
    for seed, name in enumerate(NAMES):
        photo(raw / f"{name}.jpg", seed)
        Image.fromarray(table[values]).save(raw / f"{name}.png")
    return values


@pytest.mark.parametrize("inside", ["", "Context", "examples/Context"])
def test_colour_masks_beside_the_photos(tmp_path: Path, inside: str) -> None:
    (tmp_path.parent / "train.txt").write_text("x\n")  # outside of raw: not this dataset's list
    values = colour_tree(tmp_path / inside)
    scan = pascal_context.scan(tmp_path, classes=60)
    assert [(i.id, i.split) for i in scan.items] == [("a.b", None), ("c", None), ("d", None)] and scan.colours
    raw = pascal_context.load(pickle.loads(pickle.dumps(scan.items[0])))
    assert named(scan, raw.labels) == {"background", "aeroplane", "motorbike", "person", "grass", "sky", "wood", "ignored"}
    assert (np.vectorize(scan.labels.__getitem__)(raw.labels) == values).all(), "index 0 is the background, 1 the first class"
    assert raw.labels.dtype == np.int32


def test_colour_masks_that_are_damaged_or_of_another_kind(tmp_path: Path) -> None:
    """A damaged first mask does not hide that the masks are colours; what does not fit is a finding that names the file."""
    colour_tree(tmp_path / "raw")
    (tmp_path / "raw" / "a.b.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.ones((20, 30), np.uint8)).save(tmp_path / "raw" / "d.png")
    scan = pascal_context.scan(tmp_path / "raw")
    assert scan.colours
    scan = replace(scan, items=tuple(replace(i, split=s) for i, s in zip(scan.items, SPLITS, strict=True)))
    with pytest.raises(ValueError) as caught:
        convert(tmp_path / "raw", tmp_path / "out", name="pc", scan=scan, load=pascal_context.load)
    message = str(caught.value)
    assert "a.b.jpg" in message and "d.jpg" in message and "c.jpg" not in message
    assert "the mask is no colour picture, though others are" in message


def test_photos_of_vocs_lists_without_a_mask_are_warned_of(tmp_path: Path) -> None:
    voc2010(tmp_path / "VOC2010")
    png_masks(tmp_path / "59_context_labels", every([1]))
    (tmp_path / "59_context_labels" / "c.png").unlink()
    scan = pascal_context.scan(tmp_path)
    assert [i.id for i in scan.items] == ["a.b", "d"]
    assert [(f.kind, f.example, f.severity) for f in scan.faults] == [("no_mask", "c.jpg", "warning")]


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"classes": 33}, None, "classes: 33; choices: 59, 60, 459"),
        ({"order": "random"}, None, "order: 'random'; choices: official, alphabetical"),
        ({"masks": "nowhere"}, None, "masks: 'nowhere', but there is no such folder"),
        ({}, ("labels.txt", None), r"labels.txt: missing. It names .*https://"),
        ({}, ("labels.txt", "person\n"), r"labels.txt, line 1: 'person'; should be a new number and a new name"),
        ({}, ("labels.txt", "1: a\n1: b\n"), r"labels.txt, line 2: '1: b'"),
        ({}, ("labels.txt", "1: a\n"), r"labels.txt: 1 labels, and without aeroplane, .*; should be 1 to 459"),
        ({}, ("VOC2010/JPEGImages/c.jpg", None), r"JPEGImages/c.jpg: missing, but named in .*Main/train.txt, line 2"),
    ],
)
def test_errors_name_file_value_and_fix(tmp_path: Path, options: dict, change: tuple[str, str | None] | None, words: str) -> None:
    voc2010(tmp_path / "VOC2010")
    mat_masks(tmp_path, every([1]))
    if change is not None:
        (tmp_path / change[0]).unlink()
        if change[1] is not None:
            (tmp_path / change[0]).write_text(change[1])
    with pytest.raises(ValueError, match=words):
        pascal_context.scan(tmp_path, **options)


def test_errors_of_other_layouts(tmp_path: Path) -> None:
    voc2010(tmp_path / "VOC2010", lists="SegmentationContext")
    png_masks(tmp_path / "VOC2010" / "SegmentationClassContext", every([1]))
    with pytest.raises(ValueError, match=r"SegmentationClassContext: masks of 59 classes; classes: 459 needs the .mat masks"):
        pascal_context.scan(tmp_path, classes=459)
    (tmp_path / "VOC2010" / "SegmentationClassContext" / "d.png").unlink()
    with pytest.raises(ValueError, match=r"SegmentationClassContext/d.png: missing, but named in .*val.txt, line 1"):
        pascal_context.scan(tmp_path)
    png_masks(tmp_path / "else" / "59_context_labels", every([1]))
    with pytest.raises(ValueError, match="holds no photos"):
        pascal_context.scan(tmp_path / "else")


def test_real_colour_masks(samples: Path, tmp_path: Path) -> None:
    """The photos show a motocross ride and a dog on a floor; the names of the colours must say so, pixel by pixel."""
    raw = samples / "pascal_context"
    scan = pascal_context.scan(raw, classes=60)
    assert [(i.id, i.split, i.source) for i in scan.items] == [
        ("2009_000637", None, "2009_000637.jpg"),
        ("2010_003321", None, "2010_003321.jpg"),
    ]
    expected = {
        "2009_000637": {"background": 20246, "grass": 43704, "sky": 69856, "motorbike": 32725, "ground": 16397, "person": 38072},
        "2010_003321": {"dog": 9560, "wall": 33379, "cloth": 15052, "floor": 87412, "table": 9170, "person": 18227},
    }
    scan = replace(scan, items=tuple(replace(i, split=s) for i, s in zip(scan.items, SPLITS, strict=False)))
    info, _ = convert(raw, tmp_path / "out", name="pc", scan=scan, load=pascal_context.load, complete=False)
    for item in scan.items:
        rows = Split(tmp_path / "out", item.split)
        mask = rows.arrays(0)[1]
        assert {info.class_names[v]: n for v, n in Counter(mask.ravel().tolist()).items()} == expected[item.id]
        source = np.asarray(Image.open(raw / f"{item.id}.png"))
        back = np.array([c.colour for c in info.classes], np.uint8)[mask]
        assert (back == source).all() and rows[0].image == (raw / f"{item.id}.jpg").read_bytes()
    without = pascal_context.scan(raw)
    ride = pascal_context.load(without.items[0]).labels
    assert named(without, ride) == {"ignored", "grass", "sky", "motorbike", "ground", "person"}
    assert (np.vectorize(without.labels.__getitem__)(ride) == 255).sum() == 20246
