"""The offline engine: reproducible one by one, the same for any number of workers, and nothing is lost on the way."""

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pycocotools import mask as rle

from segpipe.augmentation import offline
from segpipe.augmentation.offline import augment
from segpipe.augmentation.policy import Policy, build
from segpipe.augmentation.samples import Limits, draw, from_layers, inside_of, reproduce, to_layers
from segpipe.shards import (
    ClassInfo,
    DatasetInfo,
    Sample,
    Split,
    SplitWriter,
    dataset_digest,
    decode_image,
    decode_mask,
    encode_image,
    encode_mask,
    read_info,
    write_info,
)
from tests.conftest import tiny_params

CLASSES = tuple(ClassInfo(name=n, colour=(40 * i, 200, 90)) for i, n in enumerate(("ground", "box", "dot")))
HEIGHT, WIDTH = 48, 64


def instance(category: int, inside: np.ndarray, *, iscrowd: bool = False) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(inside.astype(np.uint8)))
    box, area = [float(v) for v in rle.toBbox(code)], float(rle.area(code))
    return {"category": category, "rle": code["counts"].decode(), "bbox": box, "area": area, "iscrowd": iscrowd}


def sample(number: int) -> Sample:
    """A box, a second box that overlaps it as a crowd, and a small dot near a corner."""
    rng = np.random.default_rng(number)
    image = rng.integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask, first, second, dot = (np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(4))
    first[10:30, 8 + number : 30 + number] = 1
    second[20:36, 20:44] = 1
    dot[5:12, 50:57] = 1
    mask[first + second > 0], mask[dot > 0], mask[-2:] = 1, 2, 255
    return Sample(
        id=f"seq/{number:03d}",
        image=encode_image(image),
        mask=encode_mask(mask),
        height=HEIGHT,
        width=WIDTH,
        group=f"seq{number % 2}",
        source=f"images/{number}.png",
        instances=[instance(1, first), instance(1, second, iscrowd=True), instance(2, dot)],
    )


def dataset(folder: Path, samples: list[Sample]) -> Path:
    folder.mkdir(parents=True)
    digests = {}
    for split, rows in (("train", samples), ("val", [sample(90)]), ("test", [sample(91)])):
        with SplitWriter(folder, split) as writer:
            for row in rows:
                writer.write(row)
            digests[split] = writer.close()
    info = DatasetInfo(
        name="toy",
        classes=CLASSES,
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": len(samples), "val": 1, "test": 1},
        pixels={"train": [1, 1, 1], "val": [1, 1, 1], "test": [1, 1, 1]},
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        provenance={"licence": "MIT"},
        digest=dataset_digest(digests, CLASSES),
    )
    write_info(folder, info)
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "toy", [sample(i) for i in range(10)])


@pytest.fixture(scope="module")
def strong(converted: Path) -> Path:
    out = converted.parent / "augmented" / "toy"
    augment(converted, out, policy="strong", copies=2, seed=7)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_workers_change_nothing(converted: Path, strong: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "PARENTS_PER_JOB", 1)  # more jobs than may wait at a time
    augment(converted, tmp_path / "out", policy="strong", copies=2, seed=7, workers=2)
    assert content(tmp_path / "out") == content(strong)
    assert sorted(content(strong)) == ["dataset.json", "preview.png", "report.json", "train-00000.arrow"]


def test_rows_and_info(converted: Path, strong: Path) -> None:
    parents, rows = Split(converted, "train"), Split(strong, "train")
    assert rows.ids == [f"{p.id}~{copy}" for p in parents for copy in (1, 2)]
    for number, row in enumerate(rows):
        parent = parents[number // 2]
        assert (row.parent, row.group, row.source) == (parent.id, parent.group, parent.source)
        assert decode_image(row.image).shape == (row.height, row.width, 3) == (HEIGHT, WIDTH, 3)
        assert decode_mask(row.mask).shape == (HEIGHT, WIDTH) and row.image != parent.image
    info, old = read_info(strong), read_info(converted)
    assert (info.classes, info.mean, info.std, info.name) == (old.classes, old.mean, old.std, "toy")
    assert info.splits == {"train": 20, "val": 0, "test": 0}
    counts = sum(np.bincount(decode_mask(row.mask).ravel(), minlength=256) for row in rows)
    assert info.pixels["train"] == list(counts[:3]) and info.digest != old.digest
    assert info.provenance["augmented_from"] == {"name": "toy", "digest": old.digest, "provenance": {"licence": "MIT"}}


def test_each_sample_is_reproducible_alone(converted: Path, strong: Path, tmp_path: Path) -> None:
    parents = {p.id: p for p in Split(converted, "train")}
    for row in Split(strong, "train"):
        assert reproduce(row, parent=parents[str(row.parent)]) == row
    with pytest.raises(ValueError, match="its parent is 'seq/000', not 'seq/001'"):
        reproduce(Split(strong, "train")[0], parent=parents["seq/001"])
    # Nor do a sample's neighbours, or the number of copies, have a say.
    alone = dataset(tmp_path / "alone", [parents["seq/004"]])
    augment(alone, tmp_path / "out", policy="strong", copies=3, seed=7)
    assert list(Split(tmp_path / "out", "train"))[:2] == list(Split(strong, "train"))[8:10]


def test_another_seed_is_another_dataset(converted: Path, strong: Path, tmp_path: Path) -> None:
    augment(converted, tmp_path / "out", policy="strong", copies=2, seed=8)
    assert read_info(tmp_path / "out").digest != read_info(strong).digest
    images = [row.image for folder in (strong, tmp_path / "out") for row in Split(folder, "train")]
    assert len(set(images)) == len(images)


def test_objects_are_kept_and_draws_that_lose_them_counted(converted: Path, strong: Path) -> None:
    report = json.loads((strong / "report.json").read_text())
    rows = list(Split(strong, "train"))
    assert report["redrawn"]["lost a class"] > 0 and report["samples"] == 20 and not report["fallbacks"]
    assert sum(json.loads(str(row.recipe))["attempt"] for row in rows) == sum(report["redrawn"].values())
    for row in rows:
        after = np.bincount(decode_mask(row.mask).ravel(), minlength=256)
        assert after[2] >= 0.2 * 49
    parents = sum(np.bincount(decode_mask(p.mask).ravel(), minlength=256)[:3] for p in Split(converted, "train"))
    before = [report["balance"][c.name]["before"] for c in CLASSES]
    assert before == pytest.approx(list(parents / parents.sum()))
    after = read_info(strong).pixels["train"]
    assert [report["balance"][c.name]["after"] for c in CLASSES] == pytest.approx([n / sum(after) for n in after])


class Shy(Policy):
    """Blackens its first draws, then leaves the sample as it is."""

    def __init__(self, bad: int) -> None:
        super().__init__("none")
        self.bad = bad

    def apply_with_layers(
        self, image: np.ndarray, mask: np.ndarray, layers: np.ndarray, *, seed: int, ignore_index: int = 255
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.bad -= 1
        return (image // 50 if self.bad >= 0 else image), mask, layers


def test_dark_and_flat_draws_are_drawn_again() -> None:
    drawn = draw(sample(0), Shy(2), seed=0, copy=1, ignore_index=255, limits=Limits(attempts=3))
    assert drawn.redrawn == Counter({"too dark": 2, "too flat": 2}) and not drawn.fell_back
    assert json.loads(str(drawn.sample.recipe))["attempt"] == 2


def test_a_dark_parent_may_have_dark_copies() -> None:
    image = decode_image(sample(0).image) // 40
    dark = replace(sample(0), image=encode_image(image))
    assert image.mean() / 255 < Limits().min_brightness
    assert not draw(dark, build("mirror"), seed=0, copy=1, ignore_index=255, limits=Limits()).redrawn


def test_falls_back_to_the_mirrored_parent(converted: Path, tmp_path: Path) -> None:
    drawn = draw(sample(0), Shy(99), seed=0, copy=1, ignore_index=255, limits=Limits(attempts=4))
    assert drawn.fell_back and drawn.redrawn["too dark"] == 4
    assert np.array_equal(decode_image(drawn.sample.image), decode_image(sample(0).image)[:, ::-1])
    assert np.array_equal(decode_mask(drawn.sample.mask), decode_mask(sample(0).mask)[:, ::-1])
    assert reproduce(drawn.sample, parent=sample(0)) == drawn.sample
    limits = Limits(attempts=2, keep_share=1.0, min_pixels=1)
    report = augment(converted, tmp_path / "out", policy="strong", copies=1, seed=0, limits=limits)
    assert set(report.fallbacks) <= set(Split(tmp_path / "out", "train").ids) and report.fallbacks
    assert read_info(tmp_path / "out").provenance["limits"]["keep_share"] == 1.0


def test_instances_move_with_their_pixels(strong: Path) -> None:
    parent_area = [one["area"] for one in sample(0).instances]
    seen = Counter[int]()
    for row in Split(strong, "train"):
        mask = decode_mask(row.mask)
        union = np.zeros((HEIGHT, WIDTH), bool)
        for one in row.instances:
            inside = inside_of(one, (HEIGHT, WIDTH))
            assert set(np.unique(mask[inside])) <= {one["category"], 255}
            assert (
                one["area"] == inside.sum() and 0.2 < one["area"] / parent_area[2 if one["category"] == 2 else one["iscrowd"]] < 2.2
            )
            x, y, w, h = (int(v) for v in one["bbox"])
            assert inside[y : y + h, x : x + w].sum() == one["area"]
            union |= inside
            seen[one["category"]] += 1
        # Every pixel of a thing has its instance: overlaps, too, came through.
        assert np.array_equal(union, (mask == 1) | (mask == 2))
    assert seen == {1: 40, 2: 20}


def test_layers_keep_overlaps_and_leave_out_the_empty_number() -> None:
    parent = sample(0)
    layers, places = to_layers(parent.instances, (HEIGHT, WIDTH), empty=1)
    assert layers.shape == (2, HEIGHT, WIDTH) and places == [(0, 0), (1, 2), (0, 3)]
    assert from_layers(parent.instances, layers, places) == parent.instances
    gone = np.where(layers == 2, 1, layers)
    assert from_layers(parent.instances, gone, places) == [parent.instances[0], parent.instances[2]]


@pytest.mark.parametrize(("policy", "copies"), [("none", 3), ("light", 0)])
def test_nothing_to_draw_is_an_empty_split(converted: Path, tmp_path: Path, policy: str, copies: int) -> None:
    report = augment(converted, tmp_path / "out", policy=policy, copies=copies, seed=0, workers=2)
    assert report.samples == 0 and len(Split(tmp_path / "out", "train")) == 0
    assert read_info(tmp_path / "out").splits["train"] == 0
    assert sorted(content(tmp_path / "out")) == ["dataset.json", "report.json", "train-00000.arrow"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_sample_is_named_and_what_was_there_stays(converted: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "augmented" / "toy"
    augment(converted, out, policy="flip", copies=1, seed=0)
    before = content(out)
    rows = [sample(i) for i in range(10)]
    rows[6] = replace(rows[6], image=b"no image")
    broken = dataset(tmp_path / "broken", rows)
    with pytest.raises(ValueError, match="broken, train sample 'seq/006': the image's bytes cannot be decoded"):
        augment(broken, out, policy="flip", copies=1, seed=0, workers=workers)
    assert content(out) == before and list(out.parent.iterdir()) == [out]


def test_wrong_arguments(converted: Path, tmp_path: Path) -> None:
    good: dict[str, Any] = {"policy": "flip", "copies": 1, "seed": 0}
    for change, message in (
        ({"policy": "heavy"}, "Choices: none, flip"),
        ({"copies": -1}, "copies: -1 must be 0 or more"),
        ({"workers": 0}, "workers: 0 must be 1 or more"),
        ({"limits": Limits(attempts=0)}, "attempts: 0"),
    ):
        with pytest.raises(ValueError, match=message):
            augment(converted, tmp_path / "out", **{**good, **change})
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are no dataset"):
        augment(converted, tmp_path / "home", **good)
    assert (tmp_path / "home" / "thesis.txt").exists()
    volumes = shutil.copytree(converted, tmp_path / "volumes")
    write_info(volumes, replace(read_info(converted), dimensions=3))
    with pytest.raises(ValueError, match="3-dimensional images; policy 'flip' needs 2"):
        augment(volumes, tmp_path / "out", **good)
    assert not (tmp_path / "out").exists()


def test_the_stage(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from stages.augment import main

    shutil.copytree(converted, tmp_path / "data/converted/scenes")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params() | {"augment": {"policy": "light", "copies": 2}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["augment", "scenes"])
    main()
    assert len(Split(tmp_path / "data/augmented/scenes", "train")) == 20
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["augmented", "converted"]
    printed = capsys.readouterr().out
    assert "20 augmented samples of 10 training images, policy light" in printed and "ground" in printed
    monkeypatch.setattr(sys, "argv", ["augment", "nothing"])
    with pytest.raises(SystemExit, match="one of: scenes"):
        main()
