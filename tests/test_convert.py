"""Convert: nothing is lost or changed, any number of workers gives the same bytes, every fault is found and nothing is replaced."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.audit import AuditError
from segpipe.convert import convert
from segpipe.datasets import scenes
from segpipe.images import normal_image
from segpipe.layout import Item, Raw, Scan
from segpipe.relabel import relabel
from segpipe.shards import ClassInfo, Split, decode_image, decode_mask, read_info

SPLIT_SIZES = {"train": 20, "val": 3, "test": 4}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "raw"
    scenes.generate(folder, seed=0, size=[64, 72], images=SPLIT_SIZES)
    return folder


@pytest.fixture(scope="module")
def converted(raw: Path) -> Path:
    out = raw.parent / "converted"
    convert(raw, out, name="scenes", scan=scenes.scan(raw), load=scenes.load, workers=1)
    return out


def test_shards_equal_the_raw_files(raw: Path, converted: Path) -> None:
    for split, count in SPLIT_SIZES.items():
        rows = list(Split(converted, split))
        files = sorted((raw / split / "images").glob("*.png"))
        assert [row.id for row in rows] == [path.stem for path in files] and len(rows) == count
        for row, path in zip(rows, files, strict=True):
            assert row.image == path.read_bytes(), "an RGB PNG is kept byte for byte"
            mask = np.asarray(Image.open(raw / split / "masks" / path.name))
            assert (decode_mask(row.mask) == mask).all() and (row.height, row.width) == mask.shape
            assert (raw / row.source).samefile(path)


# numpy warns of pycocotools.mask.decode, which is called here only.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_instances_survive_as_run_lengths(raw: Path, converted: Path) -> None:
    for row in Split(converted, "train"):
        numbers = np.asarray(Image.open(raw / "train" / "instances" / f"{row.id}.png"))
        present = [n for n in np.unique(numbers) if n]
        assert len(row.instances) == len(present)
        for number, instance in zip(present, row.instances, strict=True):
            inside = coco_mask.decode({"size": [64, 72], "counts": instance["rle"].encode()}).astype(bool)
            assert (inside == (numbers == number)).all()
            y, x = np.nonzero(inside)
            assert instance["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert instance["area"] == inside.sum() and instance["category"] == decode_mask(row.mask)[inside][0]


def test_dataset_json_agrees_with_numpy(raw: Path, converted: Path) -> None:
    info = read_info(converted)
    train = Split(converted, "train")
    images, masks = zip(*(train.arrays(i) for i in range(len(train))), strict=True)
    pixels = np.stack(images).reshape(-1, 3) / 255
    assert info.mean == pytest.approx(pixels.mean(0), abs=1e-6) and info.std == pytest.approx(pixels.std(0), abs=1e-6)
    assert info.pixels["train"] == np.bincount(np.stack(masks).ravel(), minlength=6).tolist()
    assert info.splits == SPLIT_SIZES and info.class_names == [c.name for c in scenes.CLASSES]


def test_audit_and_previews_are_written(converted: Path) -> None:
    assert set(json.loads((converted / "audit.json").read_text())) == {"dataset", "findings"}
    for split in SPLIT_SIZES:
        with Image.open(converted / "preview" / f"{split}.png") as sheet:
            assert sheet.mode == "RGB" and sheet.width > 400


def test_any_number_of_workers_gives_the_same_bytes(raw: Path, converted: Path, tmp_path: Path) -> None:
    convert(raw, tmp_path / "two", name="scenes", scan=scenes.scan(raw), load=scenes.load, workers=2)
    files = {p.relative_to(converted): p.read_bytes() for p in converted.rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()}
    assert len(files) == 8


# --- faults ---------------------------------------------------------------------------------------------------------------

CLASSES = (ClassInfo(name="a", colour=(1, 2, 3)), ClassInfo(name="b", colour=(9, 9, 9)))


def load_pair(item: Item) -> Raw:
    assert item.mask is not None
    return Raw(image=item.image.read_bytes(), labels=np.asarray(Image.open(item.mask)))


def pairs(folder: Path, **splits: int) -> Scan:
    """`splits` images 8 x 6 with masks of 0 and 1, as files of a made-up layout."""
    items = []
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for i in range(count):
            image, mask = folder / f"{split}{i}.png", folder / f"{split}{i}-mask.png"
            Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).save(image)
            Image.fromarray(rng.integers(0, 2, (6, 8), np.uint8)).save(mask)
            items.append(Item(id=image.stem, split=split, image=image, mask=mask, group=f"g{i}", source=image.name))
    return Scan(classes=CLASSES, items=tuple(items), labels={0: 0, 1: 1, 255: 255})


def unknown_label(folder: Path) -> None:
    for name, count in (("train1", 3), ("val0", 1)):
        mask = np.zeros((6, 8), np.uint8)
        mask.flat[:count] = 37
        Image.fromarray(mask).save(folder / f"{name}-mask.png")


def other_size(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(folder / "train0-mask.png")


def cut_image(folder: Path) -> None:
    path = folder / "test0.png"
    path.write_bytes(path.read_bytes()[:-40])


def empty_mask(folder: Path) -> None:
    (folder / "train1-mask.png").write_bytes(b"")


def no_image(folder: Path) -> None:
    (folder / "train0.png").write_text("<html>please log in</html>")


def coloured_mask(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "val0-mask.png")


FAULTS: list[tuple[Callable[[Path], None], str, list[str]]] = [
    (unknown_label, "unknown_label", ["37", "train1.png (3 pixels)", "val0.png (1 pixels)", "Known values: 0, 1, 255"]),
    (other_size, "size_mismatch", ["(6, 8)", "(6, 7)", "train0.png"]),
    (cut_image, "unreadable", ["test0.png", "Fetch it again"]),
    (empty_mask, "unreadable", ["train1-mask.png is empty, 0 bytes"]),
    (no_image, "unreadable", ["train0.png", "no image file"]),
    (coloured_mask, "colour_mask", ["val0.png", "3 channels"]),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_each_fault_is_an_error_with_file_and_value(tmp_path: Path, spoil: Any, kind: str, words: list[str]) -> None:
    scan = pairs(tmp_path, train=3, val=2, test=2)
    spoil(tmp_path)
    with pytest.raises(AuditError) as caught:
        convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)
    assert [f.kind for f in caught.value.findings] == [kind]
    for word in ["mine", *words]:
        assert word in str(caught.value)


def test_all_faults_are_reported_at_once_and_the_old_output_stays(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=3, val=2, test=2)
    convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)
    before = (tmp_path / "out" / "dataset.json").read_bytes()
    for spoil in (unknown_label, other_size, cut_image):
        spoil(tmp_path)
    with pytest.raises(AuditError) as caught:
        convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair, workers=2)
    assert {f.kind for f in caught.value.findings} == {"unknown_label", "size_mismatch", "unreadable"}
    assert (tmp_path / "out" / "dataset.json").read_bytes() == before
    assert not list(tmp_path.glob(".out*")), "the temporary folder is gone"


def test_a_split_whose_samples_are_all_left_out_is_an_error(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=2, val=1, test=1)
    (tmp_path / "val0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine: of .*'val': 0.* every split needs one.*val0.png is empty"):
        convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair, severities={"unreadable": "warning"})
    assert not (tmp_path / "out").exists()


def test_duplicate_ids(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=2, val=1, test=1)
    first = scan.items[0]
    twin = Item(id=first.id, split="test", image=first.image, mask=first.mask, group="g", source="elsewhere.png")
    scan = Scan(classes=CLASSES, items=(*scan.items, twin), labels=scan.labels)
    with pytest.raises(AuditError, match=r"'train0' is taken twice: train0.png and elsewhere.png"):
        convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)


def test_an_absent_class_is_a_warning(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=2, val=1, test=1)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "val0-mask.png")
    _, audit = convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)
    absent = [f for f in audit.findings if f.kind == "absent_class"]
    assert [(f.severity, f.what, f.examples) for f in absent] == [("warning", "classes without a pixel in val", ["b"])]


def test_the_mean_leaves_other_splits_and_ignored_labels_out(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=1, val=1, test=1)
    Image.fromarray(np.full((6, 8, 3), (255, 51, 0), np.uint8)).save(tmp_path / "train0.png")
    mask = np.full((6, 8), 255, np.uint8)
    mask[0, :3] = 1
    Image.fromarray(mask).save(tmp_path / "train0-mask.png")
    info, _ = convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)
    assert info.mean == (1.0, 0.2, 0.0) and info.pixels["train"] == [0, 3]


# --- labels and images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_relabel_is_a_table(dtype: type) -> None:
    source = np.array([[0, 7, 11], [200, 7, 0]], dtype)
    mask, unknown = relabel(source, {0: 2, 7: 0, 11: 255}, ignore_index=255)
    assert mask.tolist() == [[2, 0, 255], [255, 0, 2]] and mask.dtype == np.uint8 and unknown == {200: 1}


def test_relabel_above_254_classes() -> None:
    source = np.array([[0, 300, 9]], np.uint16)
    mask, unknown = relabel(source, {0: 65535, 300: 299, 9: 8}, ignore_index=65535)
    assert mask.tolist() == [[65535, 299, 8]] and mask.dtype == np.uint16 and not unknown


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
RGB = np.stack([GREY, GREY * 2, 255 - GREY], -1)


@pytest.mark.parametrize(
    ("data", "note", "pixels"),
    [
        (encoded(Image.fromarray(RGB), "PNG"), None, RGB),
        (encoded(Image.fromarray(GREY), "PNG"), "PNG L", np.stack([GREY] * 3, -1)),
        (encoded(Image.fromarray(np.dstack([RGB, GREY])), "PNG"), "PNG RGBA", RGB),
        (encoded(Image.fromarray(RGB).quantize(48), "PNG"), "PNG P", RGB),
        (encoded(Image.fromarray(GREY.astype(np.uint16) * 16), "PNG"), "PNG I;16", np.stack([GREY * 4 // 1] * 3, -1)),
        (encoded(Image.fromarray(RGB), "TIFF"), "TIFF RGB", RGB),
        (encoded(Image.fromarray(RGB), "BMP"), "BMP RGB", RGB),
    ],
    ids=["rgb", "grey", "alpha", "palette", "sixteen", "tiff", "bmp"],
)
def test_unusual_images_become_rgb_png(data: bytes, note: str | None, pixels: np.ndarray) -> None:
    out, said = normal_image(data, mask_size=(6, 8))
    assert said == note and (out == data) == (note is None)
    assert np.abs(decode_image(out).astype(int) - pixels).max() <= (2 if note == "PNG P" else 0)


def test_jpeg_is_kept_and_an_orientation_is_applied_where_it_fits() -> None:
    plain = encoded(Image.fromarray(RGB), "JPEG", quality=95)
    assert normal_image(plain, mask_size=(6, 8)) == (plain, None)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(RGB), "JPEG", quality=95, exif=exif)
    for size in ((8, 6), (6, 8)):
        out, note = normal_image(turned, mask_size=size)
        assert decode_image(out).shape[:2] == size and note == "orientation 6"


def test_reencoded_images_are_counted(tmp_path: Path) -> None:
    scan = pairs(tmp_path, train=3, val=1, test=1)
    for shade, name in enumerate(("train0", "test0")):
        Image.fromarray(GREY + shade).save(tmp_path / f"{name}.png")
    info, _ = convert(tmp_path, tmp_path / "out", name="mine", scan=scan, load=load_pair)
    assert info.provenance["reencoded"] == {"PNG L": 2}
