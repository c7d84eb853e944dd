"""Mean field against an independent computation's numbers, against what it must leave alone, and the fast filter against the exact.

tests/golden/dense_crf.json holds probabilities of pixels 0 and 20 of a 6 x 7 image with 3 classes, after 1, 5 and 10 iterations,
and how many pixels each class has; they were computed from the formula, apart from this repository.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segpipe import crf
from segpipe.crf import mean_field
from segpipe.crf_parameters import PARAMETERS, CrfParameters
from segpipe.permutohedral import Lattice

GOLDEN = json.loads((Path(__file__).parent / "golden" / "dense_crf.json").read_text())
NAMES = ("bilateral_weight", "sxy", "srgb", "gaussian_weight", "gaussian_sxy")
SOME = {"bilateral_weight": 4, "sxy": 20, "srgb": 10, "gaussian_weight": 3, "gaussian_sxy": 2}


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=0))
    return shifted / shifted.sum(axis=0)


def golden_case() -> tuple[np.ndarray, np.ndarray]:
    """Logits (3, 6, 7), float64, and the image."""
    i, j = np.mgrid[:6, :7]
    image = np.stack([40 * i + 3 * j, 200 - 20 * j, np.where(j < 3, 30, 220)], axis=-1).astype(np.uint8)
    energies = np.stack([np.sin(0.5 * i + 0.3 * j) + 1, np.cos(0.4 * i - 0.2 * j) + 1, np.full(i.shape, 0.7)])
    return -energies, image


def scene(height: int, width: int, *, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping discs of different colours with shading and noise, a blurred and noisy answer to them, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.int64)
    i, j = np.mgrid[:height, :width]
    for number in range(3 * classes):
        row, column, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.08, 0.3) * height
        truth[(i - row) ** 2 + (j - column) ** 2 < radius**2] = number % classes
    palette = rng.integers(30, 226, (classes, 3))
    image = palette[truth] + 25 * np.sin(i / 17 + j / 23)[..., None] + rng.normal(0, 4, (height, width, 3))
    noise = np.stack([cv2.GaussianBlur(rng.normal(0, 1, truth.shape), (0, 0), 1.5) for _ in range(classes)])
    blurred = np.stack([cv2.GaussianBlur((truth == k).astype(np.float64), (0, 0), max(2, height / 50)) for k in range(classes)])
    return (4 * blurred + 4 * noise).astype(np.float32), image.clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: f"{row['numbers']} after {row['iterations']}")
def test_golden(row: dict[str, Any]) -> None:
    logits, image = golden_case()
    q = mean_field(logits, image, **dict(zip(NAMES, row["numbers"], strict=True)), iterations=row["iterations"])
    assert q.dtype == np.float64 and q.shape == (3, 6, 7)
    for pixel, expected in row["probabilities"].items():
        np.testing.assert_allclose(q.reshape(3, -1)[:, int(pixel)], expected, rtol=1e-9)
    assert np.bincount(q.argmax(axis=0).ravel(), minlength=3).tolist() == row["histogram"]


@pytest.mark.parametrize("size", [(5, 9), (1, 12), (12, 1)], ids=str)
def test_the_exact_filters_are_the_sum_over_all_pairs_of_pixels(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One iteration from the definition, one pair after the other; the same where the matrix is made piece by piece."""
    rng = np.random.default_rng(1)
    logits, image = rng.normal(size=(3, *size)), rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    pixels = [(i, j) for i in range(size[0]) for j in range(size[1])]
    numbers = {**SOME, "srgb": 60}
    position, both = np.zeros((2, len(pixels), len(pixels)))
    for a, (i, j) in enumerate(pixels):
        for b, (k, m) in enumerate(pixels):
            apart = (i - k) ** 2 + (j - m) ** 2
            colours = ((image[i, j].astype(float) - image[k, m]) ** 2).sum()
            position[a, b] = np.exp(-apart / 2 / numbers["gaussian_sxy"] ** 2)
            both[a, b] = np.exp(-apart / 2 / numbers["sxy"] ** 2 - colours / 2 / numbers["srgb"] ** 2)
    message = logits.reshape(3, -1).copy()
    for weight, kernel in ((numbers["bilateral_weight"], both), (numbers["gaussian_weight"], position)):
        sums = np.sqrt(kernel.sum(axis=1))
        message += weight * softmax(logits).reshape(3, -1) @ (kernel / np.outer(sums, sums))
    expected = softmax(message).reshape(3, *size)
    np.testing.assert_allclose(mean_field(logits, image, **numbers, iterations=1), expected, rtol=1e-9)
    monkeypatch.setattr(crf, "EXACT_PIXELS", 1)
    monkeypatch.setattr(crf, "ROWS", 4)
    np.testing.assert_allclose(mean_field(logits, image, **numbers, iterations=1, filter="exact"), expected, rtol=1e-9)


@pytest.mark.parametrize("filter", ["exact", "fast"])
class TestInvariances:
    def test_a_constant_per_pixel_changes_nothing(self, filter: str) -> None:
        logits, image, _ = scene(30, 41)
        shifted = logits + np.random.default_rng(2).normal(0, 5, logits.shape[1:]).astype(np.float32)
        expected = mean_field(logits, image, **SOME, filter=filter)
        np.testing.assert_allclose(mean_field(shifted, image, **SOME, filter=filter), expected, atol=1e-4)

    def test_log_probabilities_do_as_well_as_logits(self, filter: str) -> None:
        logits, image, _ = scene(30, 41)
        expected = mean_field(logits, image, **SOME, filter=filter)
        np.testing.assert_allclose(mean_field(np.log(softmax(logits)), image, **SOME, filter=filter), expected, atol=1e-4)

    def test_the_order_of_the_classes_does_not_matter(self, filter: str) -> None:
        logits, image, _ = scene(30, 41, classes=40)  # more than are filtered together
        order = np.random.default_rng(3).permutation(40)
        expected = mean_field(logits, image, **SOME, filter=filter)[order]
        np.testing.assert_allclose(mean_field(logits[order], image, **SOME, filter=filter), expected, atol=1e-5)

    def test_without_weights_nothing_happens(self, filter: str) -> None:
        logits, image, _ = scene(30, 41)
        q = mean_field(logits, image, **{**SOME, "bilateral_weight": 0, "gaussian_weight": 0}, filter=filter)
        np.testing.assert_allclose(q, softmax(logits), atol=1e-6)

    def test_probabilities_sum_to_1(self, filter: str) -> None:
        logits, image, _ = scene(30, 41)
        q = mean_field(1000 * logits, image, **SOME, filter=filter)
        assert q.dtype == np.float32 and (q >= 0).all()
        np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-5)

    def test_labels_snap_to_an_edge_of_the_image(self, filter: str) -> None:
        """Two colours with a slanted border; the answer is noisy and puts the border six pixels too far to the right."""
        i, j = np.mgrid[:50, :60]
        truth = (j > 20 + i / 3).astype(np.int64)
        rng = np.random.default_rng(0)
        image = (np.array([[90, 60, 40], [140, 160, 70]])[truth] + rng.normal(0, 2, (50, 60, 3))).round().astype(np.uint8)
        answer = cv2.GaussianBlur((j > 26 + i / 3).astype(np.float64), (0, 0), 3) - 0.5 + rng.normal(0, 0.6, truth.shape)
        logits = np.stack([-answer, answer]).astype(np.float32)
        assert 0.2 < (logits.argmax(axis=0) != truth).mean()
        q = mean_field(logits, image, **asdict(PARAMETERS["deeplabv2-resnet101"]) | {"filter": filter})
        np.testing.assert_array_equal(q.argmax(axis=0), truth)

    def test_smoothing_alone_removes_specks_and_keeps_a_flat_image_s_regions(self, filter: str) -> None:
        logits = np.zeros((2, 24, 24), np.float32)
        logits[0, :, :12] = logits[1, :, 12:] = 2
        logits[1, 5, 4] = logits[0, 18, 18] = 4
        numbers = {**SOME, "bilateral_weight": 0}
        labels = mean_field(logits, np.zeros((24, 24, 3), np.uint8), **numbers, filter=filter).argmax(axis=0)
        np.testing.assert_array_equal(labels, np.broadcast_to(np.arange(24) >= 12, (24, 24)))


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_the_fast_filter_gives_the_labels_of_the_exact_one(name: str) -> None:
    """Over 99 % of the pixels, where mean field changes several per cent of them; probabilities within 0.005 on average."""
    for seed in range(2):
        logits, image, _ = scene(40, 50, seed=seed)
        exact, fast = (mean_field(logits, image, **asdict(PARAMETERS[name]) | {"filter": filter}) for filter in ("exact", "fast"))
        assert (exact.argmax(axis=0) != logits.argmax(axis=0)).mean() > 0.05
        assert (exact.argmax(axis=0) == fast.argmax(axis=0)).mean() > 0.99
        assert np.abs(exact - fast).mean() < 0.005


@pytest.mark.parametrize(("srgb", "tolerance"), [(3, 0.03), (10, 0.03), (60, 0.08)], ids=["sharp", "middling", "soft"])
def test_the_lattice_is_near_the_exact_filter(srgb: float, tolerance: float) -> None:
    """The error of the normalised filter, as a share of the answer's spread: 3 %, and more where colours hardly count."""
    logits, image, _ = scene(40, 50)
    features = crf.bilateral_features(image, sxy=50, srgb=srgb)
    values = np.ascontiguousarray(softmax(logits).reshape(len(logits), -1).T, dtype=np.float32)
    found = []
    for filter in (crf._exact_filter(features), Lattice(crf.SHARPENING * features).filter):
        scale = 1 / np.sqrt(filter(np.ones((len(values), 1), np.float32)))
        found.append(scale * filter((scale * values).astype(np.float32)))
    assert np.sqrt(np.mean((found[0] - found[1]) ** 2)) < tolerance * found[0].std()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_lattice_blurs_as_wide_as_a_gaussian(dimensions: int) -> None:
    """One point among many: its answer has the mean and the variance of a Gaussian, whatever the direction."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 5, (60_000, dimensions))
    points[0] = 0.3
    values = np.zeros((len(points), 1), np.float32)
    values[0] = 1
    weights = Lattice(points).filter(values)[:, 0].astype(np.float64)
    weights /= weights.sum()
    mean = weights @ points
    np.testing.assert_allclose(mean, 0.3, atol=0.15)
    # Splatting at the point itself adds what depends on where in its simplex it lies.
    np.testing.assert_allclose(weights @ (points - mean) ** 2, 1, atol=0.15)


def test_the_fast_position_filter_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    for height, width, spread in ((40, 31, 3.0), (7, 50, 20.0), (1, 9, 0.01)):
        values = rng.random((height * width, 5))
        exact = crf._exact_position_filter(height, width, spread)(values)
        np.testing.assert_allclose(crf._position_filter(height, width, spread)(values.astype(np.float32)), exact, rtol=2e-5)


def test_auto_is_exact_for_small_images_and_fast_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, image, _ = scene(20, 25)
    exact, fast = (mean_field(logits, image, **SOME, filter=filter) for filter in ("exact", "fast"))
    assert not np.array_equal(exact, fast)
    np.testing.assert_array_equal(mean_field(logits, image, **SOME), exact)
    monkeypatch.setattr(crf, "EXACT_PIXELS", 499)
    np.testing.assert_array_equal(mean_field(logits, image, **SOME), fast)


def test_the_published_sets_are_those_of_their_sources() -> None:
    def numbers(found: CrfParameters) -> tuple[float, ...]:
        return tuple(getattr(found, name) for name in NAMES)

    assert numbers(PARAMETERS["deeplabv2-resnet101"]) == (4, 67, 3, 3, 1)
    assert numbers(PARAMETERS["deeplabv2-vgg16-script"]) == (4, 49, 5, 3, 3)
    assert numbers(PARAMETERS["deeplabv2-vgg16"]) == (4, 65, 3, 2, 2)
    assert numbers(PARAMETERS["deconvnet"]) == (5, 20, 3, 3, 3)
    assert numbers(PARAMETERS["densecrf"]) == (10, 60, 20, 3, 3)
    assert all(found.iterations == 10 and found.filter == "auto" and found == found.checked() for found in PARAMETERS.values())


def test_user_errors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, image, _ = scene(20, 25)
    with pytest.raises(ValueError, match=r"logits \(6, 20, 25\) need an image uint8 .* not uint8 \(20, 24, 3\)"):
        mean_field(logits, image[:, 1:], **SOME)
    with pytest.raises(ValueError, match=r"not float64"):
        mean_field(logits, image / 255, **SOME)
    for wrong, message in (
        ({"sxy": 0}, r"sxy: 0 must be 0\.01 or more"),
        ({"gaussian_weight": -1}, r"gaussian_weight: -1 must be 0 or more"),
        ({"srgb": float("nan")}, r"srgb: nan must be"),
        ({"iterations": 0}, r"iterations: 0 must be 1 or more"),
        ({"filter": "quick"}, r"filter: 'quick'\. Choices: auto, exact, fast"),
    ):
        with pytest.raises(ValueError, match=message):
            mean_field(logits, image, **{**SOME, **wrong})
    monkeypatch.setattr(crf, "MOST_VALUES", 2999)
    with pytest.raises(ValueError, match=r"6 classes at 20 x 25 pixels are too much .* takes 499 pixels of 6 classes"):
        mean_field(logits, image, **SOME)
    monkeypatch.setattr(crf, "MOST_VALUES", 10**9)
    monkeypatch.setattr(crf, "MOST_PIXELS", 499)
    with pytest.raises(ValueError, match="and 499 of any number"):
        mean_field(logits, image, **SOME)
