"""The dataset format: what is written is read back, in order, from as many shards as needed; digests notice every change."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.feather
import pytest

from segpipe import shards
from segpipe.shards import ClassInfo, DatasetInfo, Sample, Split, SplitWriter


def sample(i: int, *, size: tuple[int, int] = (6, 8)) -> Sample:
    rng = np.random.default_rng(i)
    return Sample(
        id=f"s{i}",
        image=shards.encode_image(rng.integers(0, 255, (*size, 3), np.uint8)),
        mask=shards.encode_mask(rng.integers(0, 3, size, np.uint8)),
        height=size[0],
        width=size[1],
        group=f"g{i // 3}",
        source=f"images/{i}.png",
        instances=[{"category": 1, "rle": "04", "bbox": [0.0, 1.0, 2.0, 3.0], "area": 6.0, "iscrowd": False}] * (i % 2),
    )


def write(folder: Path, samples: list[Sample], *, max_bytes: int = 10**9) -> str:
    folder.mkdir(exist_ok=True)
    with SplitWriter(folder, "train", max_bytes=max_bytes) as writer:
        for s in samples:
            writer.write(s)
        return writer.close()


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_round_trip(tmp_path: Path, count: int) -> None:
    samples = [sample(i) for i in range(count)]
    write(tmp_path, samples)
    split = Split(tmp_path, "train")
    assert len(split) == count and list(split) == samples
    assert split.ids == [s.id for s in samples] and split.column("group") == [s.group for s in samples]


def test_many_shards_hold_the_same_samples_and_digest(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(40)]
    one, many = write(tmp_path / "one", samples), write(tmp_path / "many", samples, max_bytes=2000)
    paths = sorted((tmp_path / "many").glob("train-*.arrow"))
    assert len(paths) > 3 and one == many
    assert list(Split(tmp_path / "many", "train")) == samples
    assert sum(len(pyarrow.feather.read_table(path)) for path in paths) == 40, "any Arrow reader opens a shard"
    payloads = [sum(len(s.image) + len(s.mask) for s in samples_of(path)) for path in paths]
    assert max(payloads) <= 2000


def samples_of(path: Path) -> list[Sample]:
    return [Sample(**row) for row in pyarrow.feather.read_table(path).to_pylist()]


def test_arrays_decode_without_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (9, 7, 3), np.uint8), rng.integers(0, 60000, (9, 7), np.uint16)
    row = replace(sample(0), image=shards.encode_image(image), mask=shards.encode_mask(mask))
    write(tmp_path, [row])
    back, labels = Split(tmp_path, "train").arrays(0)
    assert (back == image).all() and (labels == mask).all() and labels.dtype == np.uint16
    assert shards.image_size(row.image) == (9, 7)


def test_an_empty_split_is_readable(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert len(Split(tmp_path, "train")) == 0


def test_a_split_pickles_as_its_path(tmp_path: Path) -> None:
    write(tmp_path, [sample(i) for i in range(20)])
    text = pickle.dumps(Split(tmp_path, "train"))
    assert len(text) < 500 and pickle.loads(text)[19] == sample(19)


def test_wrong_access_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, [sample(0)])
    with pytest.raises(IndexError, match="no number 1"):
        Split(tmp_path, "train")[1]
    with pytest.raises(ValueError, match=r"val-\*.arrow"):
        Split(tmp_path, "val")


@pytest.mark.parametrize("change", ["id", "image", "mask", "order"])
def test_the_digest_notices(tmp_path: Path, change: str) -> None:
    samples = [sample(i) for i in range(3)]
    other = [sample(2), sample(1), sample(0)] if change == "order" else list(samples)
    if change != "order":
        other[1] = replace(other[1], **{change: "x" if change == "id" else getattr(sample(9), change)})
    assert write(tmp_path / "a", samples) != write(tmp_path / "b", other)
    assert write(tmp_path / "a", samples) == write(tmp_path / "c", samples)


def test_the_datasets_digest_depends_on_classes_and_splits() -> None:
    classes = [ClassInfo(name="a", colour=(1, 2, 3)), ClassInfo(name="b", colour=(4, 5, 6))]
    base = shards.dataset_digest({"train": "x", "val": "y"}, classes)
    assert base == shards.dataset_digest({"val": "y", "train": "x"}, classes)
    assert base != shards.dataset_digest({"train": "y", "val": "x"}, classes)
    assert base != shards.dataset_digest({"train": "x", "val": "y"}, classes[::-1])


def test_info_round_trip_and_unfinished_folder(tmp_path: Path) -> None:
    info = DatasetInfo(
        name="d",
        classes=(ClassInfo(name="a", colour=(1, 2, 3)), ClassInfo(name="b", colour=(4, 5, 6), thing=True)),
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": 1},
        pixels={"train": [3, 4]},
        mean=(0.1, 0.2, 0.3),
        std=(0.2, 0.2, 0.2),
        provenance={"sources": []},
        digest="abc",
    )
    with pytest.raises(ValueError, match="not a finished dataset"):
        shards.read_info(tmp_path)
    shards.write_info(tmp_path, info)
    assert shards.read_info(tmp_path) == info
    assert info.palette()[1].tolist() == [4, 5, 6] and info.palette()[255].tolist() == [0, 0, 0]
    text = json.loads((tmp_path / "dataset.json").read_text()) | {"format_version": 99}
    (tmp_path / "dataset.json").write_text(json.dumps(text))
    with pytest.raises(ValueError, match="99"):
        shards.read_info(tmp_path)


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        shards.decode_image(b"not a picture")
    with pytest.raises(ValueError, match="single-channel"):
        shards.decode_mask(shards.encode_image(np.zeros((2, 2, 3), np.uint8)))
