"""DRIVE: vessels inside the field of view, both observers, GIF palettes, and the real photographs."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import drive
from segpipe.shards import Split

SIZE = (20, 18)


def make(folder: Path, part: str, number: int, *, observers: tuple[int, ...] = (1,)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    arrays = {"images": rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8), "mask": np.zeros(SIZE, np.uint8)}
    arrays["mask"][3:17, 2:16] = 255
    names = {"images": f"{number:02d}_{part}.tif", "mask": f"{number:02d}_{part}_mask.gif"}
    for observer in observers:
        kind = ("1st_manual", "2nd_manual")[observer - 1]
        arrays[kind] = ((rng.random(SIZE) < 0.3) * 255).astype(np.uint8)
        names[kind] = f"{number:02d}_manual{observer}.gif"
    for kind, name in names.items():
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays[kind]).save(folder / part / kind / name)
    return arrays


def composed(arrays: dict[str, np.ndarray], kind: str = "1st_manual") -> np.ndarray:
    return np.where(arrays["mask"] == 0, 256, arrays[kind].astype(int))


@pytest.mark.parametrize("inside", ["", "DRIVE", "datasets/DRIVE"])
def test_both_parts(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    training, test = make(folder, "training", 21), make(folder, "test", 1, observers=(1, 2))
    scan = drive.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("21_training", "train", "21_training"),
        ("01_test", "test", "01_test"),
    ]
    assert [c.name for c in scan.classes] == ["background", "vessel"] and scan.labels == {0: 0, 255: 1, 256: 255}
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items) and not scan.faults
    for item, arrays in zip(scan.items, (training, test), strict=True):
        raw = drive.load(item)
        assert raw.image == item.image.read_bytes(), "the TIFF stays as it is"
        assert (raw.labels == composed(arrays)).all() and not raw.faults
        assert set(np.unique(raw.labels)) == {0, 255, 256}


def test_the_second_observer_labels_the_test_part_only(tmp_path: Path) -> None:
    training, test = make(tmp_path, "training", 21), make(tmp_path, "test", 1, observers=(1, 2))
    items = drive.scan(tmp_path, observer=2).items
    assert (drive.load(items[0]).labels == composed(training)).all()
    assert (drive.load(items[1]).labels == composed(test, "2nd_manual")).all()
    assert not (test["1st_manual"] == test["2nd_manual"]).all()
    with pytest.raises(ValueError, match="observer: 3; must be 1 or 2"):
        drive.scan(tmp_path, observer=3)


def test_without_the_field_of_view_the_surround_is_background(tmp_path: Path) -> None:
    arrays = make(tmp_path, "training", 21)
    (tmp_path / "training" / "mask" / "21_training_mask.gif").unlink()
    raw = drive.load(drive.scan(tmp_path, field_of_view=False).items[0])
    assert (raw.labels == arrays["1st_manual"]).all()


def test_withheld_labels_are_no_items_and_no_fault(tmp_path: Path) -> None:
    make(tmp_path, "training", 21)
    make(tmp_path, "test", 1, observers=())
    scan = drive.scan(tmp_path)
    assert [i.id for i in scan.items] == ["21_training"] and not scan.faults


def test_lost_files_are_faults_that_name_them(tmp_path: Path) -> None:
    for number in (21, 22, 23):
        make(tmp_path, "training", number)
    (tmp_path / "training" / "1st_manual" / "21_manual1.gif").unlink()
    (tmp_path / "training" / "mask" / "23_training_mask.gif").unlink()
    scan = drive.scan(tmp_path)
    assert [i.id for i in scan.items] == ["22_training"]
    assert [(f.kind, f.example) for f in scan.faults] == [
        ("no_mask", "training/images/21_training.tif"),
        ("no_mask", "training/images/23_training.tif"),
    ]
    assert "training/1st_manual/21_manual1.gif" in scan.faults[0].fix
    assert "training/mask/23_training_mask.gif" in scan.faults[1].fix


@pytest.mark.parametrize("palette", ["black first", "white first"])
def test_a_palette_is_applied(tmp_path: Path, palette: str) -> None:
    """A GIF of two colours stores 0 and 1; which of them is white, only the palette says."""
    arrays = make(tmp_path, "training", 21)
    colours = [0, 0, 0, 255, 255, 255] if palette == "black first" else [255, 255, 255, 0, 0, 0]
    for kind, name in (("1st_manual", "21_manual1.gif"), ("mask", "21_training_mask.gif")):
        white = arrays[kind] == 255
        image = Image.fromarray((white if palette == "black first" else ~white).astype(np.uint8))
        image.putpalette(colours)
        path = tmp_path / "training" / kind / name
        image.save(path, optimize=False)
        with Image.open(path) as stored:
            assert stored.mode == "P" and set(np.unique(np.asarray(stored))) == {0, 1}, "no trap"
    assert (drive.load(drive.scan(tmp_path).items[0]).labels == composed(arrays)).all()


def test_copies_with_png_labels(tmp_path: Path) -> None:
    arrays = make(tmp_path, "training", 21)
    for kind, name in (("1st_manual", "21_manual1"), ("mask", "21_training_mask")):
        (tmp_path / "training" / kind / f"{name}.gif").unlink()
        Image.fromarray(arrays[kind]).save(tmp_path / "training" / kind / f"{name}.png")
    assert (drive.load(drive.scan(tmp_path).items[0]).labels == composed(arrays)).all()


def test_a_field_of_view_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "training", 21)
    path = tmp_path / "training" / "mask" / "21_training_mask.gif"
    for image, kind in ((Image.new("L", (18, 19)), "size_mismatch"), (Image.linear_gradient("L").resize((18, 20)), "smeared_mask")):
        image.save(path)
        faults = drive.load(drive.scan(tmp_path).items[0]).faults
        assert [(f.kind, f.severity) for f in faults] == [(kind, "error")]
        assert "training/images/21_training.tif" in faults[0].example


def test_smeared_labels_are_not_clipped(tmp_path: Path) -> None:
    make(tmp_path, "training", 21)
    Image.fromarray(np.full(SIZE, 100, np.uint8)).save(tmp_path / "training" / "1st_manual" / "21_manual1.gif")
    scan = drive.scan(tmp_path)
    assert set(np.unique(drive.load(scan.items[0]).labels)) - set(scan.labels) == {100}, "the audit names unknown values"


def test_real_photographs(samples: Path, tmp_path: Path) -> None:
    """All 7: the written mask against the three files, read with PIL; vessels are about a tenth of the field of view."""
    raw = samples / "drive"
    scan = drive.scan(raw)
    assert Counter(i.split for i in scan.items) == {"train": 7} and not scan.faults
    rules = {"test": {"from": "train", "fraction": 0.3}, "val": {"from": "train", "fraction": 0.3}}
    info, _ = convert(raw, tmp_path / "out", name="drive", scan=scan, load=drive.load, stand_ins=rules)
    assert sum(info.splits.values()) == 7 and info.provenance["reencoded"] == {"TIFF RGB": 7}
    checked = 0
    for split in ("train", "val", "test"):
        written = Split(tmp_path / "out", split)
        for i, name in enumerate(written.ids):
            number, folder = name[:2], raw / "DRIVE" / "training"
            files = (f"images/{name}.tif", f"1st_manual/{number}_manual1.gif", f"mask/{name}_mask.gif")
            images = []
            for file in files:
                with Image.open(folder / file) as image:
                    images.append(np.array(image))
            photograph, vessels, view = images
            pixels, mask = written.arrays(i)
            assert (pixels == photograph).all() and mask.shape == (584, 565)
            assert (mask == np.where(view == 255, vessels == 255, 255)).all()
            inside = mask[view == 255]
            assert 0.08 < (inside == 1).mean() < 0.17 and 0.6 < (view == 255).mean() < 0.8
            checked += 1
    assert checked == 7
