"""Oxford-IIIT Pet: trimaps under every choice of classes and border, the lists, and what lies beside the data."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import oxford_pets
from segpipe.shards import Split

TRAIN = [("Abyssinian_1", 1, 1, 1), ("american_bulldog_10", 2, 2, 1), ("Bengal_3", 6, 1, 2)]
TEST = [("yorkshire_terrier_200", 37, 2, 25)]


def trimap(name: str) -> np.ndarray:
    return np.random.default_rng(len(name)).integers(1, 4, (14, 11)).astype(np.uint8)


def make(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for listed, rows in (("trainval", TRAIN), ("test", TEST)):
        for name, *_ in rows:
            pixels = np.random.default_rng(len(name)).integers(0, 256, (14, 11, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg")
            Image.fromarray(trimap(name)).save(folder / "annotations" / "trimaps" / f"{name}.png")
        lines = [" ".join(map(str, row)) for row in rows]
        (folder / "annotations" / f"{listed}.txt").write_text("\n".join(["#Image CLASS-ID SPECIES BREED ID", *lines]) + "\n")
    return folder


@pytest.mark.parametrize("inside", ["", "oxford-iiit-pet", "data/oxford-iiit-pet"])
def test_lists_make_the_splits(tmp_path: Path, inside: str) -> None:
    folder = make(tmp_path / inside)
    (folder / "annotations" / "trimaps" / "._Bengal_3.png").write_bytes(b"\0\5\x16\7")
    (folder / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB")
    Image.new("RGB", (11, 14)).save(folder / "images" / "unlisted_1.jpg")
    scan = oxford_pets.scan(tmp_path)
    assert [(i.id, i.split, i.group) for i in scan.items] == [
        ("Abyssinian_1", "train", "Abyssinian_1"),
        ("american_bulldog_10", "train", "american_bulldog_10"),
        ("Bengal_3", "train", "Bengal_3"),
        ("yorkshire_terrier_200", "test", "yorkshire_terrier_200"),
    ]
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    for item in scan.items:
        raw = oxford_pets.load(item)
        assert raw.image == item.image.read_bytes()
        assert (raw.labels == trimap(item.id)).all() and raw.labels.dtype == np.uint8


@pytest.mark.parametrize("border", oxford_pets.BORDERS)
@pytest.mark.parametrize("classes", list(oxford_pets.NAMES))
def test_every_choice_of_classes_and_border(tmp_path: Path, classes: str, border: str) -> None:
    """The written masks against a rule written out by hand: background 0, the animal its index, the border as asked."""
    make(tmp_path / "raw")
    scan = oxford_pets.scan(tmp_path / "raw", classes=classes, border=border)
    names = [c.name for c in scan.classes]
    assert names[0] == "background" and len(set(c.colour for c in scan.classes)) == len(names)
    assert len(names) == {"pet": 1, "species": 2, "breed": 37}[classes] + 1 + (border == "class")
    rules = {"val": {"from": "train", "fraction": 0.4}}
    convert(tmp_path / "raw", tmp_path / "out", name="pets", scan=scan, load=oxford_pets.load, stand_ins=rules)
    rows = {name: (class_id, species) for name, class_id, species, _ in TRAIN + TEST}
    checked = 0
    for split in ("train", "val", "test"):
        written = Split(tmp_path / "out", split)
        for i, name in enumerate(written.ids):
            class_id, species = rows[name]
            breed = name.rsplit("_", 1)[0].replace("_", " ")
            animal = names.index({"pet": "pet", "species": ("cat", "dog")[species - 1], "breed": breed}[classes])
            assert classes != "breed" or animal == class_id
            edge = {"ignore": 255, "class": len(names) - 1, "foreground": animal}[border]
            table = np.array([0, animal, 0, edge])
            assert (written.arrays(i)[1] == table[trimap(name)]).all()
            checked += 1
    assert checked == 4


def test_a_png_named_jpg_converts(tmp_path: Path) -> None:
    folder = make(tmp_path / "raw")
    pixels = np.random.default_rng(0).integers(0, 256, (14, 11, 4)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    (folder / "images" / "yorkshire_terrier_200.jpg").write_bytes(encoded.getvalue())
    rules = {"val": {"from": "train", "fraction": 0.4}}
    scan = oxford_pets.scan(tmp_path / "raw")
    convert(tmp_path / "raw", tmp_path / "out", name="pets", scan=scan, load=oxford_pets.load, stand_ins=rules)
    assert (Split(tmp_path / "out", "test").arrays(0)[0] == pixels[..., :3]).all()


def test_an_unknown_value_in_a_trimap_is_not_hidden(tmp_path: Path) -> None:
    folder = make(tmp_path)
    Image.fromarray(np.full((14, 11), 7, np.uint8)).save(folder / "annotations" / "trimaps" / "Bengal_3.png")
    for classes in oxford_pets.NAMES:
        scan = oxford_pets.scan(tmp_path, classes=classes)
        assert set(np.unique(oxford_pets.load(scan.items[2]).labels)) - set(scan.labels) == {7}


@pytest.mark.parametrize("lost", ["images/Bengal_3.jpg", "annotations/trimaps/Bengal_3.png"])
def test_a_listed_file_that_is_missing_is_named_with_its_line(tmp_path: Path, lost: str) -> None:
    (make(tmp_path) / lost).unlink()
    with pytest.raises(ValueError, match=rf"{lost}: missing, but named in .*trainval.txt, line 4"):
        oxford_pets.scan(tmp_path)


@pytest.mark.parametrize("line", ["Bengal_3 6 1", "Bengal_3 38 1 2", "Bengal_3 6 3 2", "Bengal_3 six 1 2"])
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    folder = make(tmp_path)
    (folder / "annotations" / "test.txt").write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=rf"test.txt, line 2: '{line}'; should be"):
        oxford_pets.scan(tmp_path)


def test_options_and_a_half_unpacked_source_are_explained(tmp_path: Path) -> None:
    folder = make(tmp_path)
    with pytest.raises(ValueError, match="classes: 'cats'; choices: pet, species, breed"):
        oxford_pets.scan(tmp_path, classes="cats")
    with pytest.raises(ValueError, match="border: 'edge'; choices: ignore, class, foreground"):
        oxford_pets.scan(tmp_path, border="edge")
    (folder / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"Unpack both images.tar.gz and annotations.tar.gz"):
        oxford_pets.scan(tmp_path)
