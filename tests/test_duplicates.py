"""Near-duplicates: copies are found, different pictures are not, and the search equals the plain comparison of all pairs."""

from itertools import product
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segpipe import duplicates
from segpipe.duplicates import DISTANCE, fingerprint, near_pairs


def picture(seed: int, size: tuple[int, int] = (180, 240)) -> np.ndarray:
    """uint8 (H, W, 3): a drawn scene of soft blobs, discs and bars."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        x, y = (int(v) for v in rng.uniform(0, size[::-1]))
        cv2.circle(image, (x, y), int(rng.integers(8, 40)), rng.integers(0, 256, 3).tolist(), -1)
    return image


def bits(a: int | None, b: int | None) -> int:
    assert a is not None and b is not None
    return (a ^ b).bit_count()


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def hashes_of(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    found = [fingerprint(image) for image in images]
    return np.array([h or 0 for h in found], np.uint64), np.array([h is not None for h in found])


def test_it_is_the_published_hash() -> None:
    for seed in range(20):
        grey = cv2.cvtColor(cv2.resize(picture(seed), (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        assert f"{fingerprint(grey):016x}" == str(imagehash.phash(Image.fromarray(grey)))


@pytest.mark.parametrize("seed", range(8))
def test_copies_stay_near(seed: int) -> None:
    image = picture(seed, (360, 481))
    quality = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    double = cv2.resize(image, None, fx=2, fy=2)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for copy in (quality, half, double, cv2.add(image, (12, 12, 12, 0)), grey, grey[..., 0], np.ascontiguousarray(image[:, 2:])):
        assert bits(fingerprint(image), fingerprint(copy)) <= DISTANCE
    assert bits(fingerprint(image), fingerprint(np.ascontiguousarray(image[:, ::-1]))) > DISTANCE


def test_different_pictures_are_far() -> None:
    known = [fingerprint(picture(seed)) for seed in range(60)]
    assert min(bits(a, b) for i, a in enumerate(known) for b in known[:i]) > DISTANCE


def test_images_without_structure_have_no_hash() -> None:
    rng = np.random.default_rng(0)
    ramp = np.repeat(np.linspace(100, 140, 300)[None], 200, axis=0)
    for image in (np.zeros((90, 120)), np.full((200, 200), 255), ramp, 128 + rng.normal(0, 8, (512, 512))):
        shown = np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)
        assert fingerprint(shown) is None
    blob = np.full((480, 640, 3), 255, np.uint8)
    blob[200:260, 300:380] = 0
    assert fingerprint(blob) is not None


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (31, 33), (128, 5000), (1000, 2001)])
def test_any_size(size: tuple[int, int]) -> None:
    value = fingerprint(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    assert value is None or 0 <= value < 2**64


def plain(hashes: list[int], valid: list[bool], splits: list[int], distance: int) -> dict[int, int]:
    """{sample: bits to its nearest in another split}, one by one."""
    nearest: dict[int, int] = {}
    for i, j in product(range(len(hashes)), repeat=2):
        apart = (hashes[i] ^ hashes[j]).bit_count()
        if splits[i] != splits[j] and valid[i] and valid[j] and apart <= distance:
            nearest[i] = min(nearest.get(i, 65), apart)
    return nearest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**10 - 1), st.booleans(), st.integers(0, 2)), max_size=40), st.integers(0, 6), st.data())
def test_pairs_equal_the_plain_search(rows: list[tuple[int, bool, int]], distance: int, data: st.DataObject) -> None:
    hashes, valid, splits = ([row[k] for row in rows] for k in range(3))
    arrays = np.array(hashes, np.uint64), np.array(valid, bool), np.array(splits, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "CELLS", data.draw(st.sampled_from([1, 7, 2**19])))
        pairs, samples = near_pairs(*arrays, distance=distance)
    expected = plain(hashes, valid, splits, distance)
    assert samples == len(expected)
    assert pairs == sorted(pairs, key=lambda p: (p[2], p[0], p[1])) and len(set(pairs)) == len(pairs)
    least: dict[int, int] = {}
    for i, j, apart in pairs:
        assert i < j and splits[i] != splits[j] and valid[i] and valid[j] and apart == (hashes[i] ^ hashes[j]).bit_count()
        for k in (i, j):
            least[k] = min(least.get(k, 65), apart)
    assert least == expected


def test_pairs_are_bounded_and_the_nearest_first() -> None:
    images = [picture(seed) for seed in range(30)]
    copies = [cv2.convertScaleAbs(image, alpha=0.9) for image in images]
    hashes, valid = hashes_of(images + copies + [np.zeros((50, 50, 3), np.uint8)] * 2)
    splits = np.array(["train"] * 30 + ["val"] * 30 + ["train", "val"])
    pairs, samples = near_pairs(hashes, valid, splits)
    assert {(i, j) for i, j, _ in pairs} == {(i, i + 30) for i in range(30)} and samples == 60
    few, samples = near_pairs(hashes, valid, splits, limit=4)
    assert few == pairs[:4] and samples == 60
    assert near_pairs(hashes, valid, np.array(["train"] * 62)) == ([], 0)
    assert near_pairs(hashes[:0], valid[:0], splits[:0]) == ([], 0)


def test_frames_of_a_real_drive(samples: Path) -> None:
    """Torn apart at random, neighbouring frames betray each other; the official split keeps its distance."""
    frames = sorted((samples / "camvid/CamVid/train").glob("*.png")) + sorted((samples / "camvid/CamVid/val").glob("*.png"))
    hashes, valid = hashes_of([read(path) for path in frames])
    official = np.array([path.parent.name for path in frames])
    assert valid.all() and near_pairs(hashes, valid, official) == ([], 0)
    drives = np.array([path.name[:6] for path in frames])
    assert near_pairs(hashes, valid, drives) == ([], 0), "frames of different drives"
    alternating = np.arange(len(frames)) % 2
    pairs, count = near_pairs(hashes, valid, alternating)
    assert count > 60 and all(drives[i] == drives[j] for i, j, _ in pairs)


@pytest.mark.parametrize(
    "pattern",
    ["coco2017_panoptic100/images/train2017/*.jpg", "crackforest/image/*.jpg", "isbi2012_membrane/data/membrane/train/image/*.png"],
)
def test_no_false_alarm_on_real_photographs(samples: Path, pattern: str) -> None:
    files = sorted(samples.glob(pattern))
    hashes, valid = hashes_of([read(path) for path in files])
    assert len(files) > 20 and valid.all()
    assert near_pairs(hashes, valid, np.arange(len(files))) == ([], 0)
