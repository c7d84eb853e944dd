"""A policy is a pure function of (image, mask, seed), moves image and labels alike, and invents no label."""

import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import albumentations as A
import numpy as np
import pytest

from segpipe.augmentation import transforms
from segpipe.augmentation.policy import NAMES, build, sample_seed


def pair(height: int = 60, width: int = 80, dtype: type = np.uint8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    mask = rng.choice([3, 7, 11, 200], (height // 10, width // 10)).astype(dtype).repeat(10, 0).repeat(10, 1)
    return image, mask


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_the_arguments_alone(name: str) -> None:
    image, mask = pair()
    before = image.copy(), mask.copy()
    policy = build(name)
    first = [policy.apply(image, mask, seed=seed) for seed in range(12)]
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])
    assert all(new is not old and not np.shares_memory(new, old) for one in first for new, old in zip(one, before, strict=True))
    random.seed(5)
    again = pickle.loads(pickle.dumps(policy))
    with ThreadPoolExecutor(4) as pool:  # one policy in many threads, in another order
        shuffled = {s: pool.submit(policy.apply, image, mask, seed=s) for s in reversed(range(12))}
    for seed, (new_image, new_mask) in enumerate(first):
        assert new_image.shape == image.shape and new_image.dtype == np.uint8
        assert new_mask.shape == mask.shape and new_mask.dtype == mask.dtype
        for other in (shuffled[seed].result(), again.apply(image, mask, seed=seed)):
            assert np.array_equal(other[0], new_image) and np.array_equal(other[1], new_mask)


@pytest.mark.parametrize("name", ["light", "strong"])
def test_seeds_differ(name: str) -> None:
    image, mask = pair()
    draws = [build(name).apply(image, mask, seed=sample_seed(0, seed)) for seed in range(20)]
    assert len({d[0].tobytes() for d in draws}) == 20 and len({d[1].tobytes() for d in draws}) == 20


@pytest.mark.parametrize("name", ["flip", "mirror", "light", "strong"])
@pytest.mark.parametrize(("dtype", "ignore_index"), [(np.uint8, 255), (np.uint8, 0), (np.uint16, 65535)])
def test_no_label_is_invented(name: str, dtype: type, ignore_index: int) -> None:
    policy, outside = build(name), 0
    for seed in range(25):
        image, mask = pair(dtype=dtype, seed=seed)
        _, new = policy.apply(image, mask, seed=seed, ignore_index=ignore_index)
        assert set(np.unique(new)) <= {3, 7, 11, 200, ignore_index}
        outside += int((new == ignore_index).sum())
    # Where the image is mirrored at its edge, the mask says ignore.
    assert (outside > 0) == (name in ("light", "strong"))


def test_none_flip_and_mirror() -> None:
    image, mask = pair()
    same, flipped = (image, mask), (image[:, ::-1], mask[:, ::-1])
    assert all(np.array_equal(a, b) for a, b in zip(build("none").apply(image, mask, seed=3), same, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(build("mirror").apply(image, mask, seed=3), flipped, strict=True))
    turned = 0
    for seed in range(200):
        new = build("flip").apply(image, mask, seed=sample_seed("flip", seed))
        is_flipped = np.array_equal(new[0], flipped[0])
        assert all(np.array_equal(a, b) for a, b in zip(new, flipped if is_flipped else same, strict=True))
        turned += is_flipped
    assert 70 < turned < 130


@pytest.mark.parametrize("name", ["light", "strong"])
def test_image_mask_and_layers_move_alike(name: str) -> None:
    """The image holds each pixel's coordinates, the mask its number: both must tell of the same place after the geometry."""
    height, width, ignore_index = 120, 160, 65535
    y, x = np.mgrid[:height, :width]
    image = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    mask = (y * width + x).astype(np.uint16)
    compose = transforms.build(name, ignore_index=ignore_index)
    for step in compose.transforms:
        if isinstance(step, A.ImageOnlyTransform):
            step.p = 0.0
    errors = []
    for seed in range(12):
        moved, labels, layers = transforms.draw(compose, image, mask, np.stack([mask, mask]), seed=seed)
        assert np.array_equal(layers[0], labels) and np.array_equal(layers[1], labels)
        valid = labels != ignore_index
        assert valid.mean() > 0.4
        told = np.stack([labels % width, labels // width], -1)[valid].astype(float)
        errors.append(moved[..., :2][valid] - told)
    error = np.concatenate(errors)
    assert np.abs(error).max() <= 2.0  # nearest neighbour twice (affine, elastic), and rounding to uint8
    assert np.abs(error.mean(0)).max() < 0.1  # a shift of half a pixel would show here


def test_steps_fire_independently() -> None:
    """albumentations' own seeding gives each step the same stream: with equal p they then all fire, or none."""
    image, mask = pair(20, 20)
    compose = transforms.build("strong", ignore_index=255)
    assert compose.strict
    steps = [step for step in compose.transforms if step.p < 1]
    fired = []
    for seed in range(300):
        transforms.draw(compose, image, mask, np.empty((0, 20, 20), np.uint16), seed=seed)
        fired.append([bool(step.params) for step in steps])
    table = np.array(fired, float)
    assert np.allclose(table.mean(0), [step.p for step in steps], atol=0.12)
    assert np.abs(np.corrcoef(table.T) - np.eye(len(steps))).max() < 0.25


def test_elastic_is_the_papers() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([transforms.elastic_field(90, 120, std=10.0, rng=rng) for _ in range(300)])
    y, x = np.mgrid[:90, :120]
    moved = fields - np.stack([x, y], -1)
    assert fields.dtype == np.float32
    still = transforms.elastic_field(90, 120, std=0.0, rng=rng)
    assert np.array_equal(still, np.stack([x, y], -1))
    centre = moved[:, 44:46, 59:61].mean((1, 2))  # a grid point: its own normal deviate
    assert np.allclose(centre.std(0), 10.0, atol=1.2) and np.allclose(centre.mean(0), 0.0, atol=1.8)
    assert abs(np.corrcoef(centre.T)[0, 1]) < 0.2
    assert np.abs(np.diff(moved, 2, axis=1)).max() < 0.5  # smooth: bicubic, no steps
    assert np.abs(np.diff(moved, axis=2)).max() < 3.0


def test_elastic_is_milder_on_small_images() -> None:
    step = transforms.Elastic(p=1.0)
    reach = {}
    for side in (50, 500):
        step.set_random_seed(1)
        field = step.get_params_dependent_on_data({"shape": (side, 2 * side)}, {})["field"]
        reach[side] = np.abs(field[..., 0] - np.arange(2 * side)).max()
    assert reach[50] == pytest.approx(reach[500] / 5, rel=0.05)


def test_sample_seed() -> None:
    assert sample_seed(0, "offline", "camvid/0001", 1, 0) == sample_seed(0, "offline", "camvid/0001", 1, 0) == 724898830
    parts: list[tuple[int | str, ...]] = [(1, 23), (12, 3), ("1", 23), ("1,23",), (123,), (1, 23, 0)]
    assert len({sample_seed(*p) for p in parts}) == len(parts)
    seeds = [sample_seed("x", i) for i in range(2000)]
    assert 0 <= min(seeds) and max(seeds) < 2**32 and np.mean(seeds) == pytest.approx(2**31, rel=0.05)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="'heavy': unknown. Choices: none, flip, mirror, light, strong"):
        build("heavy")


def test_never_phones_home_and_flip_imports_nothing() -> None:
    code = """
import socket, sys
def refuse(*_): print("phoned home"); sys.exit(3)
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from segpipe.augmentation.policy import build
pair = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
build("flip").apply(*pair, seed=0)
assert "albumentations" not in sys.modules
build("light").apply(*pair, seed=0)
assert "albumentations" in sys.modules
"""
    clean = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
