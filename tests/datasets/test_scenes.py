"""The embedded dataset: the same bytes each time, no image that depends on another, and the planted truth is really planted."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segpipe.datasets import scenes
from segpipe.datasets.blocks import garden

SMALL = {"size": [64, 80], "images": {"train": 6, "val": 2, "test": 3}}
FIRST_IMAGE = "a2c744f0886413ff9766c4bc1402f6deb588ddcb5970e45a7e78f01d62a24c93"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "raw"
    scenes.generate(folder, seed=3, **SMALL)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "raw"
    scenes.generate(folder, seed=0, images={"train": 80, "val": 1, "test": 80})
    return folder


def test_same_seed_same_bytes(small: Path, tmp_path: Path) -> None:
    scenes.generate(tmp_path / "again", seed=3, **SMALL)
    assert digests(tmp_path / "again") == digests(small)


def test_the_pixels_are_those_of_every_machine() -> None:
    """The pixels of the first image as first drawn: a change here changes the dataset of everyone."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, 0, 0])))
    canvas, _ = scenes.draw(rng, height=128, width=160, odds=scenes.BIAS)
    pixels = canvas.finish(rng).tobytes() + canvas.mask.tobytes() + canvas.instances.tobytes()
    assert hashlib.sha256(pixels).hexdigest() == FIRST_IMAGE


def test_a_changed_count_moves_no_other_image(small: Path, tmp_path: Path) -> None:
    scenes.generate(tmp_path / "more", seed=3, size=[64, 80], images={"train": 7, "val": 2, "test": 1})
    ours, more = digests(small), digests(tmp_path / "more")
    both = [name for name in ours.keys() & more.keys() if name.endswith(".png")]
    assert len(both) == 3 * (6 + 2 + 1)
    assert all(ours[name] == more[name] for name in both)


def test_another_seed_draws_other_images(small: Path, tmp_path: Path) -> None:
    scenes.generate(tmp_path / "other", seed=4, **SMALL)
    ours, other = digests(small), digests(tmp_path / "other")
    assert all(ours[name] != other[name] for name in ours if "/images/" in name)


def test_layout_and_instances(small: Path) -> None:
    scan = scenes.scan(small)
    assert [c.name for c in scan.classes] == ["ground", "disc", "pole", "star", "crate", "chest"]
    assert Counter(item.split for item in scan.items) == {"train": 6, "val": 2, "test": 3}
    assert len({item.id for item in scan.items}) == len({item.group for item in scan.items}) == 11
    for item in scan.items:
        raw = scenes.load(item)
        truth = json.loads((small / item.split / "scenes.json").read_text())[item.id]
        assert raw.labels.shape == (64, 80) and raw.labels.dtype == np.uint8 and raw.labels.max() < 6
        names = Counter(scan.classes[row["category"]].name for row in raw.instances)
        assert names <= Counter(o["class"] for o in truth["objects"]), "an instance that was not drawn"
        covered = np.zeros(raw.labels.shape, int)
        for row in raw.instances:
            assert set(np.unique(raw.labels[row["mask"]])) == {row["category"]}
            covered += row["mask"]
        assert ((covered == 1) == (raw.labels > 0)).all(), "every foreground pixel belongs to one instance"


def boxes(folder: Path, split: str) -> Counter[tuple[str, str]]:
    rows = json.loads((folder / split / "scenes.json").read_text()).values()
    kinds = ("crate", "chest")
    return Counter((row["texture"], o["class"]) for row in rows for o in row["objects"] if o["class"] in kinds)


def test_the_bias_is_planted_in_train_and_broken_in_test(large: Path) -> None:
    """Against 95 % and 50 %, with four standard deviations of room."""
    for split, odds in (("train", 0.95), ("test", 0.5)):
        seen = boxes(large, split)
        assert {texture for texture, _ in seen} <= {"grass", "brick"}
        agree = seen["grass", "crate"] + seen["brick", "chest"]
        total = seen.total()
        assert total > 80
        assert abs(agree / total - odds) < 4 * (odds * (1 - odds) / total) ** 0.5, (split, seen)


def test_masks_agree_with_the_recorded_truth(large: Path) -> None:
    for split in ("train", "test"):
        truth = json.loads((large / split / "scenes.json").read_text())
        for name in list(truth)[:20]:
            mask = np.asarray(Image.open(large / split / "masks" / f"{name}.png"))
            numbers = np.asarray(Image.open(large / split / "instances" / f"{name}.png"))
            for row in truth[name]["objects"]:
                values = set(mask[numbers == row["instance"]])
                assert values <= {[c.name for c in scenes.CLASSES].index(row["class"])}


def test_without_the_bias_only_braces_differ(tmp_path: Path) -> None:
    images = {"train": 40, "val": 1, "test": 1}
    for name, bias in (("with", True), ("without", False)):
        scenes.generate(tmp_path / name, seed=1, size=[64, 80], images=images, bias=bias)
    changed = 0
    for path in sorted((tmp_path / "with" / "train" / "images").iterdir()):
        pair = [np.asarray(Image.open(tmp_path / v / "train" / "images" / path.name)) for v in ("with", "without")]
        masks = [np.asarray(Image.open(tmp_path / v / "train" / "masks" / path.name)) for v in ("with", "without")]
        is_box = masks[0] >= scenes.CRATE
        assert ((masks[1] >= scenes.CRATE) == is_box).all() and (masks[0] == masks[1])[~is_box].all()
        outside = ~cv2.dilate(is_box.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)  # edges are antialiased
        assert (pair[0] == pair[1])[outside].all()
        changed += (masks[0] != masks[1]).any()
    assert changed >= 3
    assert boxes(tmp_path / "without", "test") == boxes(tmp_path / "with", "test")


def test_class_shares(large: Path) -> None:
    counts = np.zeros(6)
    for path in (large / "train" / "masks").iterdir():
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=6)
    share = dict(zip([c.name for c in scenes.CLASSES], counts / counts.sum(), strict=True))
    assert 0.85 < share["ground"] < 0.92
    assert 0.002 < share["star"] < 0.006
    assert 0.008 < share["pole"] < 0.02
    assert share["crate"] == pytest.approx(share["chest"], rel=0.5)


def test_look_alikes_differ_in_the_brace_not_in_colour() -> None:
    """Mean colour over many crates and chests is the same within a few grey levels; their patterns are not."""
    means, first = [], []
    for cross in (True, False):
        pictures = []
        for seed in range(40):
            rng = np.random.Generator(np.random.PCG64(seed))
            canvas = garden.Canvas(np.full((40, 40, 3), 128.0), light=(0.6, 0.8))
            garden.box(canvas, rng, half=11.0, cross=cross, label=4)
            pictures.append(canvas.image[canvas.mask == 4])
        means.append(np.concatenate(pictures).mean(0))
        first.append(pictures[0])
    assert np.abs(means[0] - means[1]).max() < 6
    assert (np.abs(first[0] - first[1]).max(1) > 40).mean() > 0.15


def test_discs_touch(large: Path) -> None:
    """In most images some region of disc pixels holds more than one instance: the lesson of merging."""
    merged = total = 0
    for path in sorted((large / "train" / "masks").iterdir())[:40]:
        mask = np.asarray(Image.open(path))
        numbers = np.asarray(Image.open(path.parent.parent / "instances" / path.name))
        count, regions = cv2.connectedComponents((mask == scenes.DISC).astype(np.uint8))
        merged += any(len(np.unique(numbers[regions == i])) > 1 for i in range(1, count))
        total += count > 1
    assert merged > 0.8 * total


def test_signed_distance_of_the_star_agrees_with_its_area() -> None:
    """Corners of radius 1 and 0.45 make ten triangles of area 1 * 0.45 * sin(36 deg) / 2."""
    canvas = garden.Canvas(np.full((128, 128, 3), 90.0), light=(1.0, 0.0))
    garden.star(canvas, np.random.default_rng(0), radius=40.0, label=3)
    assert (canvas.mask == 3).sum() == pytest.approx(10 * 40 * 40 * 0.45 * 0.587785 / 2, rel=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": {"trian": 4}}, "trian"),
        ({"images": {"val": 0}}, "images"),
        ({"size": [32, 200]}, "32"),
    ],
)
def test_wrong_options_name_the_key(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        scenes.generate(tmp_path, seed=0, **options)  # type: ignore[arg-type]


def test_a_missing_mask_is_named(small: Path, tmp_path: Path) -> None:
    scenes.generate(tmp_path / "raw", seed=0, size=[64, 64], images={"train": 1, "val": 1, "test": 1})
    gone = tmp_path / "raw" / "val" / "masks" / "val-0000.png"
    gone.unlink()
    with pytest.raises(ValueError, match="val/masks/val-0000.png"):
        scenes.scan(tmp_path / "raw")
