"""Open Images: its CSVs, masks and images in small, in the folders of the archives and of FiftyOne. There is no real sample."""

import csv
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import open_images
from segpipe.items import decode_instance
from segpipe.layout import Raw
from segpipe.shards import Split

HEIGHT, WIDTH = 30, 40
PERSON, CAR, DOG = "/m/01g317", "/m/0k4j", "/m/0bt9lr"
HEADER = ["MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax", "PredictedIoU", "Clicks"]


def box(top: int, left: int, bottom: int, right: int, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


class Maker:
    """Writes a source in the layout of the archives below `folder`."""

    def __init__(self, folder: Path, *, images: str = "{split}", masks: str = "{split}-masks-{digit}") -> None:
        self.folder, self.images, self.masks = folder, images, masks
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "class-descriptions-boxable.csv").write_text(f"{CAR},Car\n{DOG},Dog\n{PERSON},Person\n/m/011k07,Tortoise\n")

    def table(
        self, split: str, rows: Sequence[Sequence[str]], *, name: str = "{split}-annotations-object-segmentation.csv"
    ) -> None:
        path = self.folder / name.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])

    def add(self, split: str, image: str, *masks: tuple[str, np.ndarray]) -> list[list[str]]:
        """An image with masks (class, bool or uint8 (H, W)); returns its rows."""
        folder = self.folder / self.images.format(split=split)
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(image.encode())).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{image}.jpg")
        rows = []
        for number, (label, mask) in enumerate(masks):
            place = self.folder / self.masks.format(split=split, digit=image[0])
            place.mkdir(parents=True, exist_ok=True)
            name = f"{image}_{label[1:].replace('/', '')}_{number:08x}.png"
            Image.fromarray(mask).save(place / name)
            rows.append([name, image, label, f"{number:08x}", "0.1", "0.9", "0.1", "0.9", "0.8", "0.2 0.3 1;0.5 0.5 0"])
        return rows


def only(folder: Path, **options: Any) -> Raw:
    (item,) = open_images.scan(folder, **options).items
    return open_images.load(item)


@pytest.mark.parametrize(
    ("images", "masks", "table"),
    [
        ("{split}", ".", "{split}-annotations-object-segmentation.csv"),
        ("set/{split}_0", "set/{split}-masks-{digit}", "set/csv/{split}-annotations-object-segmentation.csv"),
        ("{split}/data", "{split}/labels/masks/A", "{split}/labels/segmentations.csv"),
    ],
)
def test_splits_ids_and_classes(tmp_path: Path, images: str, masks: str, table: str) -> None:
    maker = Maker(tmp_path, images=images, masks=masks)
    for split, names in (("validation", ["b0"]), ("train", ["a1", "a0"]), ("test", ["c0"])):
        rows = [row for name in names for row in maker.add(split, name, (CAR, box(2, 2, 9, 9)))]
        elsewhere = [f"ff_{split}_0.png", f"ff{split}", CAR, *"0" * 7]  # a row whose image was not fetched
        maker.table(split, [*rows, elsewhere], name=table)
    scan = open_images.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("a0", "train", "a0"),
        ("a1", "train", "a1"),
        ("b0", "val", "b0"),
        ("c0", "test", "c0"),
    ]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    assert [(c.name, c.thing) for c in scan.classes] == [("background", False), ("Car", True)]
    assert scan.ignore_index == 255 and not scan.faults
    assert all((open_images.load(item).labels == box(2, 2, 9, 9)).all() for item in scan.items)


def test_smaller_objects_lie_on_top_and_every_mask_is_an_instance(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    shapes = {DOG: box(10, 10, 14, 14), PERSON: box(0, 0, 30, 30), CAR: box(8, 8, 20, 20)}
    maker.table("train", maker.add("train", "a0", *shapes.items()))
    scan = open_images.scan(tmp_path)
    assert [c.name for c in scan.classes] == ["background", "Car", "Dog", "Person"]
    raw = open_images.load(scan.items[0])
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, index in ((PERSON, 3), (CAR, 1), (DOG, 2)):
        wanted[shapes[label]] = index
    assert raw.labels.dtype == np.uint8 and (raw.labels == wanted).all() and not raw.faults
    assert [(row["category"], row["iscrowd"]) for row in raw.instances] == [(2, False), (3, False), (1, False)]
    assert all((row["mask"] == mask).all() for row, mask in zip(raw.instances, shapes.values(), strict=True))


def test_masks_of_every_encoding(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    mask = box(3, 4, 20, 25)
    rows = maker.add(
        "train",
        "a0",
        (CAR, mask),
        (CAR, mask.astype(np.uint8)),
        (CAR, mask * np.uint8(255)),
        (CAR, np.stack([mask * np.uint8(255)] * 3, -1)),
    )
    maker.table("train", rows)
    with Image.open(next(tmp_path.glob("**/*_00000000.png"))) as first:
        assert first.mode == "1"
    raw = only(tmp_path)
    assert len(raw.instances) == 4 and all((row["mask"] == mask).all() for row in raw.instances)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_masks_of_another_size_are_resized_by_the_nearest_pixel(tmp_path: Path, factor: float) -> None:
    maker = Maker(tmp_path)
    height, width = int(HEIGHT * factor), int(WIDTH * factor)
    mask = np.random.default_rng(0).random((height, width)) < 0.4
    maker.table("train", maker.add("train", "a0", (CAR, mask * np.uint8(255))))
    rows = ((np.arange(HEIGHT) + 0.5) * factor).astype(int)
    columns = ((np.arange(WIDTH) + 0.5) * factor).astype(int)
    raw = only(tmp_path)
    assert (raw.labels == mask[rows][:, columns]).all() and not raw.faults


def test_chosen_classes_have_the_order_of_the_option(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    rows = maker.add("train", "a0", (CAR, box(0, 0, 5, 5)), (DOG, box(9, 9, 15, 15))) + maker.add(
        "train", "a1", (PERSON, box(0, 0, 5, 5))
    )
    maker.table("train", rows)
    scan = open_images.scan(tmp_path, classes=["Tortoise", DOG, "Car"])
    assert [c.name for c in scan.classes] == ["background", "Tortoise", "Dog", "Car"]
    assert [i.id for i in scan.items] == ["a0"], "an image without a mask of these classes is left out"
    raw = open_images.load(scan.items[0])
    assert raw.labels[2, 2] == 3 and raw.labels[10, 10] == 2 and [row["category"] for row in raw.instances] == [3, 2]
    with pytest.raises(ValueError, match="classes: 'car' is no class of Open Images.* there are Car"):
        open_images.scan(tmp_path, classes=["car"])
    with pytest.raises(ValueError, match="classes: 'Car'; should be a list"):
        open_images.scan(tmp_path, classes="Car")
    with pytest.raises(ValueError, match=f"{tmp_path}: no image has a mask of the classes Tortoise"):
        open_images.scan(tmp_path, classes=["Tortoise"])


def test_without_a_background_other_pixels_are_ignored(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.table("train", maker.add("train", "a0", (CAR, box(0, 0, 5, 5)), (DOG, box(9, 9, 15, 15))))
    scan = open_images.scan(tmp_path, background=False)
    assert [c.name for c in scan.classes] == ["Car", "Dog"] and scan.labels == {0: 0, 1: 1, 255: 255}
    raw = open_images.load(scan.items[0])
    assert [raw.labels[y, x] for y, x in ((2, 2), (10, 10), (20, 20))] == [0, 1, 255]


def test_all_350_classes_ignore_65535(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    labels = [CAR, *(f"/m/x{number:03}" for number in range(349))]
    (tmp_path / "classes-segmentation.txt").write_text("\n".join(labels) + "\n")
    (tmp_path / "oidv7-class-descriptions.csv").write_text(f"LabelName,DisplayName\n{CAR},Auto\n/m/x348,Last\n")
    maker.table("train", maker.add("train", "a0", ("/m/x348", box(0, 0, 5, 5))))
    scan = open_images.scan(tmp_path)
    assert len(scan.classes) == 351 and scan.ignore_index == 65535 and scan.labels[65535] == 65535
    assert [scan.classes[i].name for i in (0, 1, 2, 350)] == ["background", "Car", "/m/x000", "Last"], "boxable names win"
    raw = open_images.load(scan.items[0])
    assert raw.labels.dtype == np.uint16 and (raw.labels == 350 * box(0, 0, 5, 5)).all()
    assert open_images.load(open_images.scan(tmp_path, background=False).items[0]).labels[20, 20] == 65535


def test_images_without_a_row_are_one_warning(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.table("train", maker.add("train", "a0", (CAR, box(0, 0, 5, 5))))
    for name in ("a1", "a2"):
        maker.add("train", name)
    (fault,) = open_images.scan(tmp_path).faults
    assert (fault.kind, fault.severity, fault.example) == ("no_annotation", "warning", "a1.jpg and 1 more")


def test_faults_of_masks_name_them(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    rows = maker.add(
        "validation",
        "a0",
        (CAR, box(0, 0, 5, 5)),
        (CAR, box(0, 0, 0, 0)),
        (CAR, box(1, 1, 4, 4, height=40)),
        (CAR, box(9, 9, 12, 12)),
    )
    maker.table("validation", rows)
    (tmp_path / "validation-masks-a" / rows[0][0]).unlink()
    raw = only(tmp_path)
    assert [(f.kind, f.severity, f.example) for f in raw.faults] == [
        ("no_mask", "error", rows[0][0]),
        ("empty_instance", "warning", rows[1][0]),
        ("size_mismatch", "error", rows[2][0]),
    ]
    assert "ImageIDs with a" in raw.faults[0].fix and len(raw.instances) == 2
    smeared = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
    Image.fromarray(smeared).save(tmp_path / "validation-masks-a" / rows[3][0])
    with pytest.raises(ValueError, match=f"{rows[3][0]}: 40 values, but a mask has two"):
        only(tmp_path)


def test_missing_parts_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no .*annotations-object-segmentation.csv .*aws s3"):
        open_images.scan(tmp_path)
    maker = Maker(tmp_path)
    maker.table("train", [["a0_m0k4j_0.png", "a0", CAR, *"0" * 7]])
    with pytest.raises(ValueError, match=f"{tmp_path}: none of its 0 .jpg files is named in train-annotations.*aws s3"):
        open_images.scan(tmp_path)
    maker.add("train", "a0")
    with pytest.raises(ValueError, match=f"{tmp_path}: no folder with .png masks. Unpack .*train|<split>-masks"):
        open_images.scan(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [("Mask,Image\na,b\n", "csv: its first line is 'Mask,Image'; should name MaskPath"), ("", "csv: its first line is ''"),
     (",".join(HEADER) + "\na0.png,a0\n", "csv, line 2: 2 of 10 columns")],
)  # fmt: skip
def test_a_damaged_csv_is_named(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "test-annotations-object-segmentation.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        open_images.scan(tmp_path)


def test_rows_of_other_images_take_no_memory(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    rows = maker.add("train", "a0", (CAR, box(0, 0, 5, 5)))
    others = [[f"{n:016x}_m0k4j_{n:08x}.png", f"{n:016x}", CAR, f"{n:08x}", *"0" * 5, "0.1 0.2 1;" * 10] for n in range(20_000)]
    maker.table("train", others[:10_000] + rows + others[10_000:])
    tracemalloc.start()
    scan = open_images.scan(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scan.items) == 1 and peak < 1_000_000, "the CSV has 4.4 MB, held as rows 10 MB"


def test_conversion_equals_the_masks(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "raw")
    generator = np.random.default_rng(1)
    truth = {}
    for split, image in (("train", "a0"), ("validation", "b0"), ("test", "c0")):
        mask = generator.random((HEIGHT, WIDTH)) < 0.3
        truth[image] = mask
        maker.table(split, maker.add(split, image, (DOG, mask), (CAR, box(0, 0, 2, 2))))
    scan = open_images.scan(tmp_path / "raw")
    info, _ = convert(tmp_path / "raw", tmp_path / "out", name="open_images", scan=scan, load=open_images.load)
    assert info.splits == {"train": 1, "val": 1, "test": 1}
    for split in info.splits:
        shard = Split(tmp_path / "out", split)
        _, labels = shard.arrays(0)
        dogs = truth[shard.ids[0]]
        assert (labels == np.where(box(0, 0, 2, 2), 1, 2 * dogs)).all()
        dog, car = (decode_instance(row, labels.shape) for row in shard[0].instances)
        assert (dog == dogs).all() and (car == box(0, 0, 2, 2)).all()


def test_the_source_says_what_to_fetch_by_hand() -> None:
    (source,) = open_images.SOURCES
    assert not source.urls and source.manual and "aws s3 --no-sign-request" in source.manual and "CC BY" in source.licence
    assert len(set(open_images.ADDRESSES)) == 3 + 2 + 48
    assert "https://storage.googleapis.com/openimages/v5/train-masks/train-masks-f.zip" in open_images.ADDRESSES
