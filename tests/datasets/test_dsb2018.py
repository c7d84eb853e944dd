"""DSB 2018: one PNG per nucleus becomes a mask and instances, with every way in which such a PNG can be wrong; the real nuclei."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.convert import convert
from segpipe.datasets import dsb2018
from segpipe.shards import Split

SIZE = (12, 16)
OVERLAPPING = "547ef286ee5f4e5dce533e982e6992ada67b7d727fdd3cfa6576f24c631a7ae6"


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    inside = np.zeros(SIZE, bool)
    inside[top:bottom, left:right] = True
    return inside


def make(folder: Path, name: str, nuclei: list[np.ndarray] | None) -> Path:
    """One image's folder in the official layout; without `nuclei` it has no masks, as in the test part."""
    here = folder / name
    (here / "images").mkdir(parents=True)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*SIZE, 4)).astype(np.uint8)
    Image.fromarray(pixels).save(here / "images" / f"{name}.png")
    for number, inside in enumerate(nuclei or []):
        (here / "masks").mkdir(exist_ok=True)
        Image.fromarray(inside.astype(np.uint8) * 255).save(here / "masks" / f"{number:03d}.png")
    return here


def write_solution(folder: Path, rows: list[tuple[str, str, int, int]]) -> None:
    with open(folder / "stage1_solution.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "EncodedPixels", "Height", "Width", "Usage"])
        table.writerows([*row, "Private"] for row in rows)


def runs(inside: np.ndarray) -> str:
    """Kaggle's run lengths, written pixel by pixel: down the columns, from 1."""
    numbers = [column * inside.shape[0] + line + 1 for column in range(inside.shape[1]) for line in range(inside.shape[0])]
    return " ".join(f"{n} 1" for n in numbers if inside.ravel(order="F")[n - 1])


def kinds(raw: dsb2018.Raw) -> list[tuple[str, str]]:
    return [(fault.kind, fault.severity) for fault in raw.faults]


@pytest.mark.parametrize("inside", ["", "stage1_train", "dsb2018/stage1_train"])
def test_nuclei_become_a_mask_and_instances(tmp_path: Path, inside: str) -> None:
    nuclei = [box(0, 0, 3, 3), box(5, 5, 12, 9), box(2, 12, 4, 16)]
    folder = make(tmp_path / inside, "b" * 8, nuclei)
    make(tmp_path / inside, "a" * 8, [box(1, 1, 2, 2)])
    scan = dsb2018.scan(tmp_path)
    assert [(i.id, i.group, i.split) for i in scan.items] == [("a" * 8, "a" * 8, None), ("b" * 8, "b" * 8, None)]
    assert [(c.name, c.thing) for c in scan.classes] == [("background", False), ("nucleus", True)] and not scan.faults
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    raw = dsb2018.load(scan.items[1])
    assert raw.image == (folder / "images" / f"{'b' * 8}.png").read_bytes(), "RGBA stays as it is"
    assert (raw.labels == np.any(nuclei, axis=0)).all() and raw.labels.dtype == np.uint8
    assert [row["category"] for row in raw.instances] == [1, 1, 1]
    for row, nucleus in zip(raw.instances, nuclei, strict=True):
        assert row["rle"] == coco_mask.encode(np.asfortranarray(nucleus, np.uint8))
    assert not raw.faults


def test_overlapping_nuclei_keep_their_pixels_and_are_counted(tmp_path: Path) -> None:
    nuclei = [box(0, 0, 4, 4), box(3, 3, 8, 8), box(3, 3, 4, 5)]
    make(tmp_path, "x", nuclei)
    raw = dsb2018.load(dsb2018.scan(tmp_path).items[0])
    assert [int(coco_mask.area(row["rle"])) for row in raw.instances] == [16, 25, 2]
    assert (raw.labels == np.any(nuclei, axis=0)).all()
    assert kinds(raw) == [("overlap", "warning")] and raw.faults[0].example == "x/images/x.png (2 pixels)"


def test_an_empty_mask_is_left_out_with_a_warning(tmp_path: Path) -> None:
    make(tmp_path, "x", [box(0, 0, 0, 0), box(1, 1, 3, 3)])
    raw = dsb2018.load(dsb2018.scan(tmp_path).items[0])
    assert kinds(raw) == [("empty_instance", "warning")] and raw.faults[0].example == "x/masks/000.png"
    assert len(raw.instances) == 1 and raw.labels.sum() == 4


def test_masks_that_cannot_be_used_are_errors_that_name_the_file(tmp_path: Path) -> None:
    folder = make(tmp_path, "x", [box(1, 1, 3, 3)] * 5) / "masks"
    Image.new("L", (20, 12)).save(folder / "001.png")
    (folder / "002.png").write_bytes((folder / "003.png").read_bytes()[:40])
    Image.fromarray(np.arange(12 * 16, dtype=np.uint8).reshape(SIZE)).save(folder / "003.png")
    Image.new("RGB", (16, 12)).save(folder / "004.png")
    raw = dsb2018.load(dsb2018.scan(tmp_path).items[0])
    assert [(f.kind, f.example, f.severity) for f in raw.faults] == [
        ("size_mismatch", "x/masks/001.png", "error"),
        ("bad_annotation", "x/masks/002.png", "error"),
        ("bad_annotation", "x/masks/003.png", "error"),
        ("bad_annotation", "x/masks/004.png", "error"),
    ]
    assert "(12, 20), its image has (12, 16)" in raw.faults[0].what and "3 channels" in raw.faults[3].what
    assert not any(".png" in fault.what for fault in raw.faults), "else equal faults would not be joined"


@pytest.mark.parametrize("mode", ["1", "P"])
def test_masks_of_1_bit_or_with_a_palette(tmp_path: Path, mode: str) -> None:
    folder = make(tmp_path, "x", [box(1, 1, 3, 4)])
    image = Image.fromarray(box(1, 1, 3, 4).astype(np.uint8) * (255 if mode == "1" else 1)).convert("1" if mode == "1" else "L")
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(folder / "masks" / "000.png")
    assert (dsb2018.load(dsb2018.scan(tmp_path).items[0]).labels == box(1, 1, 3, 4)).all()


def test_a_thousand_nuclei(tmp_path: Path) -> None:
    """As run lengths, so that no image needs a thousand arrays of its own size."""
    folder = make(tmp_path, "x", [box(0, 0, 1, 1)])
    one = (folder / "masks" / "000.png").read_bytes()
    for number in range(1, 1200):
        (folder / "masks" / f"{number:04d}.png").write_bytes(one)
    raw = dsb2018.load(dsb2018.scan(tmp_path).items[0])
    assert len(raw.instances) == 1200 and raw.labels.sum() == 1
    assert not any("mask" in row for row in raw.instances)


def test_an_image_without_masks_and_masks_without_an_image_are_faults(tmp_path: Path) -> None:
    make(tmp_path / "stage1_train", "a", [box(0, 0, 1, 1)])
    make(tmp_path / "stage1_train", "b", None)
    (make(tmp_path / "stage1_train", "c", [box(0, 0, 1, 1)]) / "images" / "c.png").unlink()
    make(tmp_path / "stage1_test", "d", None)
    scan = dsb2018.scan(tmp_path)
    assert [i.id for i in scan.items] == ["a"]
    assert [(f.kind, f.example) for f in scan.faults] == [("no_mask", "stage1_train/b"), ("no_image", "stage1_train/c")]


def test_leftovers_of_macos_are_no_samples(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", [box(0, 0, 1, 1)])
    (folder / "masks" / "._000.png").write_bytes(b"\0\5\x16\7")
    make(tmp_path / "__MACOSX", "a", None)
    scan = dsb2018.scan(tmp_path)
    assert [i.id for i in scan.items] == ["a"] and not scan.faults
    assert len(dsb2018.load(scan.items[0]).instances) == 1


def test_run_lengths_of_the_solution_are_the_test_split_on_demand(tmp_path: Path) -> None:
    make(tmp_path / "stage1_train", "a", [box(0, 0, 1, 1)])
    make(tmp_path / "stage1_test", "d", None)
    nuclei = [box(2, 3, 7, 5), box(6, 4, 12, 16)]
    write_solution(tmp_path, [("d", runs(nucleus), *SIZE) for nucleus in nuclei])
    assert [(i.id, i.split) for i in dsb2018.scan(tmp_path).items] == [("a", None)]
    scan = dsb2018.scan(tmp_path, stage1_test=True)
    assert [(i.id, i.split) for i in scan.items] == [("a", "train"), ("d", "test")] and not scan.faults
    raw = dsb2018.load(scan.items[1])
    assert (raw.labels == np.any(nuclei, axis=0)).all()
    assert [row["rle"] for row in raw.instances] == [coco_mask.encode(np.asfortranarray(n, np.uint8)) for n in nuclei]
    assert kinds(raw) == [("overlap", "warning")] and "(1 pixels)" in raw.faults[0].example


@pytest.mark.parametrize("text", ["190 9", "0 2", "1 2 3", "5 0", f"1 {10**30}"])
def test_run_lengths_that_do_not_fit_are_errors(tmp_path: Path, text: str) -> None:
    make(tmp_path, "a", [box(0, 0, 1, 1)])
    make(tmp_path, "d", None)
    write_solution(tmp_path, [("d", "1 2", *SIZE), ("d", text, *SIZE)])
    raw = dsb2018.load(dsb2018.scan(tmp_path, stage1_test=True).items[1])
    assert [(f.kind, f.example) for f in raw.faults] == [("bad_annotation", "d/images/d.png (stage1_solution.csv, line 3)")]


def test_run_lengths_of_an_image_of_another_size(tmp_path: Path) -> None:
    """Also one so large that drawing it would take all memory."""
    make(tmp_path, "d", None)
    write_solution(tmp_path, [("d", "1 2", 16, 12), ("d", "1 2", 10**9, 10**9), ("d", "", *SIZE)])
    raw = dsb2018.load(dsb2018.scan(tmp_path, stage1_test=True).items[0])
    assert kinds(raw) == [("bad_annotation", "error"), ("bad_annotation", "error"), ("empty_instance", "warning")]
    assert "an image of (16, 12), its image has (12, 16)" in raw.faults[0].what


def test_a_wrong_solution_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a", [box(0, 0, 1, 1)])
    with pytest.raises(ValueError, match=r"stage1_solution.csv: missing, but stage1_test needs it"):
        dsb2018.scan(tmp_path, stage1_test=True)
    write_solution(tmp_path, [("gone", "1 2", *SIZE)])
    assert [(f.kind, f.example) for f in dsb2018.scan(tmp_path, stage1_test=True).faults] == [("unknown_image", "gone")]
    write_solution(tmp_path, [("d", "1 2", *SIZE), ("d", "1 two", *SIZE)])
    with pytest.raises(ValueError, match=r"stage1_solution.csv, line 3: .*whole numbers"):
        dsb2018.scan(tmp_path)
    (tmp_path / "stage1_solution.csv").write_text("id,cancer\n")
    with pytest.raises(ValueError, match=r"stage1_solution.csv: lacks the columns EncodedPixels, Height, ImageId, Width"):
        dsb2018.scan(tmp_path)


def test_real_nuclei_are_those_of_the_files(samples: Path, tmp_path: Path) -> None:
    """All 41 images: the written mask is the union of the PNGs, and each instance is one PNG, decoded with PIL alone."""
    raw = samples / "dsb2018"
    rule = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
    scan = dsb2018.scan(raw)
    assert len(scan.items) == 41 and not scan.faults
    info, audit = convert(raw, tmp_path / "out", name="dsb", scan=scan, load=dsb2018.load, splits=rule)
    found = [f for f in audit.findings if f.kind == "overlap"]
    assert [(f.count, f.examples) for f in found] == [(1, [f"stage1_train/{OVERLAPPING}/images/{OVERLAPPING}.png (2 pixels)"])]
    assert sum(info.splits.values()) == 41 and info.provenance["reencoded"] == {"PNG RGBA": 41}
    nuclei = 0
    for split in ("train", "val", "test"):
        written = Split(tmp_path / "out", split)
        for i, name in enumerate(written.ids):
            folder = raw / "stage1_train" / name
            truth = []
            for path in sorted((folder / "masks").iterdir()):
                with Image.open(path) as image:
                    truth.append(np.array(image) == 255)
            pixels, mask = written.arrays(i)
            assert (mask == np.any(truth, axis=0)).all()
            with Image.open(folder / "images" / f"{name}.png") as image:
                assert (pixels == np.array(image)[..., :3]).all()
            rows = written[i].instances
            assert len(rows) == len(truth)
            for row, nucleus in zip(rows, truth, strict=True):
                assert (row["category"], row["area"], row["iscrowd"]) == (1, nucleus.sum(), False)
                assert row["rle"].encode() == coco_mask.encode(np.asfortranarray(nucleus, np.uint8))["counts"]
                lines, columns = np.nonzero(nucleus)
                left, top = columns.min(), lines.min()
                assert row["bbox"] == [left, top, columns.max() - left + 1, lines.max() - top + 1]
            nuclei += len(rows)
    assert nuclei == 1879
